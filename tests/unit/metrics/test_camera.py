"""Camera and object motion against clips whose motion is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from densedpo.metrics.camera import measure_camera

FPS = 8.0
SIDE = 64
NUM_FRAMES = 7


def percent_per_s(px_per_frame: float) -> float:
    """At 8 frames a second and a short side of 64, 1 pixel a frame is 12.5 % of the short side a second."""
    return px_per_frame * FPS / SIDE * 100


def texture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth noise with edges at several scales, on which flow can be measured everywhere."""
    rng = np.random.default_rng(seed)
    cells = (4, 8, 16)
    layers = [cv2.resize(rng.uniform(0, 255, (height // c + 1, width // c + 1, 3)), (width, height)) for c in cells]
    return np.mean(layers, axis=0).astype(np.uint8)


def pan(speed: int, num_frames: int = NUM_FRAMES) -> NDArray[np.uint8]:
    scene = texture(SIDE, SIDE + abs(speed) * num_frames)
    return np.stack([scene[:, speed * i : speed * i + SIDE] for i in range(num_frames)])


def zoom() -> NDArray[np.uint8]:
    scene = texture(128, 128)
    crops = [scene[i : 128 - i, i : 128 - i] for i in range(NUM_FRAMES)]
    return np.stack([cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for crop in crops])


def with_object(frames: NDArray[np.uint8], *, side: int = 26, speed: int = 2) -> NDArray[np.uint8]:
    """The same clip with a textured square that moves down by some pixels a frame."""
    patch, result = texture(side, side, seed=9), frames.copy()
    for i, frame in enumerate(result):
        frame[8 + speed * i : 8 + speed * i + side, 20 : 20 + side] = patch
    return result


def square_on_plain_ground(
    speed: float, *, angle_deg: float = 0.0, num_frames: int = NUM_FRAMES, scale: int = 1
) -> NDArray[np.uint8]:
    """A red square of 18 pixels that translates through the middle of a dark frame, enlarged by a whole number."""
    side = SIDE * scale
    y, x = np.mgrid[0:side, 0:side] / scale
    step = speed * np.array([np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))])
    frames = []
    for i in range(num_frames):
        cx, cy = SIDE / 2 + step * (i - (num_frames - 1) / 2)
        cover = np.clip((9.5 - np.maximum(np.abs(x - cx), np.abs(y - cy))) * scale, 0, 1)[..., None]
        frames.append(np.rint(cover * np.array([230.0, 50.0, 45.0]) + (1 - cover) * 16).astype(np.uint8))
    return np.stack(frames)


@pytest.mark.parametrize(("speed", "angle_deg"), [(1.125, 0.0), (2.0, 30.0), (3.0, 90.0), (4.5, 0.0)])
def test_a_translating_square_is_measured_within_5_percent_and_is_no_camera(speed: float, angle_deg: float) -> None:
    """One affine motion explains all that is seen, but a shape on a plain ground says nothing about the camera."""
    motion = measure_camera(square_on_plain_ground(speed, angle_deg=angle_deg), fps=FPS)
    assert motion.residual == pytest.approx(percent_per_s(speed), rel=0.05)
    assert motion.top5 == motion.residual
    assert motion.camera == 0
    assert motion.static_share == 0


@pytest.mark.parametrize("speed", [2, 4])
def test_a_pure_pan_has_camera_motion_and_next_to_no_object_motion(speed: int) -> None:
    motion = measure_camera(pan(speed), fps=FPS)
    assert motion.camera == pytest.approx(percent_per_s(speed), rel=0.02)
    assert motion.mean == pytest.approx(percent_per_s(speed), rel=0.05)
    assert motion.top5 == pytest.approx(percent_per_s(speed), rel=0.1)
    assert motion.residual < 0.03 * motion.top5
    assert motion.residual_mean < 0.01 * motion.mean


def test_a_pure_zoom_has_next_to_no_object_motion() -> None:
    motion = measure_camera(zoom(), fps=FPS)
    assert motion.camera > 4
    assert motion.residual < 0.1 * motion.top5
    assert motion.residual_mean < 0.1 * motion.mean


def test_an_object_is_measured_against_the_camera_that_follows_the_ground() -> None:
    """The ground moves 2 left and the object 2 down: against the ground it moves 2 sqrt 2 pixels a frame."""
    motion = measure_camera(with_object(pan(2)), fps=FPS)
    assert motion.residual == pytest.approx(percent_per_s(8**0.5), rel=0.05)
    assert motion.camera == pytest.approx(percent_per_s(2), rel=0.05)


def test_an_object_before_a_camera_that_stands_is_all_object() -> None:
    still = np.repeat(pan(2)[:1], NUM_FRAMES, axis=0)
    motion = measure_camera(with_object(still), fps=FPS)
    assert motion.residual == pytest.approx(percent_per_s(2), rel=0.05)
    assert motion.camera < 0.02 * motion.residual


def test_a_frozen_clip_has_exactly_no_motion() -> None:
    motion = measure_camera(np.repeat(pan(2)[:1], NUM_FRAMES, axis=0), fps=FPS)
    assert (motion.mean, motion.top5, motion.residual, motion.residual_mean, motion.camera) == (0, 0, 0, 0, 0)
    assert motion.static_share == 1.0


def test_numbers_are_per_second_whatever_the_rate() -> None:
    """1 pixel a frame at 16 fps and 4 at 4 fps are 2 at 8 fps; a slow clip is measured at its own rate."""
    expected = percent_per_s(2)
    fast = measure_camera(square_on_plain_ground(1, num_frames=13), fps=16.0)
    slow = measure_camera(square_on_plain_ground(4), fps=4.0)
    assert (fast.residual, slow.residual) == (pytest.approx(expected, rel=0.05), pytest.approx(expected, rel=0.05))
    assert (fast.fps, slow.fps) == (8.0, 4.0)
    assert (fast.num_steps, slow.num_steps) == (6, 6)
    assert slow.static_share == 0


def test_numbers_are_shares_of_the_short_side_whatever_the_size() -> None:
    small = measure_camera(square_on_plain_ground(2), fps=FPS)
    large = measure_camera(square_on_plain_ground(2, scale=3), fps=FPS)
    assert large.side == 192
    assert large.residual == pytest.approx(small.residual, rel=0.05)


def test_the_same_clip_gives_the_same_bits() -> None:
    clip = with_object(pan(2))
    assert measure_camera(clip, fps=FPS) == measure_camera(clip, fps=FPS)


@pytest.mark.parametrize("frames", [np.zeros((1, 8, 8, 3), np.uint8), np.zeros((4, 8, 8), np.uint8)])
def test_refuses_what_is_no_video(frames: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="frames"):
        measure_camera(frames, fps=FPS)
