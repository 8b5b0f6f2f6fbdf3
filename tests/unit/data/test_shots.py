"""Scene cuts, and the times of clips between them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from densedpo.data.decoding.frames import HISTOGRAM_BINS, THUMBNAIL, Scan
from densedpo.data.shots import find_cuts, plan_shots

THRESHOLD = 0.18


def scan_of(thumbnails: NDArray[np.uint8], *, fps: float = 24.0) -> Scan:
    """The scan of a video whose frames are these thumbnails."""
    bins = thumbnails.reshape(len(thumbnails), -1, 3) // (256 // HISTOGRAM_BINS)
    shares = [[np.bincount(frame[:, c], minlength=HISTOGRAM_BINS) / len(frame) for c in range(3)] for frame in bins]
    return Scan(
        times_s=np.arange(len(thumbnails)) / fps,
        end_s=len(thumbnails) / fps,
        thumbnails=thumbnails,
        histograms=np.array(shares, dtype=np.float32),
        height=48,
        width=64,
    )


def shot(count: int, seed: int, *, drift: int = 0) -> NDArray[np.uint8]:
    """A picture of random tiles in the colours of its seed, moving to the left by `drift` tiles a frame."""
    rng = np.random.default_rng(seed)
    palette = rng.integers(0, 255, (3, 3))
    wide = palette[rng.integers(0, 3, (THUMBNAIL, THUMBNAIL + drift * count))]
    frames = np.stack([wide[:, drift * i : drift * i + THUMBNAIL] for i in range(count)])
    grain = rng.integers(-3, 4, frames.shape)
    return np.clip(frames + grain, 0, 255).astype(np.uint8)


def still(count: int, *, fps: float) -> Scan:
    return scan_of(np.repeat(shot(1, 0), count, axis=0), fps=fps)


@pytest.mark.parametrize("lengths", [(20, 30), (5, 5, 40), (1, 30), (30, 1, 30), (12, 12, 12, 12)])
def test_cuts_are_found_where_shots_meet(lengths: tuple[int, ...]) -> None:
    video = np.concatenate([shot(length, seed) for seed, length in enumerate(lengths)])
    assert find_cuts(scan_of(video), threshold=THRESHOLD) == list(np.cumsum(lengths)[:-1])


def test_the_same_colours_in_another_arrangement_are_another_shot() -> None:
    first = shot(20, 1)
    second = np.roll(first[:, ::-1, ::-1], 5, axis=1)
    assert find_cuts(scan_of(np.concatenate([first, second])), threshold=THRESHOLD) == [20]


def test_a_fast_pan_is_no_cut() -> None:
    assert find_cuts(scan_of(shot(60, 3, drift=1)), threshold=THRESHOLD) == []


@pytest.mark.parametrize("length", [1, 2])
def test_a_flash_is_no_cut(length: int) -> None:
    video = shot(40, 4)
    video[15 : 15 + length] = 255
    assert find_cuts(scan_of(video), threshold=THRESHOLD) == []


def test_a_change_of_light_is_no_cut() -> None:
    video = shot(40, 5).astype(float)
    video *= np.linspace(1.0, 0.3, 40)[:, None, None, None]
    assert find_cuts(scan_of(video.astype(np.uint8)), threshold=THRESHOLD) == []


def test_a_threshold_of_one_never_cuts() -> None:
    assert find_cuts(scan_of(np.concatenate([shot(9, 0), shot(9, 1)])), threshold=1.0) == []


@pytest.mark.parametrize(
    ("num_source", "num_clips", "extended", "tail_frames"),
    [
        (33, 1, 0, 0),  # exactly one clip
        (32, 1, 1, 0),  # one frame of the clip is missing: the last one is shown again
        (31, 0, 0, 31),  # two are missing: too short
        (1, 0, 0, 1),
        (40, 1, 0, 7),
        (65, 2, 1, 0),
        (66, 2, 0, 0),
        (64, 1, 0, 31),
    ],
)
def test_shots_are_cut_end_to_end(num_source: int, num_clips: int, extended: int, tail_frames: int) -> None:
    """A source at the clips' own rate, so that each frame of a clip is one frame of the source."""
    (found,) = plan_shots(still(num_source, fps=8.0), num_frames=33, fps=8.0, cut_threshold=THRESHOLD)
    assert len(found.clips) == num_clips
    assert sum(clip.is_extended for clip in found.clips) == extended
    assert found.tail_s == pytest.approx(tail_frames / 8)
    for index, clip in enumerate(found.clips):
        frames = [int(time * 8 + 1e-6) for time in clip.times_s]
        assert frames == [min(33 * index + i, num_source - 1) for i in range(33)]


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=4),
    source_fps=st.sampled_from([12.5, 23.976, 24.0, 29.97, 30.0, 60.0]),
    num_frames=st.sampled_from([5, 9, 33]),
    fps=st.sampled_from([8.0, 15.0, 16.0, 24.0]),
)
def test_no_clip_crosses_a_cut_and_nothing_is_lost(
    lengths: list[int], source_fps: float, num_frames: int, fps: float
) -> None:
    video = np.concatenate([shot(length, seed) for seed, length in enumerate(lengths)])
    found = scan_of(video, fps=source_fps)
    shots = plan_shots(found, num_frames=num_frames, fps=fps, cut_threshold=THRESHOLD)
    edges = np.cumsum([0, *lengths])
    assert [round(part.start_s * source_fps) for part in shots] == list(edges[:-1])
    for part, first, stop in zip(shots, edges[:-1], edges[1:], strict=True):
        for clip in part.clips:
            shown = np.searchsorted(found.times_s, np.array(clip.times_s) + 1e-6, side="right") - 1
            assert len(shown) == num_frames
            assert first <= shown.min()
            assert shown.max() < stop
            assert np.all(np.diff(clip.times_s) >= 0)
        covered_s = len(part.clips) * num_frames / fps
        assert part.tail_s < num_frames / fps
        # what clips take and what is left over make up the shot, but for a last clip that is one frame too long
        assert -2 / fps <= part.stop_s - part.start_s - covered_s - part.tail_s <= 1e-6
