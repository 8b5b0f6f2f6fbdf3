"""The oracle's criterion without time, to set beside the oracle that sees video: `frame_reward:FrameReward`.

Each frame is held still and judged as a clip, as an image-quality model would be asked frame by frame. Nothing of what
changes from frame to frame can enter: a clip and its shuffled frames are alike to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from densedpo.core.records import Pair
from densedpo.judge.oracle import OracleConfig, OracleJudge
from densedpo.judge.protocol import Frames, PairClips, SegmentAnswer

_HELD: Final = 5
"""The shortest clip that the oracle judges."""
_EVERY: Final = 3
"""Every third frame is looked at, which takes as long as the oracle takes for the clip."""


class FrameReward:
    """Scores each clip by its single frames, in the mean; the higher score wins."""

    annotator = "frames"

    def __init__(self) -> None:
        self._oracle = OracleJudge(OracleConfig())
        self.instructions = f"frames 2: every {_EVERY}. frame held for {_HELD}; {self._oracle.instructions}"

    def check(self, pair: Pair) -> None:
        """Refuses what the oracle refuses."""
        self._oracle.check(pair)

    def judge(self, clips: PairClips, segments: Sequence[tuple[int, int]]) -> tuple[SegmentAnswer, ...]:
        """One answer for each segment."""
        return tuple(self._answer(clips, slice(start, stop, _EVERY)) for start, stop in segments)

    def _answer(self, clips: PairClips, frames: slice) -> SegmentAnswer:
        scored = [
            self._oracle.judge(PairClips(pair=clips.pair, a=_held(a), b=_held(b)), [(0, _HELD)])[0]
            for a, b in zip(clips.a[frames], clips.b[frames], strict=True)
        ]
        return SegmentAnswer.scored(
            float(np.mean([answer.score_a for answer in scored])),
            float(np.mean([answer.score_b for answer in scored])),
            0.0,
        )


def _held(frame: Frames) -> Frames:
    return np.repeat(frame[None], _HELD, axis=0)
