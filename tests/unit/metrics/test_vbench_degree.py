"""VBench's rule on clips that lie on either side of it. At a short side of 64 its threshold is 6 * 64 / 256 = 1.5."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from densedpo.metrics.motion import flow_steps
from densedpo.metrics.vbench_degree import is_dynamic, step_magnitudes

SIDE = 64


def squares(places: list[float]) -> NDArray[np.uint8]:
    """A textured square of 20 pixels, 10 % of the frame, at these places from the left."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float64)
    frames = []
    for left in places:
        cover = np.clip(10.5 - np.maximum(np.abs(x - left - 10), np.abs(y - 32)), 0, 1)
        value = 120 + 80 * np.sin((x - left) / 2) * np.cos(y / 2.3)
        frames.append(np.rint(cover * value + (1 - cover) * 16).astype(np.uint8))
    return np.stack(frames)[..., None].repeat(3, axis=-1)


def test_the_magnitude_is_that_of_the_fastest_twentieth() -> None:
    assert step_magnitudes(flow_steps(squares([4, 6, 10]))) == pytest.approx([2.0, 4.0], rel=0.05)


@pytest.mark.parametrize(("speed", "expected"), [(0.0, False), (1.3, False), (1.7, True), (3.0, True)])
def test_speed_is_held_against_the_threshold(speed: float, expected: bool) -> None:
    assert is_dynamic(squares([4 + speed * i for i in range(9)]), fps=8.0) is expected


def test_enough_steps_have_to_move() -> None:
    """Of 9 frames round(4 * 9 / 16) = round(2.25) = 2 steps have to move."""
    one, two = [4.0] * 8 + [8.0], [4.0] * 7 + [8.0, 12.0]
    assert not is_dynamic(squares(one), fps=8.0)
    assert is_dynamic(squares(two), fps=8.0)


def test_frames_are_taken_at_about_8_per_second() -> None:
    """1 pixel a frame is under the threshold at 8 fps; at 16 fps every second frame is taken and it is over."""
    clip = squares([4 + i for i in range(13)])
    assert not is_dynamic(clip, fps=8.0)
    assert not is_dynamic(clip, fps=11.9)  # round(1.49) = 1
    assert is_dynamic(clip, fps=16.0)


def test_too_short_a_clip_has_no_answer() -> None:
    """With two frames VBench's rule needs round(0.5) = 0 moving steps, and would call a frozen clip dynamic."""
    with pytest.raises(ValueError, match="needs 3 frames at 8 fps, not 2"):
        is_dynamic(squares([4.0, 4.0]), fps=8.0)
    with pytest.raises(ValueError, match="needs 3 frames at 8 fps, not 2"):
        is_dynamic(squares([4.0] * 4), fps=16.0)
