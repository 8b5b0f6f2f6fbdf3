"""`measure judge`: agreement of two annotators, their motion bias, and what is refused; the answers are made up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from command_line import densedpo
from densedpo.core.errors import BadInput
from densedpo.core.media import write_pair_mp4
from densedpo.core.records import Judgement, Pair, from_row, to_row, write_jsonl
from densedpo.core.workspace import Project, append_jsonl, init_project, stale_inputs, write_stamp
from densedpo.judge.pairset import PairSet, pair_hash
from densedpo.judge.probe.config import ProbeConfig
from densedpo.judge.probe.motion import PairMotion
from densedpo.judge.probe.run import probe_judge
from densedpo.judge.store import LabelStore
from densedpo.measure.config import JudgeConfig
from densedpo.measure.judges.page import NO_BREAK, text
from densedpo.measure.judges.records import JudgesReport
from densedpo.measure.judges.run import compare_judges
from densedpo.measure.records import read_measured
from report_numbers import unaudited

FRAMES, RANGES = 17, ((0, 8), (8, 17))
STILL = JudgeConfig(motion=False, num_draws=200)
MOVING = JudgeConfig(num_draws=200)


def make_pairs(root: Path, num_pairs: int, name: str = "guided") -> Project:
    project = Project(root=root) if (root / "project.toml").exists() else init_project(root)
    folder = project.pairs(name)
    (folder / "videos").mkdir(parents=True)
    write_jsonl(folder / "pairs.jsonl", [pair(name, i) for i in range(num_pairs)])
    write_stamp(folder, [], project)
    return project


def pair(name: str, i: int) -> Pair:
    return Pair(
        id=f"{name}-{i}", kind="guided", prompt_id=f"w{i}", clip_id=None, caption="c", split="train", eta=0.7,
        noise_key_a="a", noise_key_b="b", seed=0, num_steps=2, guidance_scale=1.0, model="m", num_frames=FRAMES,
        fps=8.0, height=32, width=32, pixel_scale=2, video=f"videos/{i}.mp4", latents="l",
    )  # fmt: skip


def answer(project: Project, annotator: str, labels: Mapping[int, Sequence[int]]) -> None:
    """Stores answers about pairs/guided by pair: +1, 0, -1 for each segment, or one for the whole clip."""
    pairs = PairSet.read(project.pairs("guided"))
    rows = []
    for i, signs in labels.items():
        ranges = RANGES if len(signs) == 2 else ((0, FRAMES),)
        for index, ((start, stop), sign) in enumerate(zip(ranges, signs, strict=True)):
            rows.append(
                Judgement(
                    id=f"{annotator}-{i}-{start}-{stop}", pair_id=f"guided-{i}", annotator=annotator,
                    segment=index if len(signs) == 2 else None, start_frame=start, stop_frame=stop,
                    answer={1: "a", 0: "tie", -1: "b"}[sign], left="a" if i // 2 % 2 else "b", instructions="i",
                    tool_version="t", created_at="2026-01-01T00:00:00+00:00",
                )
            )  # fmt: skip
    with LabelStore.open(project.labels_db) as store:
        store.append(rows, pairs.hashes)


def judged(project: Project, config: JudgeConfig = STILL, name: str = "agree") -> JudgesReport:
    return compare_judges(
        project, name, pairs="guided", annotator="machine", against="person", command="densedpo ...", config=config
    )


@pytest.fixture
def answered(tmp_path: Path) -> Project:
    """Pair 3 is judged by one of the two only."""
    project = make_pairs(tmp_path / "p", 4)
    answer(project, "person", {0: (1, 1), 1: (-1, 0), 2: (1, -1)})
    answer(project, "machine", {0: (1, -1), 1: (-1, 1), 2: (0, -1), 3: (1, 1)})
    return project


def test_agreement_is_counted_where_neither_ties_and_with_ties_as_half(answered: Project) -> None:
    """By hand.
    The person does not tie in 5: 3 same, 1 other, 1 half. Clips: a/tie, b/b, tie/b: 1 of 1, and 1 + 1/2 of 2 chosen by
    the person (pairs 1: b; 0: a; pair 2's two segments cancel out: tie).
    """
    report = judged(answered)
    by_segment, by_clip = report.accuracies
    assert by_segment.decided is not None and by_segment.chosen is not None
    assert (by_segment.decided.value, by_segment.decided.num_values) == (3 / 4, 4)
    assert (by_segment.chosen.value, by_segment.chosen.num_values) == (3.5 / 5, 5)
    assert by_segment.confusion.counts == {
        "a": {"a": 1, "tie": 1, "b": 0},
        "tie": {"a": 1, "tie": 0, "b": 0},
        "b": {"a": 1, "tie": 0, "b": 2},
    }
    # person: a, b, tie; machine: tie, tie, b
    assert by_clip.confusion.counts["tie"] == {"a": 1, "tie": 0, "b": 1}
    assert by_clip.decided is None
    assert by_clip.chosen is not None and (by_clip.chosen.value, by_clip.chosen.num_values) == (0.5, 2)


def test_what_one_of_the_two_did_not_judge_is_counted_as_excluded(answered: Project) -> None:
    """Two segments of pair 3, and the two segments of the others where one ties."""
    decided = judged(answered).accuracies[0].decided
    assert decided is not None and (decided.n, decided.num_excluded) == (3, 2 + 2)


def test_coefficients_take_off_what_chance_gives(answered: Project) -> None:
    """Six segments, 3 the same. Shares machine: a 2, tie 1, b 3; person: a 3, tie 1, b 2 of 6. Chance: (6+1+6) / 36."""
    coefficients = judged(answered).accuracies[0].coefficients
    assert coefficients is not None and coefficients.cohen is not None and coefficients.percent is not None
    assert coefficients.percent.value == pytest.approx(1 / 2)
    assert coefficients.cohen.value == pytest.approx((1 / 2 - 13 / 36) / (1 - 13 / 36))


def test_answers_about_whole_clips_meet_the_majority_of_segments(tmp_path: Path) -> None:
    project = make_pairs(tmp_path / "p", 3)
    answer(project, "person", {0: (1,), 1: (-1,), 2: (1,)})
    answer(project, "machine", {0: (1, 0), 1: (-1, -1), 2: (-1, 0)})
    by_segment, by_clip = judged(project).accuracies
    assert by_segment.confusion.num_units == 0 and by_segment.decided is None
    assert by_clip.decided is not None and by_clip.decided.value == pytest.approx(2 / 3)


def test_the_report_and_its_page_are_written_and_audited(answered: Project) -> None:
    report = judged(answered)
    folder = answered.report("agree")
    row = json.loads((folder / "report.json").read_text())
    assert row == to_row(report)
    assert from_row(JudgesReport, row, "report.json") == report
    assert list(unaudited(row)) == []
    assert stale_inputs(folder, answered) == []
    page = (folder / "index.html").read_text()
    assert f"machine is not shown to agree with person more than chance does, at 75.0{NO_BREAK}%" in page
    assert "src=" not in page and "://" not in page
    with pytest.raises(BadInput, match="'agree' is about judges; name reports of"):
        read_measured(answered, "agree")


def test_the_same_answers_give_the_same_files(answered: Project) -> None:
    judged(answered)
    judged(answered, name="second")
    for file in ("report.json", "index.html"):
        one, other = ((answered.report(name) / file).read_text() for name in ("agree", "second"))
        assert one == other.replace('"second"', '"agree"')


def test_the_command_prints_the_numbers(answered: Project) -> None:
    names = ["--pairs", "guided", "--annotator", "machine", "--against", "person"]
    done = densedpo("measure", "judge", "agree", *names, "--set", "motion=false", "--project", answered.root)
    assert done.code == 0, done.err
    assert "segments: same answer " in done.out and "n = 3 prompts, 4 answers, 4 excluded" in done.out
    assert f"open {answered.report('agree') / 'index.html'}" in done.out


def lay_motion(project: Project, gaps: Sequence[float], name: str = "guided") -> None:
    """Motion of a set of pairs as if it had been measured: clip a moves by this much more than clip b."""
    pairs = PairSet.read(project.pairs(name))
    rows = [
        PairMotion(
            pairs=name, pair_id=each.id, pair_hash=pairs.hashes[each.id], ranges=RANGES, a=(1 + gap, 1 + gap),
            b=(1.0, 1.0), clip_a=1 + gap, clip_b=1.0,
        )
        for each, gap in zip(pairs, gaps, strict=True)
    ]  # fmt: skip
    for row in rows:
        append_jsonl(project.report("agree") / "motion.jsonl", to_row(row))


def test_clips_of_aligned_pairs_are_held_against_those_of_independent_ones(tmp_path: Path) -> None:
    """Gaps of 0.1 and 0.3 against 0.8 and 1.2: means of 0.2 and 1.0, a ratio of 0.2; the other way round 5."""
    project = make_pairs(tmp_path / "p", 2)
    make_pairs(tmp_path / "p", 2, name="independent")
    for annotator in ("machine", "person"):
        answer(project, annotator, {0: (1, 1), 1: (1, -1)})
    lay_motion(project, [0.1, -0.3])
    lay_motion(project, [0.8, -1.2], name="independent")
    report = judged(project, MOVING.model_copy(update={"independent": "independent"}))
    check = report.alignment
    assert check is not None and check.estimate is not None
    assert (check.name, check.estimate.value, check.alarm) == ("MB7", pytest.approx(0.2), False)
    assert "distance within aligned pairs" in (project.report("agree") / "index.html").read_text()


def test_an_annotator_who_pays_for_stillness_is_found_and_another_is_not(tmp_path: Path) -> None:
    """The machine takes the stiller clip in 27 of 30 pairs, the person in 16 of 30; all gaps pass the threshold."""
    project = make_pairs(tmp_path / "p", 30)
    signs = np.where(np.arange(30) % 2 == 0, 1.0, -1.0)
    gaps = signs * np.linspace(0.5, 0.9, 30)
    stiller = {i: -int(sign) for i, sign in enumerate(signs)}
    answer(project, "machine", {i: (s, s) if i % 10 else (-s, -s) for i, s in stiller.items()})
    answer(project, "person", {i: (s, s) if i % 4 < 2 else (-s, -s) for i, s in stiller.items()})
    lay_motion(project, gaps.tolist())
    machine, person = judged(project, MOVING).bias
    shares = {each.annotator: each.checks[1] for each in (machine, person)}
    assert shares["machine"].name == "MB2" and shares["machine"].estimate is not None
    assert shares["machine"].estimate.value == pytest.approx(27 / 30) and shares["machine"].alarm
    assert shares["person"].estimate is not None and not shares["person"].alarm
    slopes = {each.annotator: each.checks[0] for each in (machine, person)}
    assert slopes["machine"].alarm and not slopes["person"].alarm


def moving_square(speed: float) -> np.ndarray:
    clip = np.full((FRAMES, 32, 32, 3), 40, np.uint8)
    for i, frame in enumerate(clip):
        x = 4 + round(i * speed)
        frame[10:18, x : x + 8] = 220
    return clip


def test_motion_is_measured_from_the_pairs_own_videos_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Clip a moves by a pixel each frame and b not at all; the second pair's video is damaged."""
    project = make_pairs(tmp_path / "p", 2)
    answer(project, "machine", {0: (1, 1), 1: (1, -1)})
    answer(project, "person", {0: (1, -1), 1: (1, 1)})
    videos = project.pairs("guided") / "videos"
    write_pair_mp4(videos / "0.mp4", moving_square(1.0), moving_square(0.0), fps=8.0, pixel_scale=2)
    (videos / "1.mp4").write_bytes(b"no video")
    report = judged(project, MOVING)
    row, damaged = (json.loads(line) for line in (project.report("agree") / "motion.jsonl").read_text().splitlines())
    assert row["clip_a"] == pytest.approx(1.0, abs=0.1) and row["clip_b"] == 0.0
    assert damaged["clip_a"] is None
    assert [(each.pair_id, str(tmp_path) in each.fault) for each in report.excluded] == [("guided-1", False)]
    assert "its motion is left out" in caplog.text
    (videos / "0.mp4").unlink()  # not read again
    assert judged(project, MOVING).bias == report.bias
    with pytest.raises(BadInput, match="strict: the motion of 1 pairs is not known, such as 'guided-1'"):
        judged(project, MOVING.model_copy(update={"strict": True}))


def test_pairs_made_anew_are_measured_anew(tmp_path: Path) -> None:
    project = make_pairs(tmp_path / "p", 1)
    lay_motion(project, [0.5])
    path = project.report("agree") / "motion.jsonl"
    stored = PairMotion(**json.loads(path.read_text()))
    assert stored.pair_hash != pair_hash(replace(pair("guided", 0), seed=1))


@pytest.mark.parametrize(
    ("annotator", "against", "message"),
    [
        ("machine", "machine", "'machine' always agrees with itself"),
        ("machine", "nobody", "'nobody' has not judged pairs/guided; its annotators are machine, person"),
    ],
)
def test_annotators_without_answers_are_refused(answered: Project, annotator: str, against: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        compare_judges(answered, "x", pairs="guided", annotator=annotator, against=against, command="", config=STILL)
    assert not answered.report("x").exists()


def test_another_report_is_not_written_over(answered: Project) -> None:
    folder = answered.report("agree")
    folder.mkdir(parents=True)
    (folder / "report.json").write_text('{"kind": "comparison"}')
    with pytest.raises(BadInput, match="reports/agree is a comparison; choose another name"):
        judged(answered)


def test_settings_without_effect_are_refused() -> None:
    with pytest.raises(ValueError, match="independent has no effect with motion = false"):
        JudgeConfig(motion=False, independent="others")


def test_the_verdict_of_a_probe_is_on_the_page_and_in_the_report(answered: Project) -> None:
    pairs = PairSet.read(answered.pairs("guided"))
    with LabelStore.open(answered.labels_db) as store:
        config = ProbeConfig(motion=False, num_draws=200)
        probe_judge(answered, pairs, store, annotator="machine", truth="person", config=config)
    report = judged(answered)
    (verdict,) = report.probes
    assert (verdict.annotator, verdict.truth, verdict.passed) == ("machine", "person", False)
    assert "probe of machine against person on pairs/guided: FAILED (accuracy" in text(report)
    assert "Probe of machine" in (answered.report("agree") / "index.html").read_text(encoding="utf-8")
