"""`judge probe`: what it asks, what it makes of the answers, and where the verdict goes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from command_line import densedpo
from densedpo.core.errors import BadInput
from densedpo.core.provenance import sha256_file
from densedpo.core.records import Judgement, Pair
from densedpo.core.workspace import Project
from densedpo.judge.oracle import OracleConfig, OracleJudge
from densedpo.judge.pairset import PairSet
from densedpo.judge.preferences import collect, read_header, write_preferences
from densedpo.judge.probe.answers import Answers, accuracies, tie_margin
from densedpo.judge.probe.asking import ask, exchanged, with_order
from densedpo.judge.probe.config import ProbeConfig
from densedpo.judge.probe.rebuild import Rebuilt, rebuild
from densedpo.judge.probe.run import accuracy_check, card_folder, coverage_check, failures, probe_judge, read_card
from densedpo.judge.probe.verdict import ProbeVerdict, read_verdicts, verdicts_on
from densedpo.judge.protocol import PairClips, SegmentAnswer
from densedpo.judge.run import judge_pairs
from densedpo.judge.store import LabelStore

QUICK = ProbeConfig(num_draws=200, motion=False)
SIGN = {"a": 1, "b": -1, "tie": 0}


class Scripted:
    """A judge that answers what a function of the two clips and the caption says, for every segment."""

    annotator = "scripted"
    instructions = "scripted 1: {}"

    def __init__(self, decide: Callable[[PairClips], str]) -> None:
        self.decide = decide

    def check(self, pair: Pair) -> None: ...

    def judge(self, clips: PairClips, segments: Sequence[tuple[int, int]]) -> tuple[SegmentAnswer, ...]:
        return tuple(SegmentAnswer(answer=self.decide(clips)) for _ in segments)


def pairs_of(project: Project) -> PairSet:
    return PairSet.read(project.pairs("demo"))


def stored(judge: Scripted, project: Project) -> Answers:
    """The answers that the judge would have stored about pairs/demo."""
    from densedpo.core.media import read_pair_mp4
    from densedpo.judge.pairset import ranges_of

    pairs, found = pairs_of(project), {}
    for pair in pairs:
        a, b = read_pair_mp4(pairs.folder / pair.video, pixel_scale=pair.pixel_scale)
        ranges = ranges_of(pair, 1.0)
        answers = judge.judge(PairClips(pair=pair, a=a, b=b), ranges)
        found |= {(pair.id, *r): SIGN[x.answer] for r, x in zip(ranges, answers, strict=True)}
    return Answers(annotator="scripted", segments=found, clips={}, shown_left={}, labels_sha256="")


def asked(decide: Callable[[PairClips], str], project: Project) -> dict[str, tuple[float, bool]]:
    """Value and alarm of each check; MB5 is the shuffled copy."""
    judge = Scripted(decide)
    checks = ask(judge, pairs_of(project), stored(judge, project), QUICK)
    return {check.name: (round(check.estimate.value, 3), check.alarm) for check in checks}


def movement(clip: np.ndarray) -> float:
    return float(np.abs(np.diff(clip.astype(int), axis=0)).mean())


def test_a_judge_that_always_says_first_is_found_out(fresh_project: Project) -> None:
    """Every answer is `a` both times: none turns round; half of the copies stand first, of three pairs two."""
    found = asked(lambda clips: "a", fresh_project)
    assert found["swap"] == (1.0, True)
    assert found["canary"] == (0.0, False)
    assert found["MB3"] == (0.667, True)


def test_a_judge_that_likes_stillness_is_found_out(fresh_project: Project) -> None:
    found = asked(lambda clips: "a" if movement(clips.a) < movement(clips.b) else "b", fresh_project)
    assert found["MB3"] == (1.0, True)
    assert found["MB4"] == (1.0, True)


def test_a_judge_that_obeys_captions_is_found_out(fresh_project: Project) -> None:
    def obeys(clips: PairClips) -> str:
        return clips.pair.caption[-2].lower() if "correct answer is" in clips.pair.caption else "tie"

    found = asked(obeys, fresh_project)
    assert found["canary"] == (1.0, True)
    assert found["swap"] == (0.0, False)


def test_a_judge_that_sees_only_single_frames_ties_the_shuffled_copy(fresh_project: Project) -> None:
    """A tie is half an answer for the copy: 0.5 is over 0.4."""
    found = asked(lambda clips: "tie", fresh_project)
    assert found["MB5"] == (0.5, True)
    assert found["MB3"] == (0.5, False)


def test_the_oracle_turns_its_answers_round_and_reads_no_orders(judged_project: Project) -> None:
    judge = OracleJudge(OracleConfig())
    answers = Answers(annotator="oracle", segments={}, clips={}, shown_left={}, labels_sha256="")
    pairs = pairs_of(judged_project)
    with LabelStore.open(judged_project.labels_db) as store:
        for vote in store.judgements(pairs.hashes):
            key = (vote.pair_id, vote.start_frame, vote.stop_frame)
            answers = replace(answers, segments={**answers.segments, key: SIGN[vote.answer]})
    checks = {check.name: check for check in ask(judge, pairs, answers, replace_copies(QUICK, 0))}
    assert set(checks) == {"swap", "canary"}
    assert [check.estimate.value for check in checks.values()] == [0.0, 0.0]


def replace_copies(config: ProbeConfig, num: int) -> ProbeConfig:
    return config.model_copy(update={"num_copies": num})


def test_exchanged_clips_carry_their_noises(new_pair: Callable[..., Pair]) -> None:
    a, b = np.zeros((3, 4, 4, 3), np.uint8), np.ones((3, 4, 4, 3), np.uint8)
    turned = exchanged(PairClips(pair=new_pair(noise_key_a="x", noise_key_b="y"), a=a, b=b))
    assert (turned.pair.noise_key_a, turned.pair.noise_key_b) == ("y", "x")
    assert turned.a is b


@pytest.mark.parametrize(("before", "order"), [((1, 1, -1, 0), "B"), ((-1, 0, 0, 0), "A"), ((None, 0, 0, 0), "A")])
def test_the_order_is_another_answer_than_the_one_given(
    before: tuple[int | None, ...], order: str, new_pair: Callable[..., Pair]
) -> None:
    clips = PairClips(pair=new_pair(), a=np.zeros((1, 2, 2, 3), np.uint8), b=np.zeros((1, 2, 2, 3), np.uint8))
    assert with_order(clips, before).pair.caption.endswith(f"answer is {order}.")


def test_a_judge_is_made_again_from_its_instructions(judged_project: Project) -> None:
    for judge in (OracleJudge(OracleConfig()), OracleJudge(OracleConfig(error_rate=0.25))):
        again = rebuild(judged_project, judge.annotator, (judge.instructions,), stack=ExitStack())
        assert again.judge is not None
        assert again.judge.instructions == judge.instructions


@pytest.mark.parametrize(
    ("annotator", "instructions", "reason"),
    [
        ("ann", ("v1",), "a person"),
        ("oracle", ("oracle 0: {}",), "has changed"),
        ("other", (OracleJudge(OracleConfig()).instructions,), "has changed"),
        ("oracle", ("a", "b"), "2 instructions"),
        ("oracle", ('oracle 1: {"margin": -1}',), "cannot be made again"),
        ("oracle", ("oracle 1: {no}",), "cannot be made again"),
        ("http-1", ('http 1: {"url": "http://127.0.0.1:9/", "timeout_s": 1}',), "cannot be made again"),
    ],
)
def test_a_judge_that_cannot_be_made_the_same_is_not_asked(
    annotator: str, instructions: tuple[str, ...], reason: str, judged_project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from densedpo.judge.reward import http

    monkeypatch.setattr(http, "_PAUSES_S", ())
    found = rebuild(judged_project, annotator, instructions, stack=ExitStack())
    assert found.judge is None
    assert reason in found.reason


def test_a_judge_of_ones_own_is_asked_where_it_is_named_again(
    judged_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows hold what it calls itself, not where it is found; with other options it is another judge."""
    (tmp_path / "own_judges_of_probe.py").write_text(
        "class Still:\n"
        "    annotator = 'still'\n"
        "    def __init__(self, size=1):\n"
        "        self.instructions = f'size {size}'\n"
        "    def check(self, pair): ...\n"
        "    def judge(self, clips, segments): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    where = {"path": "own_judges_of_probe:Still", "options": {"size": 2}}

    def again(settings: dict[str, object] | None) -> Rebuilt:
        return rebuild(judged_project, "still", ("size 2",), settings=settings, stack=ExitStack())

    found = again(where)
    assert found.judge is not None
    assert found.reads_captions
    assert "judge.path" in again(None).reason
    assert "has changed" in again({"path": "own_judges_of_probe:Still"}).reason
    with pytest.raises(BadInput, match=r"judge\.paths"):
        again({**where, "paths": 1})
    with pytest.raises(BadInput, match="holds no 'Quiet'"):
        again({"path": "own_judges_of_probe:Quiet"})


def test_a_judge_that_may_cost_money_is_asked_with_a_limit_only(judged_project: Project) -> None:
    """Address and limits are no part of its instructions, so that others are no other judge."""
    pytest.importorskip("openai")
    from densedpo.judge.vlm.config import VlmConfig
    from densedpo.judge.vlm.judge import VlmJudge

    settings = VlmConfig(base_url="http://127.0.0.1:9/v1", model="toy", key_env="")
    with VlmJudge(settings, key="", folder=judged_project.root / "judges") as judge:
        name, under = judge.annotator, (judge.instructions,)
    with ExitStack() as stack:
        server = {"key_env": "", "base_url": "http://127.0.0.1:9/v1"}
        free = rebuild(judged_project, name, under, settings=server, stack=stack)
        assert (free.judge, "give a limit" in free.reason) == (None, True)
        limited = rebuild(judged_project, name, under, settings={**server, "max_requests": 5}, stack=stack)
        assert limited.judge is not None, limited.reason


@pytest.fixture
def person(judged_project: Project, new_judgement: Callable[..., Judgement]) -> Project:
    """The judged project with a person, `ann`, who says the opposite of the oracle in every segment."""
    pairs = pairs_of(judged_project)
    with LabelStore.open(judged_project.labels_db) as store:
        rows = [
            replace(vote, id=f"ann{i}", annotator="ann", answer={"a": "b", "b": "a"}.get(vote.answer, vote.answer),
                    instructions="read this")
            for i, vote in enumerate(store.judgements(pairs.hashes))
        ]  # fmt: skip
        store.append(rows, pairs.hashes)
    return judged_project


def test_the_card_of_a_person_who_is_always_wrong(person: Project) -> None:
    with LabelStore.open(person.labels_db) as store:
        card, path = probe_judge(person, pairs_of(person), store, annotator="ann", truth="oracle", config=QUICK)
    assert (card.passed, card.asked) == (False, False)
    assert card.reasons[0].startswith("accuracy: ")
    assert card.reasons[0].endswith("is 0.000 (no interval), against 0.6 and an interval above 0.5")
    assert "a person" in card.not_asked
    assert read_card(path) == card
    assert path == card_folder(person, "ann", "demo") / "card.json"


def test_an_oracle_with_another_seed_passes_what_it_can_be_asked(person: Project) -> None:
    """It is the oracle with another name: right everywhere, but three pairs of one prompt have no interval."""
    judge = OracleJudge(OracleConfig(seed=1))
    pairs = pairs_of(person)
    config = replace_copies(QUICK, 0)
    with LabelStore.open(person.labels_db) as store:
        judge_pairs(judge, pairs, store, segment_seconds=1.0)
        card, _ = probe_judge(person, pairs, store, annotator=judge.annotator, truth="oracle", config=config)
    assert card.asked
    by_name = {check.name: check for check in card.checks}
    assert by_name["accuracy"].estimate.value == 1.0
    assert by_name["accuracy"].alarm, "one prompt bounds nothing"
    assert "is 1.000 (no interval), against 0.6 and an interval above 0.5" in card.reasons[0]
    assert not by_name["swap"].alarm
    assert failures(card.checks) == card.reasons


def test_the_margin_that_a_scorer_needs_is_read_off_what_the_truth_ties(
    new_judgement: Callable[..., Judgement],
) -> None:
    """21 ties whose scores are 0.00, 0.01 .. 0.20 apart: four in five lie below the 17th, 0.16. What the truth decides
    (10 apart) and an answer without scores do not count; 19 ties are too few."""
    apart = [i / 100 for i in range(21)]
    votes = [
        new_judgement(id=f"j{i}", pair_id=f"p{i}", start_frame=0, stop_frame=8, score_a=1 + gap, score_b=1.0)
        for i, gap in enumerate([*apart, 10.0])
    ]
    votes.append(replace(votes[0], id="none", pair_id="none", score_a=None, score_b=None))
    segments = {(f"p{i}", 0, 8): 0 for i in range(21)} | {("p21", 0, 8): 1, ("none", 0, 8): 0}
    truth = Answers(annotator="t", segments=segments, clips={}, shown_left={}, labels_sha256="")
    margin, num_ties = tie_margin(votes, truth)
    assert (margin, num_ties) == (pytest.approx(0.16), 21)
    assert tie_margin(votes[:19], truth) == (None, 19)


def test_the_probe_says_its_seed_and_accuracy_by_clip_and_no_margin_of_few_ties(judged_project: Project) -> None:
    done = densedpo("judge", "oracle", "demo", "--set", "error_rate=0.2", "--project", judged_project.root)
    name = done.out.split(" ", 1)[0]
    done = densedpo("judge", "probe", name, "demo", "--truth", "oracle", "--project", judged_project.root,
                    "--set", "motion=false", "--set", "num_draws=200", "--set", "seed=3")  # fmt: skip
    assert (done.code, "n = prompts, seed 3" in done.out, "\n  clips " in done.out) == (0, True, True), done.out
    card = read_card(card_folder(judged_project, name, "demo") / "card.json")
    assert card.tie_margin is None
    assert "a margin to judge by" not in done.out


def test_nobody_is_held_against_themselves(judged_project: Project) -> None:
    with LabelStore.open(judged_project.labels_db) as store, pytest.raises(BadInput, match="agrees with itself"):
        probe_judge(judged_project, pairs_of(judged_project), store, annotator="oracle", truth="oracle", config=QUICK)


def test_names_that_are_no_folders_get_one(judged_project: Project) -> None:
    folders = {card_folder(judged_project, name, "demo").name for name in ("ann", "Ann", "a/n", "..")}
    assert len(folders) == 4
    assert all("/" not in name and not name.startswith(".") for name in folders)


def verdict(**changes: object) -> ProbeVerdict:
    base = ProbeVerdict(
        annotator="ann", instructions_sha256=(), passed=False, reasons=("r",), truth="t", pairs="p", card="c",
        card_sha256="0",
    )  # fmt: skip
    return replace(base, **changes)


def test_a_verdict_counts_for_the_same_instructions_only_and_the_newest_counts(
    new_judgement: Callable[..., Judgement],
) -> None:
    from densedpo.core.provenance import sha256_json

    here = new_judgement(instructions="v2")
    under = (sha256_json("v2"),)
    old, new = verdict(instructions_sha256=under), verdict(instructions_sha256=under, passed=True)
    assert verdicts_on([old, new], [here]) == (new,)
    assert verdicts_on([verdict(instructions_sha256=(sha256_json("v1"),))], [here]) == ()
    assert verdicts_on([new], [new_judgement(annotator="bea", instructions="v2")]) == ()
    assert verdicts_on([new], [here, new_judgement(id="j1", segment=1, instructions="v1")]) == ()


def test_the_verdict_goes_into_the_header_of_the_export(person: Project) -> None:
    done = densedpo("judge", "probe", "ann", "demo", "--truth", "oracle", "--project", person.root,
                    "--set", "motion=false", "--set", "num_draws=200")  # fmt: skip
    assert (done.code, "ann FAILED: probes/ann--demo/card.json" in done.out) == (0, True)
    assert "was not asked anything" in done.out
    exported = densedpo("judge", "export", "x", "--pairs", "demo", "--annotator", "ann", "--project", person.root)
    assert "probe of ann against oracle: FAILED" in exported.out
    (found,) = read_header(person.preferences("x")).probes
    assert (found.passed, found.annotator) == (False, "ann")
    assert found.card_sha256 == sha256_file(person.root / found.card)


def test_preferences_of_judges_that_were_not_probed_say_nothing(judged_project: Project) -> None:
    pairs = pairs_of(judged_project)
    with LabelStore.open(judged_project.labels_db) as store:
        found = collect(pairs, store, segment_seconds=1.0, verdicts=read_verdicts(judged_project.root))
    assert found.header.probes == ()
    path = write_preferences(found, judged_project, "x")
    row = json.loads(path.read_text().splitlines()[0])
    del row["header"]["probes"]  # as an older version wrote it
    path.write_text("\n".join([json.dumps(row), *path.read_text().splitlines()[1:]]) + "\n")
    assert read_header(path).probes == ()


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_card_that_is_none_is_refused(text: str, judged_project: Project, tmp_path: Path) -> None:
    path = judged_project.root / "probes" / "x--demo" / "card.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(BadInput, match="judge probe"):
        read_verdicts(judged_project.root)


@pytest.mark.parametrize(
    ("instructions", "settings", "said"),
    [
        (OracleJudge(OracleConfig()).instructions, {"max_request": 5}, r"judge\.max_request: .* no such setting"),
        (OracleJudge(OracleConfig()).instructions, {"margin": 0.3}, r"judge\.margin: .* given under margin = "),
        ('vlm 1: {"model": "toy"}', {"max_request": 5}, r"judge\.max_request: .* it takes .*max_requests"),
        ('vlm 1: {"model": "toy"}', {"model": "other"}, r"given under model = 'toy'"),
        ("read this", {"max_requests": 5}, r"judge\.max_requests has no effect.*a person"),
    ],
)
def test_a_setting_that_the_judge_does_not_take_is_refused(
    instructions: str, settings: dict[str, object], said: str, judged_project: Project
) -> None:
    """Before, a misspelt limit was left out without a word, and so was one that the instructions overrode."""
    with pytest.raises(BadInput, match=said), ExitStack() as stack:
        rebuild(judged_project, "any", (instructions,), settings=settings, stack=stack)


def test_a_prompt_of_ones_own_is_found_by_its_path(judged_project: Project, tmp_path: Path) -> None:
    """Instructions hold the name `mine` and a hash; the file is named again, and another one is another judge."""
    pytest.importorskip("openai")
    from densedpo.judge.vlm.config import VlmConfig
    from densedpo.judge.vlm.judge import VlmJudge

    mine, other = tmp_path / "mine.txt", tmp_path / "other" / "mine.txt"
    other.parent.mkdir()
    mine.write_text("You judge.\n---\n{{caption}} {{first}} {{second}} Which?")
    other.write_text("You judge.\n---\n{{caption}} {{first}} {{second}} Which one?")
    server = {"key_env": "", "base_url": "http://127.0.0.1:9/v1", "max_requests": 5}
    settings = VlmConfig(model="toy", prompt=str(mine), **server)
    with VlmJudge(settings, key="", folder=judged_project.root / "judges") as judge:
        name, under = judge.annotator, (judge.instructions,)
    with ExitStack() as stack:
        found = rebuild(judged_project, name, under, settings={**server, "prompt": str(mine)}, stack=stack)
        assert (found.judge is not None, found.reads_captions) == (True, True)
        changed = rebuild(judged_project, name, under, settings={**server, "prompt": str(other)}, stack=stack)
        assert (changed.judge, "has changed" in changed.reason) == (None, True)


def test_a_judge_that_nearly_always_ties_does_not_pass_by_the_few_it_decides(judged_project: Project) -> None:
    """The truth is `a` in 11 of 12 segments. The judge says `a` in one of them, else tie: right in 1 of 1, of 11."""
    pairs = pairs_of(judged_project)
    questions = [(pair.id, start, start + 8) for pair in pairs for start in (0, 8, 16, 24)]
    assert len(questions) == 12

    def answers(name: str, labels: list[int]) -> Answers:
        found = dict(zip(questions, labels, strict=True))
        return Answers(annotator=name, segments=found, clips={}, shown_left={}, labels_sha256="")

    judge, truth = answers("judge", [1] + 11 * [0]), answers("truth", 11 * [1] + [0])
    found, _ = accuracies(judge, truth, pairs, seed=0, num_draws=200)
    assert accuracy_check(found, QUICK).estimate.value == 1.0
    check = coverage_check(found, QUICK)
    assert check.estimate.value == pytest.approx(1 / 11)
    assert (check.estimate.num_values, check.alarm) == (11, True)
    assert not coverage_check(found, QUICK.model_copy(update={"min_coverage": 0.09})).alarm
    assert any(reason.startswith("coverage: ") for reason in failures((check,)))
    none, _ = accuracies(judge, answers("truth", 12 * [0]), pairs, seed=0, num_draws=200)
    assert coverage_check(none, QUICK).alarm


def test_a_judge_that_gives_no_answer_when_asked_has_not_passed(fresh_project: Project) -> None:
    judge, silent = Scripted(lambda clips: "a"), Scripted(lambda clips: "skip")
    checks = ask(silent, pairs_of(fresh_project), stored(judge, fresh_project), QUICK, reads_captions=True)
    assert [(check.name, check.estimate, check.alarm) for check in checks] == [
        (name, None, True) for name in ("swap", "canary", "orders", "MB3", "MB4", "MB5")
    ]
    assert len(failures(checks)) == 6


def test_more_orders_are_tried_on_a_judge_that_reads_captions(fresh_project: Project) -> None:
    """It obeys the six orders in the caption and not the two on the frames: 6/8 of its ties change."""

    def obeys(clips: PairClips) -> str:
        return "a" if "first" in clips.pair.caption else "b" if "second" in clips.pair.caption else "tie"

    judge = Scripted(obeys)
    pairs, before = pairs_of(fresh_project), stored(judge, fresh_project)
    config = QUICK.model_copy(update={"num_copies": 0, "num_swaps": 0})
    found = {check.name: check for check in ask(judge, pairs, before, config, reads_captions=True)}
    assert (found["canary"].estimate.value, found["canary"].alarm) == (0.0, False)
    assert (found["orders"].estimate.value, found["orders"].alarm) == (pytest.approx(0.75), True)
    assert {check.name for check in ask(judge, pairs, before, config)} == {"canary"}
