"""Motion against clips whose motion is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from densedpo.metrics.motion import clip_and_segment_motion, measure_motion, resample, segment_motion, step_motion

FPS = 8.0
SIDE = 64


def square_clip(
    speed_px: float, *, angle_deg: float = 0.0, textured: bool = False, num_frames: int = 9
) -> NDArray[np.uint8]:
    """A square of 18 pixels that translates through the middle of a dark frame."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float64)
    step = speed_px * np.array([np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))])
    frames = []
    for i in range(num_frames):
        cx, cy = SIDE / 2 + step * (i - (num_frames - 1) / 2)
        cover = np.clip(9.5 - np.maximum(np.abs(x - cx), np.abs(y - cy)), 0, 1)[..., None]
        colour = np.array([230.0, 50.0, 45.0])
        if textured:
            colour = (120 + 80 * np.sin((x - cx) / 2) * np.cos((y - cy) / 2.3))[..., None] * np.ones(3)
        frames.append(np.rint(cover * colour + (1 - cover) * 16).astype(np.uint8))
    return np.stack(frames)


@pytest.mark.parametrize("textured", [False, True])
@pytest.mark.parametrize("angle_deg", [0.0, 30.0, 90.0])
@pytest.mark.parametrize("speed_px", [1.125, 2.0, 3.0, 4.5])
def test_translating_square_is_measured_within_5_percent(speed_px: float, angle_deg: float, textured: bool) -> None:
    motion = measure_motion(square_clip(speed_px, angle_deg=angle_deg, textured=textured), fps=FPS)
    assert motion.object_px == pytest.approx(speed_px, rel=0.05)
    assert 0 < motion.frame_px < motion.object_px
    assert motion.static_share == 0


@pytest.mark.parametrize("angle_deg", [0.0, 30.0, 90.0])
def test_half_a_pixel_per_frame_is_measured_within_15_percent(angle_deg: float) -> None:
    assert measure_motion(square_clip(0.5, angle_deg=angle_deg), fps=FPS).object_px == pytest.approx(0.5, rel=0.15)


def test_frozen_clip_measures_exactly_zero() -> None:
    frozen = np.repeat(square_clip(2.0)[:1], 9, axis=0)
    motion = measure_motion(frozen, fps=FPS)
    assert (motion.frame_px, motion.object_px, motion.moving_share, motion.static_share) == (0.0, 0.0, 0.0, 1.0)


def test_noise_below_the_threshold_is_no_motion() -> None:
    rng = np.random.default_rng(0)
    clip = np.repeat(square_clip(2.0)[:1], 9, axis=0).astype(np.int64)
    noisy = np.clip(clip + rng.integers(-4, 5, clip.shape), 0, 255).astype(np.uint8)
    assert measure_motion(noisy, fps=FPS).object_px == 0.0


def test_small_object_has_the_object_motion_of_a_large_one_and_less_frame_motion() -> None:
    large = square_clip(2.0)
    padded = np.pad(large, ((0, 0), (16, 16), (16, 16), (0, 0)), constant_values=16)
    near, far = measure_motion(large, fps=FPS), measure_motion(padded, fps=FPS)
    assert far.object_px == pytest.approx(near.object_px, rel=0.05)
    assert far.frame_px < 0.7 * near.frame_px


def test_pixels_per_frame_refer_to_the_stated_rate() -> None:
    """Filmed at 16 fps with 1 px a frame, it moves 2 px a frame at 8 fps."""
    clip = square_clip(1.0, num_frames=17)
    assert measure_motion(clip, fps=16.0, at_fps=16.0).object_px == pytest.approx(1.0, rel=0.05)
    assert measure_motion(clip, fps=16.0, at_fps=8.0).object_px == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize(
    ("fps", "at_fps", "expected"),
    [
        (16.0, 8.0, [0, 2, 4]),
        (8.0, 8.0, [0, 1, 2, 3, 4]),
        (8.0, 16.0, [0, 0, 1, 1, 2, 2, 3, 3, 4]),
        (12.0, 8.0, [0, 1, 3]),
    ],
)
def test_resample_takes_the_nearest_earlier_frame(fps: float, at_fps: float, expected: list[int]) -> None:
    frames = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), dtype=np.uint8)
    assert resample(frames, fps=fps, at_fps=at_fps)[:, 0, 0, 0].tolist() == expected


def test_segments_hold_their_own_steps() -> None:
    still = np.repeat(square_clip(2.0)[:1], 8, axis=0)
    clip = np.concatenate([still, square_clip(2.0)])  # frames 0 to 7 stand, 8 repeats them, 9 to 16 move
    first, second = segment_motion(clip, [(0, 9), (9, 17)], fps=FPS)
    assert (first.object_px, first.num_steps) == (0.0, 8)
    assert second.object_px == pytest.approx(2.0, rel=0.05)
    assert second.num_steps == 8


@pytest.mark.parametrize("fps", [8.0, 16.0])
def test_clip_and_segments_together_are_those_apart(fps: float) -> None:
    clip, segments = square_clip(1.0, num_frames=17), [(0, 9), (9, 17)]
    together = clip_and_segment_motion(clip, segments, fps=fps)
    assert together == (measure_motion(clip, fps=fps), segment_motion(clip, segments, fps=fps))


@pytest.mark.parametrize(
    "frames", [np.zeros((1, 8, 8, 3), np.uint8), np.zeros((4, 8, 8), np.uint8), np.zeros((4, 8, 8, 3), np.float32)]
)
def test_refuses_what_is_no_video(frames: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="frames"):
        step_motion(frames)


def test_refuses_a_segment_without_a_step() -> None:
    with pytest.raises(ValueError, match="holds none"):
        segment_motion(square_clip(2.0), [(0, 1)], fps=FPS)
