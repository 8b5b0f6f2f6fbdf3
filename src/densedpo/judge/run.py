"""Sends pairs through a judge and stores its answers, pair by pair, so that a run that is cut short is not repeated."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from densedpo.core.errors import BadInput
from densedpo.core.media import read_pair_mp4
from densedpo.core.progress import track
from densedpo.core.provenance import package_version, sha256_json
from densedpo.core.records import Judgement, Pair
from densedpo.judge.pairset import PairSet, ranges_of
from densedpo.judge.protocol import Judge, PairClips, SegmentAnswer
from densedpo.judge.store import LabelStore

Range = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeRun:
    """What a run of a judge did. A pair that was judged before is not looked at again."""

    annotator: str
    num_judged: int
    num_known: int


def judge_pairs(judge: Judge, pairs: PairSet, store: LabelStore, *, segment_seconds: float) -> JudgeRun:
    """Judges every pair that this judge has not judged in full, in the order of pairs.jsonl.

    Raises:
        BadInput: a pair is not for this judge or cannot be cut into such segments (nothing is judged then), or a video
            cannot be read (what was judged before it is stored).
    """
    cut = {pair.id: ranges_of(pair, segment_seconds) for pair in pairs}
    for pair in pairs:
        judge.check(pair)
    ids = {
        pair.id: tuple(
            judgement_id(judge.annotator, pairs.hashes[pair.id], range_, judge.instructions) for range_ in cut[pair.id]
        )
        for pair in pairs
    }
    known = store.known(id_ for of_pair in ids.values() for id_ in of_pair)
    todo = [pair for pair in pairs if not known.issuperset(ids[pair.id])]
    for pair in track(todo, what=f"judging {pairs.name}"):
        answers = judge.judge(_decoded(pair, pairs), cut[pair.id])
        store.append(_rows(judge, pair, cut[pair.id], ids[pair.id], answers), pairs.hashes)
    return JudgeRun(annotator=judge.annotator, num_judged=len(todo), num_known=len(pairs) - len(todo))


def judgement_id(annotator: str, pair_hash: str, range_: Range | None, instructions: str) -> str:
    """The id of the one answer that an annotator gives to a question (None: the whole clip) under some instructions."""
    return sha256_json([annotator, pair_hash, list(range_) if range_ is not None else None, instructions])[:32]


def tool_version() -> str:
    """What rows are signed with: the package and its version."""
    return f"densedpo {package_version('densedpo') or 'from source'}"


def now() -> str:
    """The time as rows state it: ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _decoded(pair: Pair, pairs: PairSet) -> PairClips:
    path = pairs.folder / pair.video
    a, b = read_pair_mp4(path, pixel_scale=pair.pixel_scale)
    expected = (pair.num_frames, pair.height, pair.width, 3)
    if a.shape != expected:
        raise BadInput(
            f"{path} holds clips of {list(a.shape[:3])} (frames, height, width), "
            f"pairs.jsonl says {list(expected[:3])}; generate the pairs again"
        )
    return PairClips(pair=pair, a=a, b=b)


def _rows(
    judge: Judge, pair: Pair, ranges: tuple[Range, ...], ids: tuple[str, ...], answers: tuple[SegmentAnswer, ...]
) -> list[Judgement]:
    return [
        Judgement(
            id=id_,
            pair_id=pair.id,
            annotator=judge.annotator,
            segment=index,
            start_frame=start,
            stop_frame=stop,
            answer=answer.answer,
            confidence=answer.confidence,
            score_a=answer.score_a,
            score_b=answer.score_b,
            instructions=judge.instructions,
            tool_version=tool_version(),
            created_at=now(),
        )
        for index, ((start, stop), id_, answer) in enumerate(zip(ranges, ids, answers, strict=True))
    ]
