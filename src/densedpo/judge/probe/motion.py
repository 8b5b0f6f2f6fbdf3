"""How much the clips of pairs move, segment by segment, and whether an annotator's answers follow it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
from pydantic import ConfigDict

from densedpo.core.errors import BadInput
from densedpo.core.files import append_jsonl, repair_jsonl
from densedpo.core.media import read_pair_mp4
from densedpo.core.progress import track
from densedpo.core.records import Pair, read_jsonl, to_row
from densedpo.judge.pairset import PairSet, ranges_of
from densedpo.judge.probe.answers import Answers, Question
from densedpo.metrics.motion import clip_and_segment_motion
from densedpo.metrics.motion_bias import BiasCheck, JudgedPairs, alignment_ratio, low_motion_share, preference_slope
from densedpo.metrics.statistics import Key

MOTION_FILE: Final = "motion.jsonl"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class PairMotion:
    """Object motion of both clips of a pair, px/frame: over each range, and over the whole clip.

    A pair whose video could not be read has a `fault` and no numbers. `pair_hash` is of the pair that was measured.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    pairs: str
    pair_id: str
    pair_hash: str
    ranges: tuple[tuple[int, int], ...]
    a: tuple[float, ...]
    b: tuple[float, ...]
    clip_a: float | None
    clip_b: float | None
    fault: str | None = None


def measure_pairs(pairs: PairSet, folder: Path, *, segment_seconds: float) -> list[PairMotion]:
    """The motion of every pair; what a report's folder holds already is kept, so that a cut run goes on."""
    path = folder / MOTION_FILE
    if repair_jsonl(path):
        _log.warning("dropped a torn last row of %s", path)
    rows = read_jsonl(path, PairMotion) if path.exists() else []
    known = {(row.pairs, row.pair_hash, row.ranges): row for row in rows}
    wanted = {pair.id: (pairs.name, pairs.hashes[pair.id], ranges_of(pair, segment_seconds)) for pair in pairs}
    for pair in track([pair for pair in pairs if wanted[pair.id] not in known], what=f"motion of {pairs.name}"):
        row = _measure(pair, pairs, wanted[pair.id][2])
        append_jsonl(path, to_row(row))
        known[wanted[pair.id]] = row
    return [known[wanted[pair.id]] for pair in pairs]


def label_bias(
    answers: Answers, motion: Sequence[PairMotion], pairs: PairSet, *, threshold: float, seed: int, num_draws: int
) -> tuple[BiasCheck, BiasCheck]:
    """MB1 and MB2 of an annotator's answers, by segment, or by clip where clips were all that was judged."""
    judged = judged_pairs(answers, motion, pairs)
    return (
        preference_slope(judged),
        low_motion_share(judged, threshold=threshold, seed=seed, num_draws=num_draws),
    )


def judged_pairs(answers: Answers, motion: Sequence[PairMotion], pairs: PairSet) -> JudgedPairs:
    """Answers beside the motion of what they are about; questions whose motion is not known are left out."""
    moved: dict[Question, tuple[float, float]] = {}
    for row in motion:
        if row.clip_a is None or row.clip_b is None:
            continue
        moved[row.pair_id, 0, pairs.by_id[row.pair_id].num_frames] = (row.clip_a, row.clip_b)
        for (start, stop), a, b in zip(row.ranges, row.a, row.b, strict=True):
            moved[row.pair_id, start, stop] = (a, b)
    asked = [question for question in answers.segments if question in moved]
    left = [answers.shown_left.get(question) for question in asked]
    sides_vary = len(set(left)) > 1 and None not in left
    return JudgedPairs(
        prompt=[pairs.by_id[pair_id].prompt_id for pair_id, _, _ in asked],
        answer=np.array([answers.segments[question] for question in asked], dtype=np.int64),
        motion_a=np.array([moved[question][0] for question in asked], dtype=np.float64),
        motion_b=np.array([moved[question][1] for question in asked], dtype=np.float64),
        a_first=np.array([side == "a" for side in left]) if sides_vary else None,
    )


def alignment(
    motion: Sequence[PairMotion],
    pairs: PairSet,
    independent: Sequence[PairMotion],
    others: PairSet,
    *,
    seed: int,
    num_draws: int,
) -> BiasCheck:
    """MB7: how far apart in motion the clips of these pairs are, as a share of how far apart those of others are."""
    return alignment_ratio(_gaps(motion, pairs), _gaps(independent, others), seed=seed, num_draws=num_draws)


def _gaps(motion: Sequence[PairMotion], pairs: PairSet) -> Mapping[Key, float | None]:
    gaps: dict[Key, float | None] = {}
    numbers: dict[str, int] = {}
    for row in motion:
        prompt = pairs.by_id[row.pair_id].prompt_id
        number = numbers[prompt] = numbers.get(prompt, -1) + 1
        a, b = row.clip_a, row.clip_b
        gaps[prompt, number] = None if a is None or b is None else abs(a - b)
    return gaps


def _measure(pair: Pair, pairs: PairSet, ranges: tuple[tuple[int, int], ...]) -> PairMotion:
    try:
        a, b = read_pair_mp4(pairs.folder / pair.video, pixel_scale=pair.pixel_scale)
        fault = "" if len(a) == pair.num_frames else f"{len(a)} frames instead of {pair.num_frames}"
    except BadInput as error:
        fault = str(error).replace(f"{pairs.folder}/", "")
    if fault:
        _log.warning("pair %s: %s; its motion is left out", pair.id, fault)
        return PairMotion(
            pairs=pairs.name, pair_id=pair.id, pair_hash=pairs.hashes[pair.id], ranges=ranges, a=(), b=(),
            clip_a=None, clip_b=None, fault=fault,
        )  # fmt: skip
    (clip_a, parts_a), (clip_b, parts_b) = (clip_and_segment_motion(clip, ranges, fps=pair.fps) for clip in (a, b))
    return PairMotion(
        pairs=pairs.name,
        pair_id=pair.id,
        pair_hash=pairs.hashes[pair.id],
        ranges=ranges,
        a=tuple(motion.object_px for motion in parts_a),
        b=tuple(motion.object_px for motion in parts_b),
        clip_a=clip_a.object_px,
        clip_b=clip_b.object_px,
    )
