"""Smoothness falls with jerks and with frames out of order, and is highest for a frozen clip."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from densedpo.metrics.smoothness import between, motion_smoothness
from densedpo.world.faults import plant
from densedpo.world.render import render
from densedpo.world.scene import draw_scene

SCENE = draw_scene(6)  # a circle that orbits fast
CLIP = render(SCENE)[:17]


def square_at(left: float) -> NDArray[np.uint8]:
    y, x = np.mgrid[0:64, 0:64].astype(np.float64)
    cover = np.clip(10.5 - np.maximum(np.abs(x - left - 10), np.abs(y - 32)), 0, 1)[..., None]
    return np.rint(cover * np.array([230.0, 50.0, 45.0]) + (1 - cover) * 16).astype(np.uint8)


def test_the_frame_between_has_the_shape_half_way() -> None:
    """Better than the mean of the two frames, which shows the square's leading and trailing edge twice."""
    before, truth, after = square_at(10), square_at(13), square_at(16)
    error = np.abs(between(before, after).astype(int) - truth).mean()
    blended = np.abs((before.astype(int) + after) / 2 - truth).mean()
    assert error < 0.25 * blended


def test_nothing_is_made_up_between_two_equal_frames() -> None:
    assert (between(CLIP[0], CLIP[0]) == CLIP[0]).all()


def test_a_frozen_clip_is_the_smoothest_there_is() -> None:
    assert motion_smoothness(np.repeat(CLIP[:1], 9, axis=0)) == 1.0
    assert motion_smoothness(CLIP) < 1.0


def test_jerks_and_frames_out_of_order_lower_it() -> None:
    rng = np.random.default_rng(0)
    jerky = CLIP[np.clip(np.arange(17) + rng.integers(-1, 2, 17), 0, 16)]
    shuffled = CLIP[rng.permutation(17)]
    even, rough, wild = (motion_smoothness(clip) for clip in (CLIP, jerky, shuffled))
    assert even - rough > 0.02
    assert rough - wild > 0.02


@pytest.mark.parametrize("fault", ["blur", "wrong colour", "wrong direction"])
def test_what_moves_evenly_stays_smooth(fault: str) -> None:
    assert motion_smoothness(plant(SCENE, fault)[:17]) > motion_smoothness(CLIP) - 0.005


def test_two_frames_have_none_between_them() -> None:
    with pytest.raises(ValueError, match="at least 3 frames, not 2"):
        motion_smoothness(CLIP[:2])
