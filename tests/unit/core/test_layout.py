"""Segments and latent frames, over every combination that models and frame rates give."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from densedpo.core.errors import BadInput
from densedpo.core.layout import LatentLayout, Segments, latent_field, segment_of_latent

NUM_FRAMES = (5, 17, 33, 81, 121, 129)
RATES = (8, 15, 16, 24, 29.97, 30)
SECONDS = (0.5, 1, 2)
STRIDES = (4, 8)


@pytest.mark.parametrize(("num_frames", "fps", "seconds"), list(product(NUM_FRAMES, RATES, SECONDS)))
def test_segments_cover_every_frame_once_and_none_is_a_stub(num_frames: int, fps: float, seconds: float) -> None:
    segments = Segments.of(num_frames=num_frames, fps=fps, seconds=seconds)
    assert [frame for start, stop in segments for frame in range(start, stop)] == list(range(num_frames))
    for start, stop in segments[:-1]:
        assert abs((stop - start) - fps * seconds) < 1
    last = segments[-1][1] - segments[-1][0]
    if len(segments) > 1:
        assert fps * seconds / 2 - 1 < last < fps * seconds * 1.5 + 1


@pytest.mark.parametrize(("num_frames", "fps", "seconds", "stride"), list(product(NUM_FRAMES, RATES, SECONDS, STRIDES)))
def test_f08_every_latent_frame_is_owned_once_and_every_segment_owns_one_or_is_refused(
    num_frames: int, fps: float, seconds: float, stride: int
) -> None:
    if (num_frames - 1) % stride:
        with pytest.raises(BadInput, match=rf"{num_frames} frames .* stride {stride}"):
            LatentLayout(num_frames=num_frames, stride=stride)
        return
    layout = LatentLayout(num_frames=num_frames, stride=stride)
    segments = Segments.of(num_frames=num_frames, fps=fps, seconds=seconds)
    expected = [_owner_by_counting(segments, layout, k) for k in range(layout.num_latent_frames)]
    starving = sorted(set(range(len(segments))) - set(expected))
    if starving:
        start, stop = segments[starving[0]]
        with pytest.raises(BadInput, match=rf"segment {starving[0]} \(frames {start} to {stop}\) owns no latent frame"):
            segment_of_latent(segments, layout)
        return
    owners = segment_of_latent(segments, layout)
    assert owners.dtype == np.int64
    assert owners.tolist() == expected


def _owner_by_counting(segments: Segments, layout: LatentLayout, latent_frame: int) -> int:
    counts = Counter(
        next(index for index, (start, stop) in enumerate(segments) if start <= frame < stop)
        for frame in layout.frames_of(latent_frame)
    )
    most = max(counts.values())
    return min(index for index, count in counts.items() if count == most)


def test_the_two_examples_of_the_design() -> None:
    """121 frames at 24 fps: 5 x 24 = 120, the tail of 1 joins. 33 at 8 fps: 4 x 8 = 32, the tail of 1 joins."""
    assert Segments.of(num_frames=121, fps=24, seconds=1)[-2:] == ((72, 96), (96, 121))
    assert tuple(Segments.of(num_frames=33, fps=8, seconds=1)) == ((0, 8), (8, 16), (16, 24), (24, 33))


def test_a_tail_of_half_a_segment_stands_alone() -> None:
    assert tuple(Segments.of(num_frames=12, fps=8, seconds=1)) == ((0, 8), (8, 12))
    assert tuple(Segments.of(num_frames=11, fps=8, seconds=1)) == ((0, 11),)


def test_a_clip_shorter_than_a_segment_is_one_segment() -> None:
    assert tuple(Segments.of(num_frames=5, fps=30, seconds=2)) == ((0, 5),)


def test_broken_rates_do_not_drift() -> None:
    """Segment 100 of 1 s at 29.97 fps starts at frame 2997, not at 3000."""
    assert Segments.of(num_frames=6000, fps=29.97, seconds=1)[100][0] == 2997


def test_the_shipped_model_by_hand() -> None:
    """33 frames, stride 4: latent 0 = frame 0, latent 1 = 1-4, 2 = 5-8, 3 = 9-12, 4 = 13-16, ... 8 = 29-32.

    Segments of 8 frames: latent 2 holds frames 5, 6, 7 of segment 0 and frame 8 of segment 1, so it is segment 0's; so
    on every second latent. The last segment, 24-32, owns latents 7 (25-28) and 8; latent 6 (21-24) is segment 2's.
    """
    layout = LatentLayout(num_frames=33, stride=4)
    segments = Segments.of(num_frames=33, fps=8, seconds=1)
    assert layout.num_latent_frames == 9
    assert [list(layout.frames_of(k)) for k in (0, 1, 8)] == [[0], [1, 2, 3, 4], [29, 30, 31, 32]]
    assert segment_of_latent(segments, layout).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    field = latent_field((1, 0, -1, 1), segments, layout)
    assert field.dtype == np.int8
    assert field.tolist() == [1, 1, 1, 0, 0, -1, -1, 1, 1]


def test_an_equal_split_goes_to_the_earlier_segment() -> None:
    """Latent 1 holds frames 1-4; a cut at 3 leaves two on each side."""
    segments = Segments(ranges=((0, 3), (3, 5)))
    with pytest.raises(BadInput, match=r"segment 1 .* owns no latent frame"):
        segment_of_latent(segments, LatentLayout(num_frames=5, stride=4))
    longer = Segments(ranges=((0, 3), (3, 9)))
    assert segment_of_latent(longer, LatentLayout(num_frames=9, stride=4)).tolist() == [0, 0, 1]


@given(
    num_frames=st.integers(1, 300),
    fps=st.floats(1, 120),
    seconds=st.floats(0.01, 10),
)
def test_segments_cover_any_clip_or_are_refused(num_frames: int, fps: float, seconds: float) -> None:
    if fps * seconds < 1:
        with pytest.raises(BadInput, match="less than one frame"):
            Segments.of(num_frames=num_frames, fps=fps, seconds=seconds)
        return
    segments = Segments.of(num_frames=num_frames, fps=fps, seconds=seconds)
    assert segments.num_frames == num_frames
    assert sum(stop - start for start, stop in segments) == num_frames


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ((), "start at frame 0"),
        (((1, 4),), "start at frame 0"),
        (((0, 4), (5, 8)), "gap or overlap"),
        (((0, 4), (3, 8)), "gap or overlap"),
        (((0, 0),), "holds no frame"),
    ],
)
def test_ranges_that_are_no_segments_are_refused(ranges: tuple[tuple[int, int], ...], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Segments(ranges=ranges)


def test_f09_labels_that_do_not_fit_are_refused_not_broadcast() -> None:
    layout = LatentLayout(num_frames=33, stride=4)
    segments = Segments.of(num_frames=33, fps=8, seconds=1)
    with pytest.raises(BadInput, match="1 labels for 4 segments"):
        latent_field((1,), segments, layout)
    with pytest.raises(BadInput, match="not 2"):
        latent_field((1, 0, 2, 1), segments, layout)
    with pytest.raises(BadInput, match="cover 33 frames, the clip has 37"):
        latent_field((1, 0, 1, 1), segments, LatentLayout(num_frames=37, stride=4))
    with pytest.raises(IndexError):
        layout.frames_of(9)
