"""A stand-in for a person who scores clips one by one from 1 to 5: the oracle's overall score, in steps, with errors.

Each clip is scored by itself, as HuViDPO's people do; the answers go to the store as those of anybody else, and
`judge scored` makes pairs of them.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from densedpo.core.files import write_atomic
from densedpo.core.media import read_pair_mp4
from densedpo.core.progress import track
from densedpo.core.provenance import sha256_json
from densedpo.core.records import CLIP_SIDES, ClipSide, Pair, from_row
from densedpo.core.seeds import generator
from densedpo.judge.oracle import OracleConfig, OracleJudge
from densedpo.judge.protocol import Frames, PairClips, SegmentAnswer
from densedpo.world.oracle import score_clip
from densedpo.world.scene import Scene

if TYPE_CHECKING:
    from pathlib import Path

    from settings import PersonConfig

    from densedpo.judge.pairset import PairSet

LOWEST: Final = 1
HIGHEST: Final = 5
Overall = Mapping[str, float]
"""What the oracle makes of each clip, by pair and side: `<pair id>/a`."""


class Person:
    """Gives both clips of a pair a score each; the pair is where they lie, and who meets whom is decided later."""

    annotator = "person"

    def __init__(self, config: PersonConfig, overall: Overall) -> None:
        """Args: `overall` is of all clips that are to be scored, whose range the person has seen."""
        self._config, self._overall = config, overall
        self._limits = [float(limit) for limit in np.quantile(list(overall.values()), config.shares)]
        self.instructions = f"person 1: {json.dumps(config.model_dump(), sort_keys=True)}"

    def check(self, pair: Pair) -> None:
        """Refuses a pair that the oracle cannot score."""
        OracleJudge(OracleConfig()).check(pair)

    def judge(self, clips: PairClips, segments: Sequence[tuple[int, int]]) -> tuple[SegmentAnswer, ...]:
        """The scores of the whole clips, in answer to the one question about them."""
        score_a, score_b = (self.score(clips.pair.id, side) for side in CLIP_SIDES)
        return tuple(SegmentAnswer.scored(score_a, score_b, 0.0) for _ in segments)

    def score(self, pair_id: str, side: ClipSide) -> int:
        """From 1 to 5; a share of the clips gets a neighbouring score."""
        points = LOWEST + bisect_right(self._limits, self._overall[f"{pair_id}/{side}"])
        drawn = generator(self._config.seed, "person", pair_id, side)
        if drawn.random() >= self._config.error_rate:
            return points
        neighbours = [each for each in (points - 1, points + 1) if LOWEST <= each <= HIGHEST]
        return int(drawn.choice(neighbours))


def overall_of(pairs: PairSet, path: Path) -> Overall:
    """The oracle's overall score of every clip of a set, kept in a file."""
    asked = sha256_json(dict(pairs.hashes))
    if path.is_file():
        row = json.loads(path.read_text(encoding="utf-8"))
        if row["pairs"] == asked:
            kept: Overall = row["overall"]
            return kept
    found: dict[str, float] = {}
    for pair in track(list(pairs), what="looking at the clips"):
        both = read_pair_mp4(pairs.folder / pair.video, pixel_scale=pair.pixel_scale)
        for side, frames in zip(CLIP_SIDES, both, strict=True):
            found[f"{pair.id}/{side}"] = overall(frames, pair)
    write_atomic(path, json.dumps({"pairs": asked, "overall": found}) + "\n")
    return found


def overall(frames: Frames, pair: Pair) -> float:
    """The mean of the oracle's text alignment, visual quality and temporal consistency; motion is not in it."""
    scene = from_row(Scene, pair.scene, f"pair {pair.id}: scene")
    scores = score_clip(frames, scene, fps=pair.fps).clip
    return (scores.text_alignment + scores.visual_quality + scores.temporal_consistency) / 3
