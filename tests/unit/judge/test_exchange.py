"""Labels brought in from files: every row or none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from densedpo.core.errors import BadInput
from densedpo.core.records import Judgement, Pair
from densedpo.judge.exchange import import_labels
from densedpo.judge.pairset import PairSet, pair_hash
from densedpo.judge.preferences import collect
from densedpo.judge.store import Appended, LabelStore

NewJudgement = Callable[..., Judgement]
Row = dict[str, object]


@pytest.fixture(scope="session")
def pairs(new_pair: Callable[..., Pair], tmp_path_factory: pytest.TempPathFactory) -> PairSet:
    by_id = {name: new_pair(id=name) for name in ("p0", "p1")}
    folder = tmp_path_factory.mktemp("pairs") / "demo"
    return PairSet(name="demo", folder=folder, by_id=by_id, hashes={k: pair_hash(v) for k, v in by_id.items()})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LabelStore]:
    with LabelStore.open(tmp_path / "labels.db") as opened:
        yield opened


@pytest.fixture
def bring_in(tmp_path: Path, pairs: PairSet, store: LabelStore) -> Callable[..., Appended]:
    """Imports rows (dicts, or lines as they are) as if they were a file called labels.jsonl."""

    def imported(*rows: Row | str, segment_seconds: float = 1.0, annotator: str | None = None) -> Appended:
        path = tmp_path / "labels.jsonl"
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return import_labels(path, pairs, store, segment_seconds=segment_seconds, annotator=annotator)

    return imported


def test_label_rows_become_judgements_and_preferences(
    bring_in: Callable[..., Appended], pairs: PairSet, store: LabelStore
) -> None:
    rows = [{"pair_id": "p0", "labels": [1, 0, -1, -1]}, {"pair_id": "p1", "labels": [0, 0, 0, 1], "annotator": "eve"}]
    assert bring_in(*rows).num_new == 8
    assert bring_in(*rows).num_known == 8
    preferences = collect(pairs, store, segment_seconds=1.0)
    assert [row.labels for row in preferences.rows] == [(1, 0, -1, -1), (0, 0, 0, 1)]
    assert [row.clip_label for row in preferences.rows] == [-1, 1]
    assert preferences.header.annotators == ("eve", "labels")  # the file's name where a row does not say


def test_what_nobody_answered_is_not_brought_in_as_a_tie(
    bring_in: Callable[..., Appended], pairs: PairSet, store: LabelStore
) -> None:
    answered = [True, False, True, False]
    assert bring_in({"pair_id": "p0", "labels": [1, 0, 0, 0], "answered": answered}).num_new == 2
    (preference,) = collect(pairs, store, segment_seconds=1.0).rows
    assert (preference.labels, preference.answered) == ((1, 0, 0, 0), tuple(answered))


def test_clip_labels_confidences_and_whole_clips_survive(
    bring_in: Callable[..., Appended], pairs: PairSet, store: LabelStore
) -> None:
    bring_in(
        {"pair_id": "p0", "labels": [1, 0, -1, 1], "confidence": [0.9, 0.5, 0.75, 1.0], "clip_label": -1},
        {"pair_id": "p1", "labels": [1], "ranges": [[0, 33]]},
        annotator="eve",
    )
    first, second = collect(pairs, store, segment_seconds=1.0).rows
    assert (first.labels, first.clip_label, first.confidence) == ((1, 0, -1, 1), -1, (0.9, 0.5, 0.75, 1.0))
    assert (second.ranges, second.labels, second.clip_label) == (((0, 33),), (1,), 1)


def test_a_preferences_file_can_be_brought_back(
    bring_in: Callable[..., Appended], pairs: PairSet, store: LabelStore
) -> None:
    exported = [
        {"header": {"anything": 1}},
        {"pair_id": "p0", "split": "train", "ranges": [[0, 8], [8, 16], [16, 24], [24, 33]], "labels": [1, 1, 0, -1],
         "confidence": None, "clip_label": 1, "num_judgements": 4},
    ]  # fmt: skip
    assert bring_in(*exported).num_new == 4
    assert collect(pairs, store, segment_seconds=1.0).rows[0].labels == (1, 1, 0, -1)


def test_labels_of_another_question_stay_apart_from_the_main_one(
    bring_in: Callable[..., Appended], pairs: PairSet, store: LabelStore
) -> None:
    """A row may name its question, and preferences say theirs in the header; an import of theirs is no main label."""
    row = {"pair_id": "p0", "labels": [1, 0, -1, -1]}
    bring_in(row)
    bring_in(row | {"labels": [-1, -1, -1, 0], "dimension": "motion"})
    bring_in({"header": {"dimension": "looks"}}, row | {"labels": [0, 0, 0, 1]})
    for dimension, labels in ((None, (1, 0, -1, -1)), ("motion", (-1, -1, -1, 0)), ("looks", (0, 0, 0, 1))):
        found = collect(pairs, store, segment_seconds=1.0, dimension=dimension)
        assert (found.header.dimension, found.rows[0].labels) == (dimension, labels)
    with pytest.raises(BadInput, match=r"nobody was asked about dimension 'overall'.*answers: looks, motion"):
        collect(pairs, store, segment_seconds=1.0, dimension="overall")


def test_judgement_rows_come_in_as_they_are(
    bring_in: Callable[..., Appended], pairs: PairSet, store: LabelStore, new_judgement: NewJudgement
) -> None:
    rows = [new_judgement(replays=3), new_judgement(id="j1", segment=None, stop_frame=33, answer="b")]
    bring_in(*[asdict(row) for row in rows])
    assert store.judgements(pairs.hashes) == tuple(rows)


GOOD = {"pair_id": "p1", "labels": [1, 0, 0, 0]}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"pair_id": "p0", "labels": [1, 0, -1]}, r":2: key 'labels': 3 values for the 4 segments of pair p0 at 1 s"),
        ({"pair_id": "p9", "labels": [1, 0, 0, 0]}, r":2: there is no pair 'p9'"),
        ({"pair_id": "p1", "labels": [1, 1, 1, 1]}, r":2: duplicate of row 1 \(pair p1\)"),
        ({"pair_id": "p0", "labels": [1, 0, 0, 2]}, r":2: key 'labels.3'"),
        ({"pair_id": "p0", "labels": [1, 0, 0, True]}, r":2: key 'labels.3'"),
        ({"pair_id": "p0", "label": [1, 0, 0, 0]}, r":2: key 'label"),
        ({"pair_id": "p0", "labels": [1, 0, 0, 0], "confidence": [1.0]}, r":2: key 'confidence': 1 values for the 4"),
        ({"pair_id": "p0", "labels": [1, 0, 0, 0], "confidence": [1.0, 1.0, 1.0, 1.5]}, r":2: key 'confidence': 1.5"),
        ({"pair_id": "p0", "labels": [1, 0], "ranges": [[0, 16], [16, 33]]}, r":2: key 'ranges'"),
        ({"pair_id": "p0", "answer": "a"}, r":2: key 'id'"),
        ('{"pair_id": "p0", ', r":2: not JSON"),
        ("[1, 2]", r":2: a row is a JSON object"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_stored(
    bring_in: Callable[..., Appended], pairs: PairSet, store: LabelStore, bad: Row | str, message: str
) -> None:
    with pytest.raises(BadInput, match=r"labels\.jsonl" + message):
        bring_in(GOOD, bad)
    assert store.judgements(pairs.hashes) == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pair_id": "p9"}, "there is no pair 'p9'"),
        ({"stop_frame": 9}, "segment 0 with frames 0 to 9 is none of pair p0"),
        ({"segment": 1}, "segment 1 with frames 0 to 8 is none of pair p0"),
        ({"segment": 7}, "segment 7"),
        ({"segment": None}, "segment None with frames 0 to 8"),
        ({"answer": "left"}, "key 'answer'"),
        ({"confidence": -0.5}, "key 'confidence': -0.5 is not in"),
        ({"id": "good"}, "duplicate of row 1"),
    ],
)
def test_a_bad_judgement_is_named_and_nothing_is_stored(
    bring_in: Callable[..., Appended], pairs: PairSet, store: LabelStore, new_judgement: NewJudgement,
    changes: Row, message: str,
) -> None:  # fmt: skip
    row = asdict(new_judgement(id="good"))
    with pytest.raises(BadInput, match=rf"labels\.jsonl:2: {message}"):
        bring_in(row, row | {"id": "bad"} | changes)
    assert store.judgements(pairs.hashes) == ()


def test_a_row_that_contradicts_what_is_stored_is_named(
    bring_in: Callable[..., Appended], pairs: PairSet, store: LabelStore
) -> None:
    bring_in({"pair_id": "p0", "labels": [1, 0, 0, 0]})
    before = store.judgements(pairs.hashes)
    with pytest.raises(BadInput, match=r"labels\.jsonl:2: judgement .* of pair p0 by 'labels' is already stored"):
        bring_in(GOOD, {"pair_id": "p0", "labels": [-1, 0, 0, 0]})
    assert store.judgements(pairs.hashes) == before
    assert bring_in({"pair_id": "p0", "labels": [-1, 0, 0, 0]}, annotator="second").num_new == 4


def test_an_empty_file_is_refused(bring_in: Callable[..., Appended]) -> None:
    with pytest.raises(BadInput, match="holds no labels"):
        bring_in('{"header": {}}')


def test_a_file_that_is_no_text_is_refused(tmp_path: Path, pairs: PairSet, store: LabelStore) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="not UTF-8 text"):
        import_labels(path, pairs, store, segment_seconds=1.0)
