"""The file that learning starts from: preferences/<name>.jsonl, a header row and then one row for each pair."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, Field

from densedpo.core.config import Config
from densedpo.core.errors import BadInput
from densedpo.core.layout import Segments
from densedpo.core.provenance import sha256_json
from densedpo.core.records import Judgement, Pair, Preference, from_row, read_jsonl, to_row
from densedpo.core.workspace import Project, read_stamp, write_atomic, write_stamp, writing
from densedpo.judge.aggregate import LabelSummary, aggregate, latest, summarise
from densedpo.judge.pairset import PairSet, ranges_of
from densedpo.judge.probe.verdict import ProbeVerdict, verdicts_on
from densedpo.judge.store import LabelStore


class ExportConfig(Config):
    """Options of `judge export`."""

    segment_seconds: float = Field(default=1.0, gt=0, description="length of the segments that were judged")
    dimension: str | None = Field(
        default=None, description="a further row or category of a study, such as motion; its main question if not given"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class PreferencesHeader:
    """What is in the file and who said so. Shares as in `LabelSummary`."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    pairs: str  # name of the set of pairs
    annotators: tuple[str, ...]
    only_annotators: tuple[str, ...] | None  # who was asked for; None: everybody
    segment_seconds: float
    num_pairs: int
    num_unjudged_pairs: int  # left out of the file
    num_segments: int
    num_judgements: int
    tie_share: float | None
    both_signs_share: float | None
    a_share: float | None
    labels_sha256: str  # of the answers that count
    dimension: str | None = None  # what was asked beside the main question; None: the main one
    probes: tuple[ProbeVerdict, ...] = ()  # on those of the annotators that were probed


@dataclass(frozen=True, kw_only=True, slots=True)
class Preferences:
    """A header and its rows, in the order of pairs.jsonl."""

    header: PreferencesHeader
    rows: tuple[Preference, ...]

    @property
    def summary(self) -> LabelSummary:
        """Counts and shares of the rows."""
        return summarise(self.rows)


def collect(
    pairs: PairSet,
    store: LabelStore,
    *,
    segment_seconds: float,
    only_annotators: Collection[str] | None = None,
    dimension: str | None = None,
    verdicts: Sequence[ProbeVerdict] = (),
) -> Preferences:
    """The preferences that the stored answers about these pairs add up to at this moment.

    Args:
        dimension: the question beside the main one that is wanted, such as "motion"; None for the main one.
        verdicts: of probes; the header takes up those on its annotators.

    Raises:
        BadInput: nobody, or not everybody asked for, has judged these pairs; or an answer is about other segments.
    """
    judgements = store.judgements(pairs.hashes, annotators=only_annotators, dimension=dimension)
    annotators = {judgement.annotator for judgement in judgements}
    _require_answers(annotators, only_annotators, dimension, pairs, store)
    of_pair: dict[str, list[Judgement]] = {pair.id: [] for pair in pairs}
    for judgement in judgements:
        of_pair[judgement.pair_id].append(judgement)
    found = (aggregate(pair, ranges_of(pair, segment_seconds), of_pair[pair.id]) for pair in pairs)
    rows = tuple(preference for preference in found if preference is not None)
    summary = summarise(rows)
    header = PreferencesHeader(
        pairs=pairs.name,
        annotators=tuple(sorted(annotators)),
        only_annotators=tuple(sorted(only_annotators)) if only_annotators is not None else None,
        segment_seconds=segment_seconds,
        num_pairs=summary.num_pairs,
        num_unjudged_pairs=len(pairs) - len(rows),
        num_segments=summary.num_segments,
        num_judgements=sum(preference.num_judgements for preference in rows),
        tie_share=summary.tie_share,
        both_signs_share=summary.both_signs_share,
        a_share=summary.a_share,
        labels_sha256=_labels_sha256(judgements),
        dimension=dimension,
        probes=verdicts_on(verdicts, latest(judgements)),
    )
    return Preferences(header=header, rows=rows)


