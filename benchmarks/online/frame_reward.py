"""A reward that sees frames and no motion, to set beside one that sees video: `frame_reward:FrameReward`.

Sharpness plus contrast of the frames, by themselves, in the mean over a segment: what an image-quality model would say
if it were asked frame by frame. It cannot tell a clip from its shuffled frames.
"""

from __future__ import annotations

from collections.abc import Sequence

from densedpo.core.records import Pair
from densedpo.judge.protocol import Frames, PairClips, SegmentAnswer
from densedpo.metrics.frames import frame_scores


class FrameReward:
    """Scores each clip by its single frames; the higher score wins."""

    annotator = "frames"
    instructions = "frames 1: sharpness + contrast, mean over frames"

    def check(self, pair: Pair) -> None:
        """Every pair will do."""

    def judge(self, clips: PairClips, segments: Sequence[tuple[int, int]]) -> tuple[SegmentAnswer, ...]:
        """One answer for each segment."""
        return tuple(
            SegmentAnswer.scored(_score(clips.a[start:stop]), _score(clips.b[start:stop]), 0.0)
            for start, stop in segments
        )


def _score(frames: Frames) -> float:
    # one by one, so that nothing about time can enter
    scores = [frame_scores(frame[None]) for frame in frames]
    return sum(score.sharpness + score.contrast for score in scores) / len(scores)
