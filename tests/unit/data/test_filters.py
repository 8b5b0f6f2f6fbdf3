"""Static clips and clips in which only the camera moves."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from densedpo.data.filters import camera_share, static_share

FPS = 8.0


def texture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth noise with edges at several scales, on which flow can be measured everywhere."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.uniform(0, 255, (height // cell, width // cell, 3)), (width, height)) for cell in (4, 8, 16)
    ]
    return np.mean(layers, axis=0).astype(np.uint8)


def pan(count: int = 17, *, speed: int = 2) -> NDArray[np.uint8]:
    scene = texture(64, 64 + speed * count)
    return np.stack([scene[:, speed * i : speed * i + 64] for i in range(count)])


def zoom(count: int = 17) -> NDArray[np.uint8]:
    scene = texture(128, 128)
    crops = [scene[i : 128 - i, i : 128 - i] for i in range(count)]
    return np.stack([cv2.resize(crop, (64, 64), interpolation=cv2.INTER_AREA) for crop in crops])


def with_object(frames: NDArray[np.uint8], *, side: int = 26) -> NDArray[np.uint8]:
    """The same clip with a textured square that moves on its own, against a pan to the left."""
    patch = texture(side, side, seed=9)
    frames = frames.copy()
    for index, frame in enumerate(frames):
        top = 2 * index % (64 - side)
        frame[top : top + side, 4 : 4 + side] = patch
    return frames


@pytest.mark.parametrize("frames", [pan(), zoom()], ids=["pan", "zoom"])
def test_a_camera_before_a_still_scene_is_told(frames: NDArray[np.uint8]) -> None:
    assert camera_share(frames, fps=FPS) > 0.97
    assert static_share(frames) == 0.0


@pytest.mark.parametrize("frames", [pan(), zoom()], ids=["pan", "zoom"])
def test_an_object_that_moves_on_its_own_is_seen_under_a_moving_camera(frames: NDArray[np.uint8]) -> None:
    assert camera_share(with_object(frames), fps=FPS) < 0.93


def test_an_object_before_a_still_camera_is_no_camera() -> None:
    still = np.repeat(pan(1), 17, axis=0)
    assert camera_share(with_object(still), fps=FPS) == 0.0
    assert static_share(with_object(still)) == 0.0


def test_a_shape_on_a_plain_ground_is_no_camera() -> None:
    """One rigid motion explains all the flow there is, but nothing says that it is the camera's."""
    frames = np.full((17, 64, 64, 3), 30, np.uint8)
    for index, frame in enumerate(frames):
        frame[20:36, 2 * index : 2 * index + 16] = (230, 50, 45)
    assert camera_share(frames, fps=FPS) == 0.0


def test_static_share_counts_the_frames_that_stand() -> None:
    """Of 10 steps 4 are repeats, up to noise that a codec leaves."""
    moving = pan(7)
    frames = np.concatenate([moving, np.repeat(moving[-1:], 4, axis=0)])
    noise = np.random.default_rng(0).integers(-2, 3, frames.shape)
    noisy = np.clip(frames + noise, 0, 255).astype(np.uint8)
    assert static_share(noisy) == pytest.approx(0.4)


def test_black_and_single_frames_are_static() -> None:
    assert static_share(np.zeros((9, 64, 64, 3), np.uint8)) == 1.0
    assert static_share(pan(1)) == 1.0


def test_the_same_clip_is_always_judged_alike() -> None:
    frames = with_object(pan())
    assert len({camera_share(frames, fps=FPS) for _ in range(3)}) == 1