def write_preferences(preferences: Preferences, project: Project, name: str) -> Path:
    """Writes preferences/<name>.jsonl and its stamp.

    Raises:
        BadInput: a row does not fit its pair, the name cannot be a file's, or another process is writing it.
    """
    path = project.preferences(name)
    pairs = PairSet.read(project.pairs(preferences.header.pairs))
    for row in preferences.rows:
        check_preference(row, pairs, f"{path.name}, pair {row.pair_id}")
    lines = [{"header": to_row(preferences.header)}, *(to_row(row) for row in preferences.rows)]
    path.parent.mkdir(exist_ok=True)
    with writing(path.parent):
        write_atomic(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        write_stamp(path, [pairs.folder], project)
    return path


def read_preferences(path: Path, pairs: PairSet) -> Preferences:
    """Preferences as `write_preferences` or another tool wrote them, each checked against its pair.

    Raises:
        BadInput: no such file, no header, preferences for other pairs, or a bad row (named by its pair).
    """
    header = read_header(path)
    if header.pairs != pairs.name:
        raise BadInput(f"{path} is about pairs/{header.pairs}, not pairs/{pairs.name}; give --pairs {header.pairs}")
    rows = tuple(read_jsonl(path, Preference, skip=1))
    for row in rows:
        check_preference(row, pairs, f"{path}: pair {row.pair_id}")
    return Preferences(header=header, rows=rows)


def read_header(path: Path) -> PreferencesHeader:
    """The header alone.

    Raises:
        BadInput: no such file, or its first row is no header.
    """
    try:
        with path.open(encoding="utf-8") as file:
            first = json.loads(file.readline())
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist; write it with `densedpo judge export {path.stem}`") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}:1: not a row of JSON: {error}") from None
    if not isinstance(first, dict) or not isinstance(first.get("header"), dict):
        raise BadInput(
            f"{path}:1: no header; bring labels in with `densedpo judge import`, then `densedpo judge export`"
        )
    return from_row(PreferencesHeader, first["header"], f"{path}:1")


def check_preference(preference: Preference, pairs: PairSet, where: str) -> Pair:
    """The pair that a preference is about.

    Raises:
        BadInput: there is no such pair, or the labelled ranges do not cover its clips.
    """
    pair = pairs.by_id.get(preference.pair_id)
    if pair is None:
        raise BadInput(
            f"{where}: there is no pair {preference.pair_id!r} in {pairs.folder}; give the pairs that were judged"
        )
    try:
        num_frames = Segments(ranges=preference.ranges).num_frames
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None
    if num_frames != pair.num_frames:
        raise BadInput(f"{where}: the labels cover {num_frames} frames, the pair has {pair.num_frames}")
    return pair


def changed_labels(project: Project, name: str) -> str | None:
    """What has happened to the labels since preferences were written from them, in one phrase.

    The stamp tells about the pairs; labels live in a database, whose bytes change for other reasons too.

    Returns:
        None if nothing has happened, or if the preferences were not exported here and so have no stamp.

    Raises:
        BadInput: the preferences, their pairs or the labels cannot be read.
    """
    path = project.preferences(name)
    if read_stamp(path) is None:
        return None
    header = read_header(path)
    if not project.labels_db.exists():
        return f"{project.relative(project.labels_db)} is gone"
    pairs = PairSet.read(project.pairs(header.pairs))
    with LabelStore.open(project.labels_db, create=False) as store:
        judgements = store.judgements(pairs.hashes, annotators=header.only_annotators, dimension=header.dimension)
    if _labels_sha256(judgements) == header.labels_sha256:
        return None
    return (
        f"labels of pairs/{header.pairs} changed ({header.num_judgements} answers then, {len(latest(judgements))} now)"
    )


def _require_answers(
    annotators: Collection[str], only: Collection[str] | None, dimension: str | None, pairs: PairSet, store: LabelStore
) -> None:
    missing = sorted(set(only or ()) - set(annotators))
    if annotators and not missing:
        return
    everybody = sorted({answer.annotator for answer in store.judgements(pairs.hashes, dimension=dimension)})
    if not everybody and dimension is not None:
        known = ", ".join(store.dimensions(pairs.hashes)) or "none"
        raise BadInput(
            f"nobody was asked about dimension {dimension!r} of pairs/{pairs.name}; those with answers: {known} (the "
            "first dimension of a study is its main question: leave `dimension` out)"
        )
    if not everybody:
        raise BadInput(
            f"nobody has judged pairs/{pairs.name} as they are now (labels do not carry over to pairs made anew); "
            f"run `densedpo judge oracle {pairs.name}` or another judge"
        )
    raise BadInput(f"{missing[0]!r} has not judged pairs/{pairs.name}; its annotators are {', '.join(everybody)}")


def _labels_sha256(judgements: Sequence[Judgement]) -> str:
    return sha256_json(sorted([vote.id, vote.answer, vote.confidence] for vote in latest(judgements)))
