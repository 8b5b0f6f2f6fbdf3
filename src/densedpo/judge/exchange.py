"""Labels from elsewhere: a JSONL, CSV or Parquet file into the store, all of it or nothing.

A row is either a judgement as `judge export --judgements` writes it, or the labels of one pair:
`{"pair_id": "...", "labels": [1, 0, -1, -1]}` with +1 where `a` is better, and optionally who said so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field, JsonValue

from densedpo.core.config import Config
from densedpo.core.errors import BadInput
from densedpo.core.records import Judgement, Pair, from_row
from densedpo.judge.formats import read_rows
from densedpo.judge.pairset import PairSet, ranges_of
from densedpo.judge.run import judgement_id, now, tool_version
from densedpo.judge.store import Appended, ConflictingAnswer, LabelStore

Range = tuple[int, int]
Label = Annotated[int, Field(ge=-1, le=1)]  # strict, unlike a Literal: true is not 1

_ANSWER: Final[dict[int, Literal["a", "b", "tie"]]] = {1: "a", -1: "b", 0: "tie"}


class ImportConfig(Config):
    """Options of `judge import`."""

    segment_seconds: float = Field(default=1.0, gt=0, description="length of the segments that were judged")


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelRow:
    """The labels of one pair; a row of an exported preferences file is one too."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    pair_id: str
    labels: tuple[Label, ...]
    annotator: str | None = None
    ranges: tuple[Range, ...] | None = None
    confidence: tuple[float, ...] | None = None
    clip_label: Label | None = None
    split: str | None = None
    num_judgements: int | None = None
    answered: tuple[bool, ...] | None = None
    dimension: str | None = None


def import_labels(
    path: Path, pairs: PairSet, store: LabelStore, *, segment_seconds: float, annotator: str | None = None
) -> Appended:
    """Stores every row of a file; rows that were imported before are left out.

    Args:
        annotator: who made the labels where a row does not say; the file's name if None.

    Raises:
        BadInput: names the row and what is wrong with it; nothing was stored then.
    """
    judgements: list[Judgement] = []
    row_of: dict[str, int] = {}
    is_table = path.suffix.lower() in {".csv", ".parquet"}
    for number, row in enumerate(read_rows(path), start=2) if is_table else _rows(path):
        where = f"{path}:{number}"
        if "answer" in row:
            found = [_judgement(row, pairs, segment_seconds, where)]
        else:
            found = _from_labels(from_row(LabelRow, row, where), pairs, segment_seconds, annotator or path.stem, where)
        for judgement in found:
            if judgement.id in row_of:
                raise BadInput(
                    f"{where}: duplicate of row {row_of[judgement.id]} (pair {judgement.pair_id}); remove one of them"
                )
        judgements += found
        row_of |= {judgement.id: number for judgement in found}
    if not judgements:
        raise BadInput(f"{path} holds no labels")
    try:
        return store.append(judgements, pairs.hashes)
    except ConflictingAnswer as error:
        raise BadInput(f"{path}:{row_of[error.judgement_id]}: {error}") from None


def _rows(path: Path) -> Iterator[tuple[int, dict[str, JsonValue]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise BadInput(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 text (byte {error.start})") from None
    dimension = None
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadInput(f"{path}:{number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise BadInput(f'{path}:{number}: a row is a JSON object such as {{"pair_id": ..., "labels": [1, 0, -1]}}')
        if "header" not in row:
            yield number, row if dimension is None else {"dimension": dimension, **row}
        elif isinstance(row["header"], dict):  # of preferences, which were made of the answers to one question
            dimension = row["header"].get("dimension")


def _pair(pair_id: str, pairs: PairSet, where: str) -> Pair:
    if pair_id not in pairs.by_id:
        raise BadInput(
            f"{where}: there is no pair {pair_id!r} in {pairs.folder}; give the pairs that were judged with --pairs"
        )
    return pairs.by_id[pair_id]


def _judgement(row: dict[str, JsonValue], pairs: PairSet, segment_seconds: float, where: str) -> Judgement:
    judgement = from_row(Judgement, row, where)
    pair = _pair(judgement.pair_id, pairs, where)
    range_ = (judgement.start_frame, judgement.stop_frame)
    if judgement.segment is None:
        fits = range_ == (0, pair.num_frames)
    else:
        ranges = ranges_of(pair, segment_seconds)
        fits = 0 <= judgement.segment < len(ranges) and ranges[judgement.segment] == range_
    if not fits:
        raise BadInput(
            f"{where}: segment {judgement.segment} with frames {range_[0]} to {range_[1]} is none of pair {pair.id} at "
            f"{segment_seconds:g} s; give the segment_seconds that was judged with (--set)"
        )
    _check_confidence(judgement.confidence, where)
    return judgement


def _from_labels(row: LabelRow, pairs: PairSet, segment_seconds: float, annotator: str, where: str) -> list[Judgement]:
    pair = _pair(row.pair_id, pairs, where)
    whole = ((0, pair.num_frames),)
    ranges = whole if row.ranges == whole else ranges_of(pair, segment_seconds)
    if row.ranges is not None and row.ranges != ranges:
        raise BadInput(
            f"{where}: key 'ranges': these are not the segments of pair {pair.id} at {segment_seconds:g} s; "
            "--set segment_seconds as it was judged with"
        )
    for key, values in (("labels", row.labels), ("confidence", row.confidence), ("answered", row.answered)):
        if values is not None and len(values) != len(ranges):
            raise BadInput(
                f"{where}: key {key!r}: {len(values)} values for the {len(ranges)} segments of pair {pair.id} "
                f"at {segment_seconds:g} s"
            )
    confidence: Sequence[float | None] = row.confidence or [None] * len(ranges)
    row = replace(row, annotator=row.annotator or annotator)
    found = []
    for index, (range_, label, sure) in enumerate(zip(ranges, row.labels, confidence, strict=True)):
        _check_confidence(sure, where)
        if row.answered is not None and not row.answered[index]:
            continue
        segment = None if ranges == whole else index
        found.append(_imported(pair, pairs, row, segment=segment, range_=range_, label=label, confidence=sure))
    total = sum(row.labels)
    implied = (total > 0) - (total < 0)
    if row.clip_label is not None and row.clip_label != implied:  # else it follows from the segments again
        found.append(_imported(pair, pairs, row, segment=None, range_=whole[0], label=row.clip_label, confidence=None))
    return found


def _imported(
    pair: Pair,
    pairs: PairSet,
    row: LabelRow,
    *,
    segment: int | None,
    range_: Range,
    label: int,
    confidence: float | None,
) -> Judgement:
    assert row.annotator is not None
    asked = "import" if row.dimension is None else f"import {row.dimension}"
    return Judgement(
        id=judgement_id(row.annotator, pairs.hashes[pair.id], None if segment is None else range_, asked),
        pair_id=pair.id,
        annotator=row.annotator,
        segment=segment,
        start_frame=range_[0],
        stop_frame=range_[1],
        answer=_ANSWER[label],
        confidence=confidence,
        dimension=row.dimension,
        instructions="import",
        tool_version=tool_version(),
        created_at=now(),
    )


def _check_confidence(confidence: float | None, where: str) -> None:
    if confidence is not None and not 0 <= confidence <= 1:
        raise BadInput(f"{where}: key 'confidence': {confidence!r} is not in [0, 1]")
