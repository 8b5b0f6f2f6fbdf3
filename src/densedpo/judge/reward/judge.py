"""The shipped reward as a judge: the segment that a small video-quality network scores higher wins.

The network was trained on synthetic faults (blur, noise, block artefacts, flicker, morphing, held and reordered frames)
and has never seen a caption: whether a clip shows what it should is not its business.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import Field

from densedpo.core.config import Config
from densedpo.core.errors import BadInput
from densedpo.core.provenance import sha256_file
from densedpo.core.records import Pair
from densedpo.judge.pairset import ranges_of
from densedpo.judge.protocol import Frames, PairClips, SegmentAnswer, annotator_name
from densedpo.judge.reward.windows import as_input, small, thinned, thinning

if TYPE_CHECKING:
    from densedpo.judge.reward.network import TrainedReward

SHIPPED: Final = Path(__file__).with_name("reward.safetensors")
MIN_FRAMES: Final = 3
_VERSION: Final = 1


class RewardConfig(Config):
    """Options of `judge reward`."""

    segment_seconds: float = Field(default=1.0, gt=0, description="length of a segment")
    margin: float | None = Field(
        default=None,
        ge=0,
        description="scores that differ by less are a tie; by default by how much clean clips were found to differ",
    )
    whole_clip: bool = Field(
        default=False, description="score clips as a whole and give every segment that answer, to see what segments add"
    )
    weights: str = Field(default="", description="file of the training recipe; the shipped one if empty")


class RewardJudge:
    """Scores each clip by itself, segment by segment; the higher score wins, and within the margin it is a tie."""

    def __init__(self, config: RewardConfig) -> None:
        """Reads the weights.

        Raises:
            BadInput: they are missing or not of this network.
        """
        from densedpo.judge.reward.network import load_reward

        path = Path(config.weights) if config.weights else SHIPPED
        self._config = config
        self._reward: TrainedReward = load_reward(path)
        self._margin = self._reward.margin if config.margin is None else config.margin
        options = config.model_dump()
        self._annotator = annotator_name("reward", options, RewardConfig().model_dump())
        # the file's content, not where it lies, is what judged
        meaning = {**options, "margin_in_force": round(self._margin, 6), "weights_sha256": sha256_file(path)[:16]}
        self._instructions = f"reward {_VERSION}: {json.dumps(meaning, sort_keys=True)}"

    @property
    def annotator(self) -> str:
        """`reward`, with a hash of the options where they are not the default ones."""
        return self._annotator

    @property
    def instructions(self) -> str:
        """The judge's version, its options, the margin in force and the hash of the weights."""
        return self._instructions

    @property
    def margin(self) -> float:
        """Scores that differ by less are a tie: the calibrated margin, unless another was set."""
        return self._margin

    def check(self, pair: Pair) -> None:
        """Refuses a pair whose segments are too short to see motion in.

        Raises:
            BadInput: a segment has fewer than three frames at 8 per second.
        """
        for start, stop in ranges_of(pair, self._config.segment_seconds):
            count = len(range(0, stop - start, thinning(pair.fps)))
            if count < MIN_FRAMES:
                raise BadInput(
                    f"pair {pair.id}: frames {start} to {stop - 1} are {count} frames at 8 per second and the reward "
                    f"needs {MIN_FRAMES}; use longer segments (--set segment_seconds=...)"
                )

    def judge(self, clips: PairClips, segments: Sequence[tuple[int, int]]) -> tuple[SegmentAnswer, ...]:
        """One answer for each segment; a clean clip scores about 0, a worse one less."""
        if self._config.whole_clip:
            whole = [(0, len(clips.a))]
            a, b = (self.scores(clip, whole, fps=clips.pair.fps)[0] for clip in (clips.a, clips.b))
            answer = SegmentAnswer.scored(a, b, self._margin)
            return (answer,) * len(segments)
        return tuple(
            SegmentAnswer.scored(a, b, self._margin)
            for a, b in zip(
                self.scores(clips.a, segments, fps=clips.pair.fps),
                self.scores(clips.b, segments, fps=clips.pair.fps),
                strict=True,
            )
        )

    def scores(self, clip: Frames, segments: Sequence[tuple[int, int]], *, fps: float) -> list[float]:
        """The score of each segment of a clip uint8 [F, H, W, 3]; each is computed from its own frames alone."""
        import torch

        found = []
        for start, stop in segments:
            frames = small(thinned(clip[start:stop], fps))
            with torch.no_grad():
                found.append(float(self._reward.network(as_input(frames[None]))[0]))
        return found
