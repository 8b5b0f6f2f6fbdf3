"""Rows through CSV and Parquet and back, and what a spreadsheet must not run."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densedpo.core.errors import BadInput
from densedpo.core.records import Judgement, to_row
from densedpo.judge.exchange import import_labels
from densedpo.judge.formats import csv_text, read_rows, write_rows
from densedpo.judge.pairset import PairSet
from densedpo.judge.store import LabelStore

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")), st.lists(st.integers(-1, 1)),
)  # fmt: skip


@given(rows=st.lists(st.fixed_dictionaries({"id": st.text("abc=+'\"\n,", min_size=1), "value": VALUES}), min_size=1))
def test_what_is_written_as_csv_is_read_back(
    rows: list[dict[str, object]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    write_rows(path, rows)
    assert read_rows(path) == rows


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "'=1"])
def test_no_cell_is_a_formula(text: str) -> None:
    _, (cell,) = csv.reader(io.StringIO(csv_text([{"note": text}]), newline=""))
    assert cell.startswith("'")


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_judgements_survive_every_format(
    suffix: str, new_judgement: Callable[..., Judgement], new_pair: Callable[..., object], tmp_path: Path
) -> None:
    from densedpo.core.records import write_jsonl

    write_jsonl(tmp_path / "pairs.jsonl", [new_pair()])
    pairs = PairSet.read(tmp_path)
    rows = [
        new_judgement(id="j0", annotator="007", confidence=0.25, duration_ms=1200, left="b"),
        new_judgement(id="j1", annotator="=ann", segment=1, start_frame=8, stop_frame=16, answer="tie"),
        new_judgement(id="j2", segment=None, stop_frame=33, answer="skip", instructions='say "why"\nplease'),
    ]
    path = tmp_path / f"answers{suffix}"
    write_rows(path, [to_row(row) for row in rows])
    with LabelStore.open(tmp_path / "labels.db") as store:
        import_labels(path, pairs, store, segment_seconds=1.0)
        assert store.judgements(pairs.hashes) == tuple(rows)


def test_labels_of_pairs_come_in_from_a_table(new_pair: Callable[..., object], tmp_path: Path) -> None:
    from densedpo.core.records import write_jsonl

    write_jsonl(tmp_path / "pairs.jsonl", [new_pair()])
    path = tmp_path / "theirs.csv"
    path.write_text('pair_id,labels\np0,"[1, 0, -1, -1]"\n')
    pairs = PairSet.read(tmp_path)
    with LabelStore.open(tmp_path / "labels.db") as store:
        import_labels(path, pairs, store, segment_seconds=1.0)
        assert [row.answer for row in store.judgements(pairs.hashes)] == ["a", "tie", "b", "b"]
        assert {row.annotator for row in store.judgements(pairs.hashes)} == {"theirs"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"a,b\n1\n", r"x\.csv:2: 1 cells for 2 columns"),
        ("x.csv", b'a\n"x" y\n', r"x\.csv:2: not CSV"),
        ("x.csv", b"\xff\xfe", "not UTF-8"),
        ("x.parquet", b"PAR1 not really", "not a Parquet file"),
        ("x.parquet", None, "no such file"),
        ("x.csv", None, "no such file"),
        ("x.xlsx", b"", "ends in .jsonl, .csv, .parquet"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=message):
        read_rows(tmp_path / name)
