"""Time in three units: seconds, pixel frames and latent frames.

A segment is a half-open range of pixel frames. A causal video autoencoder of temporal stride s keeps frame 0 alone as
latent 0 and folds frames s(k-1)+1 .. sk into latent k. Labels are stored against pixel frames; the loss is over latent
frames, and each latent frame takes the label of the one segment that holds most of its pixel frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import overload

import numpy as np
from numpy.typing import NDArray

from densedpo.core.errors import BadInput


@dataclass(frozen=True, kw_only=True, slots=True)
class Segments(Sequence[tuple[int, int]]):
    """Consecutive half-open ranges of pixel frames that cover a clip from frame 0 on.

    Raises:
        BadInput: the ranges are empty, do not start at 0, or leave gaps or overlaps.
    """

    ranges: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        if not self.ranges or self.ranges[0][0] != 0:
            raise BadInput(f"segments start at frame 0, these do not: {self.ranges}")
        for start, stop in self.ranges:
            if start >= stop:
                raise BadInput(f"segment [{start}, {stop}) holds no frame")
        for (_, stop), (start, _) in pairwise(self.ranges):
            if start != stop:
                raise BadInput(f"segments leave a gap or overlap between frames {stop} and {start}")

    @classmethod
    def of(cls, *, num_frames: int, fps: float, seconds: float) -> Segments:
        """Cuts a clip into segments of a duration; a tail shorter than half a segment joins the one before.

        Segment i starts at frame i * fps * seconds, rounded half up, so that cuts do not drift where a segment is not a
        whole number of frames. A clip shorter than one segment is one segment.

        Raises:
            BadInput: there is no frame to cut, or a segment would be shorter than one frame.
        """
        length = fps * seconds  # in frames, not always whole
        if num_frames < 1:
            raise BadInput(f"a clip has at least one frame, this one has {num_frames}")
        if not (math.isfinite(length) and length >= 1):
            raise BadInput(f"segments of {seconds:g} s at {fps:g} fps hold less than one frame; use longer segments")
        # the epsilon keeps 3 * (10 * 0.1) from falling short of 3
        num_whole = math.floor(num_frames / length + 1e-9)
        cuts = [min(num_frames, math.floor(index * length + 0.5)) for index in range(num_whole + 1)]
        tail = num_frames - cuts[-1]
        if num_whole == 0 or tail >= length / 2:
            cuts.append(num_frames)
        else:
            cuts[-1] = num_frames
        return cls(ranges=tuple(pairwise(cuts)))

    @property
    def num_frames(self) -> int:
        """How many pixel frames the segments cover."""
        return self.ranges[-1][1]

    def __len__(self) -> int:
        return len(self.ranges)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.ranges)

    @overload
    def __getitem__(self, index: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[tuple[int, int], ...]: ...
    def __getitem__(self, index: int | slice) -> tuple[int, int] | tuple[tuple[int, int], ...]:
        return self.ranges[index]


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentLayout:
    """How a causal autoencoder of a temporal stride folds the frames of a clip.

    Raises:
        BadInput: `num_frames` is not `stride * n + 1`, which a causal autoencoder cannot fold without a remainder.
    """

    num_frames: int
    stride: int

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise BadInput(f"a temporal stride is at least 1, not {self.stride}")
        if self.num_frames < 1 or (self.num_frames - 1) % self.stride:
            raise BadInput(
                f"{self.num_frames} frames do not fit a causal autoencoder of temporal stride {self.stride}; "
                f"use {self.stride}n+1 frames"
            )

    @property
    def num_latent_frames(self) -> int:
        """F, the length of the latent clip."""
        return (self.num_frames - 1) // self.stride + 1

    def frames_of(self, latent_frame: int) -> range:
        """The pixel frames that a latent frame holds.

        Raises:
            IndexError: there is no such latent frame.
        """
        if not 0 <= latent_frame < self.num_latent_frames:
            raise IndexError(f"latent frame {latent_frame} of {self.num_latent_frames}")
        if latent_frame == 0:
            return range(1)
        return range(self.stride * (latent_frame - 1) + 1, self.stride * latent_frame + 1)


def segment_of_latent(segments: Segments, layout: LatentLayout) -> NDArray[np.int64]:
    """The segment that owns each latent frame: the one with most of its pixel frames, on a tie the earlier one.

    Returns:
        Segment indices [F], ascending; every segment occurs.

    Raises:
        BadInput: the segments cover another number of frames, or one of them owns no latent frame.
    """
    if segments.num_frames != layout.num_frames:
        raise BadInput(f"segments cover {segments.num_frames} frames, the clip has {layout.num_frames}")
    starts = np.array([start for start, _ in segments])
    owners = np.empty(layout.num_latent_frames, dtype=np.int64)
    for k in range(layout.num_latent_frames):
        segment_of_frame = np.searchsorted(starts, np.asarray(layout.frames_of(k)), side="right") - 1
        owners[k] = np.bincount(segment_of_frame).argmax()  # argmax takes the first, hence the earlier, on a tie
    for index in sorted(set(range(len(segments))) - set(owners.tolist())):
        start, stop = segments[index]
        raise BadInput(
            f"segment {index} (frames {start} to {stop}) owns no latent frame at temporal stride {layout.stride}; "
            "use longer segments"
        )
    return owners


def latent_field(labels: Sequence[int], segments: Segments, layout: LatentLayout) -> NDArray[np.int8]:
    """The labels of segments as a field over latent frames.

    Args:
        labels: one of -1 (b is better), 0 (tie or no label), +1 (a is better) for each segment.

    Returns:
        The field [F].

    Raises:
        BadInput: a wrong number of labels, a value that is not a label, or segments that do not fit the layout.
    """
    if len(labels) != len(segments):
        raise BadInput(f"{len(labels)} labels for {len(segments)} segments")
    if not set(labels) <= {-1, 0, 1}:
        raise BadInput(f"labels are -1, 0 or 1, not {min(set(labels) - {-1, 0, 1})!r}")
    return np.asarray(labels, dtype=np.int8)[segment_of_latent(segments, layout)]
