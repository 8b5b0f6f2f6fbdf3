"""From pairs on disk to a preferences file, through the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from densedpo.cli.main import run
from densedpo.core.errors import BadInput
from densedpo.core.media import write_pair_mp4
from densedpo.core.records import Judgement, Pair, read_jsonl, write_jsonl
from densedpo.core.workspace import Project, read_stamp, stale_inputs, write_stamp, writing
from densedpo.judge.pairset import PairSet, pair_hash
from densedpo.judge.preferences import changed_labels, read_preferences
from densedpo.judge.store import LabelStore

SEGMENTS = ((0, 8), (8, 16), (16, 24), (24, 33))


def densedpo(*arguments: str | Path) -> int:
    """Runs a command line and returns its exit code."""
    with pytest.raises(SystemExit) as left:
        run([str(argument) for argument in arguments])
    assert isinstance(left.value.code, int)
    return left.value.code


def judge(project: Project, *arguments: str | Path) -> int:
    return densedpo("judge", *arguments, "--project", project.root)


def stored(project: Project) -> tuple[Judgement, ...]:
    with LabelStore.open(project.labels_db, create=False) as store:
        return store.judgements(PairSet.read(project.pairs("demo")).hashes)


@pytest.mark.parametrize("kind", ["oracle", "reference"])
def test_pairs_are_judged_and_exported(fresh_project: Project, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert judge(fresh_project, kind, "demo") == 0
    out = capsys.readouterr().out
    assert f"{kind} judged 3 of 3 pairs" in out
    assert "12 segments of 3 pairs" in out
    assert judge(fresh_project, "export", "demo", "--pairs", "demo") == 0
    path = fresh_project.preferences("demo")
    found = read_preferences(path, PairSet.read(fresh_project.pairs("demo")))
    assert {row.pair_id: row.labels[2:] for row in found.rows} == {"p0": (1, 1), "p1": (-1, -1), "p2": (0, 0)}
    assert {row.pair_id: row.clip_label for row in found.rows} == {"p0": 1, "p1": -1, "p2": 0}
    assert all(row.ranges == SEGMENTS and row.confidence is None for row in found.rows)
    header = found.header
    assert (header.pairs, header.annotators, header.only_annotators) == ("demo", (kind,), None)
    assert (header.num_pairs, header.num_segments, header.num_judgements, header.num_unjudged_pairs) == (3, 12, 12, 0)
    assert header.a_share == 0.5
    stamp = read_stamp(path)
    assert stamp is not None
    assert set(stamp.inputs) == {"pairs/demo"}


def test_judging_again_appends_nothing_and_looks_at_nothing(
    judged_project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stored(judged_project)
    for video in judged_project.pairs("demo").glob("*.mp4"):
        video.unlink()
    assert judge(judged_project, "oracle", "demo") == 0
    assert "judged 0 of 3 pairs (3 were judged before)" in capsys.readouterr().out
    assert stored(judged_project) == before


def test_a_run_that_was_cut_goes_on_where_it_stopped(
    fresh_project: Project, clean: np.ndarray, faulty: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    video = fresh_project.pairs("demo") / "p1.mp4"
    video.write_bytes(b"not a video")
    assert judge(fresh_project, "oracle", "demo") == 2
    assert "p1.mp4" in capsys.readouterr().err
    assert {row.pair_id for row in stored(fresh_project)} == {"p0"}
    write_pair_mp4(video, faulty, clean, fps=8.0, pixel_scale=2)
    assert judge(fresh_project, "oracle", "demo") == 0
    assert "judged 2 of 3 pairs (1 were judged before)" in capsys.readouterr().out


def test_exporting_twice_writes_the_same_bytes(judged_project: Project) -> None:
    judge(judged_project, "export", "demo", "--pairs", "demo")
    first = judged_project.preferences("demo").read_bytes()
    judge(judged_project, "export", "demo", "--pairs", "demo")
    assert judged_project.preferences("demo").read_bytes() == first


def test_annotators_can_be_chosen_and_are_told_apart(
    judged_project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    judge(judged_project, "oracle", "demo", "--set", "error_rate=1.0")
    (wrong,) = {row.annotator for row in stored(judged_project)} - {"oracle"}
    assert judge(judged_project, "export", "wrong", "--pairs", "demo", "--annotator", wrong) == 0
    assert judge(judged_project, "export", "right", "--pairs", "demo", "--annotator", "oracle") == 0
    pairs = PairSet.read(judged_project.pairs("demo"))
    turned, straight = (read_preferences(judged_project.preferences(n), pairs).rows for n in ("wrong", "right"))
    assert [row.labels for row in turned] == [tuple(-label for label in row.labels) for row in straight]
    assert judge(judged_project, "export", "x", "--pairs", "demo", "--annotator", "nobody") == 2
    assert f"'nobody' has not judged pairs/demo; its annotators are oracle, {wrong}" in capsys.readouterr().err


def test_labels_that_change_are_noticed(judged_project: Project, new_judgement: Callable[..., Judgement]) -> None:
    judge(judged_project, "export", "demo", "--pairs", "demo")
    assert changed_labels(judged_project, "demo") is None
    with LabelStore.open(judged_project.labels_db) as store:
        store.append([new_judgement()], PairSet.read(judged_project.pairs("demo")).hashes)
    assert changed_labels(judged_project, "demo") == "labels of pairs/demo changed (12 answers then, 13 now)"


def test_pairs_made_anew_start_unlabelled(
    judged_project: Project, new_pair: Callable[..., Pair], capsys: pytest.CaptureFixture[str]
) -> None:
    judge(judged_project, "export", "demo", "--pairs", "demo")
    write_jsonl(judged_project.pairs("demo") / "pairs.jsonl", [new_pair(seed=1)])
    assert stale_inputs(judged_project.preferences("demo"), judged_project) == ["pairs/demo changed"]
    assert judge(judged_project, "export", "demo", "--pairs", "demo") == 2
    assert "nobody has judged pairs/demo as they are now" in capsys.readouterr().err


def test_the_hash_of_a_pair_is_of_what_was_seen(new_pair: Callable[..., Pair]) -> None:
    same = new_pair(video="elsewhere.mp4", latents="x.safetensors", split="validation", pixel_scale=4)
    assert pair_hash(same) == pair_hash(new_pair())
    for changes in ({"seed": 1}, {"model": "other"}, {"noise_key_b": "c"}, {"eta": 0.71}, {"id": "p9"}):
        assert pair_hash(new_pair(**changes)) != pair_hash(new_pair())


def test_every_answer_can_be_exported_and_brought_into_another_project(
    judged_project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    judge(judged_project, "export", "demo", "--pairs", "demo", "--judgements", rows)
    before = stored(judged_project)
    assert tuple(read_jsonl(rows, Judgement)) == before
    judged_project.labels_db.unlink()
    assert judge(judged_project, "import", rows, "--pairs", "demo") == 0
    assert "12 answers stored, 0 were stored before" in capsys.readouterr().out
    assert stored(judged_project) == before


def test_stale_pairs_are_refused_unless_told_otherwise(
    fresh_project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stamp(fresh_project.pairs("demo"), [fresh_project.clips], fresh_project)
    (fresh_project.clips / "clips.jsonl").write_text("", encoding="utf-8")
    assert judge(fresh_project, "oracle", "demo") == 2
    assert "pairs/demo is stale: clips changed" in capsys.readouterr().err
    assert judge(fresh_project, "oracle", "demo", "--allow-stale") == 0


def test_a_second_export_at_the_same_time_gets_one_line(
    judged_project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    with writing(judged_project.root / "preferences"):
        assert judge(judged_project, "export", "demo", "--pairs", "demo") == 2
    assert "is being written by another process" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["oracle", "missing"], "pairs.jsonl is missing; make pairs with `densedpo generate guided missing`"),
        (["oracle", "../demo"], "cannot name an artefact"),
        (["oracle", "demo", "--set", "eror_rate=0.1"], "unknown key; the keys are segment_seconds, margin, error_rate"),
        (["oracle", "demo", "--set", "error_rate=1.5"], "less than or equal to 1"),
        (["oracle", "demo", "--set", "segment_seconds=0.01"], "hold less than one frame"),
        (["export", "x", "--pairs", "demo"], "labels.db does not exist: nothing is judged yet"),
        (["import", "missing.jsonl", "--pairs", "demo"], "missing.jsonl: no such file"),
    ],
)
def test_bad_input_is_one_line(
    fresh_project: Project, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge(fresh_project, *arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_answers_about_other_segments_are_not_exported(
    fresh_project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    judge(fresh_project, "oracle", "demo", "--set", "segment_seconds=2.0")
    assert judge(fresh_project, "export", "demo", "--pairs", "demo") == 2
    assert "which is no segment here" in capsys.readouterr().err
    assert judge(fresh_project, "export", "demo", "--pairs", "demo", "--set", "segment_seconds=2.0") == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row | {"labels": [1, 0]}, "2 labels for 4 ranges"),
        (lambda row: row | {"labels": [1, 0, 2, 0]}, "labels are -1, 0 or 1, not 2"),
        (lambda row: row | {"pair_id": "p9"}, "there is no pair 'p9'"),
        (lambda row: row | {"ranges": [[0, 8]], "labels": [1]}, "the labels cover 8 frames, the pair has 33"),
        (lambda row: row | {"ranges": [[0, 8], [9, 16], [16, 24], [24, 33]]}, "gap or overlap"),
        (lambda row: row | {"lables": [1]}, "unknown key"),
    ],
)
def test_a_preferences_file_that_was_tampered_with_is_refused(
    judged_project: Project, change: Callable[[dict[str, object]], dict[str, object]], message: str
) -> None:
    judge(judged_project, "export", "demo", "--pairs", "demo")
    path = judged_project.preferences("demo")
    header, first, *rest = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([header, json.dumps(change(json.loads(first))), *rest]) + "\n", encoding="utf-8")
    with pytest.raises(BadInput, match=message):
        read_preferences(path, PairSet.read(judged_project.pairs("demo")))


def test_preferences_without_a_header_or_of_other_pairs_are_refused(judged_project: Project, tmp_path: Path) -> None:
    pairs = PairSet.read(judged_project.pairs("demo"))
    path = tmp_path / "p.jsonl"
    with pytest.raises(BadInput, match="does not exist"):
        read_preferences(path, pairs)
    path.write_text('{"pair_id": "p0"}\n', encoding="utf-8")
    with pytest.raises(BadInput, match=r"p\.jsonl:1: no header"):
        read_preferences(path, pairs)
    judge(judged_project, "export", "demo", "--pairs", "demo")
    path = judged_project.preferences("demo")
    path.write_text(path.read_text(encoding="utf-8").replace('"pairs": "demo"', '"pairs": "other"'), encoding="utf-8")
    with pytest.raises(BadInput, match="is about pairs/other, not pairs/demo"):
        read_preferences(path, pairs)
