"""What a run says of the labels that it has not learned from. No torch is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
from pydantic import ConfigDict

if TYPE_CHECKING:
    from densedpo.learn.feed.inputs import Labels
    from densedpo.learn.watch.evaluate import FrameReward

LEFT_OUT_FILE: Final = "left_out.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentMargins:
    """The labels of a pair and, beside each, the margin of a model that has not seen them: above 0 where it prefers a.

    A margin is beta/2 (d_b - d_a), the logit that a is preferred, averaged over the segment's latent frames and over
    fixed draws of (t, noise).
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    pair_id: str
    ranges: tuple[tuple[int, int], ...]  # half-open, in pixel frames
    labels: tuple[int, ...]
    answered: tuple[bool, ...]
    margins: tuple[float, ...]


def segment_margins(labels: Labels, reward: FrameReward, *, beta: float) -> SegmentMargins:
    """The margins of a pair's segments from its rewards d_b - d_a per latent frame."""
    frames = np.asarray(reward.implicit_reward_per_latent_frame)
    segments = range(len(labels.segments))
    own = [(labels.owner == segment) & labels.valid for segment in segments]
    # a segment of nothing but a given frame has none of its own, and then no label either
    one = [int(np.argmax(mine)) for mine in own]
    return SegmentMargins(
        pair_id=reward.pair_id,
        ranges=labels.segments.ranges,
        labels=tuple(int(labels.field[frame]) for frame in one),
        answered=tuple(bool(labels.judged[frame]) for frame in one),
        margins=tuple(float(beta / 2 * frames[mine].mean()) if mine.any() else 0.0 for mine in own),
    )
