"""Consistency falls with the faults it is about and with no others; diversity counts what differs between seeds."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from densedpo.metrics.appearance import clip_feature, consistency, distances_to_others, moving_region
from densedpo.world.faults import plant
from densedpo.world.render import render
from densedpo.world.scene import draw_scene

SPIN, ORBIT = draw_scene(3), draw_scene(6)  # a triangle that spins on gray, a circle that orbits on black
CLIP = render(ORBIT)


def flat(level: int, num_frames: int = 8) -> NDArray[np.uint8]:
    return np.full((num_frames, 16, 16, 3), level, np.uint8)


@pytest.mark.parametrize("scene", [SPIN, ORBIT], ids=["spin", "orbit"])
@pytest.mark.parametrize("fault", ["colour drift", "shape morph", "flicker"])
def test_subject_consistency_falls_with_the_strength_of_what_changes(scene: object, fault: str) -> None:
    none, half, full = (consistency(plant(scene, fault, strength=s)).subject for s in (0.0, 0.5, 1.0))  # type: ignore[arg-type]
    assert none > 0.998
    assert none - half > 0.005
    assert half - full > 0.005


@pytest.mark.parametrize("scene", [SPIN, ORBIT], ids=["spin", "orbit"])
@pytest.mark.parametrize("fault", ["blur", "wrong shape", "wrong direction"])
def test_what_is_wrong_all_the_time_is_not_inconsistent(scene: object, fault: str) -> None:
    assert consistency(plant(scene, fault)).subject > 0.998  # type: ignore[arg-type]


def test_a_subject_that_changes_leaves_the_background_consistent() -> None:
    assert consistency(plant(ORBIT, "colour drift")).background > 0.999


def test_background_consistency_falls_with_the_background() -> None:
    """Everything outside the box that the circle stays in turns from black to gray, too slowly to count as motion."""
    found = []
    for reach in (0, 40, 80):
        clip = CLIP.astype(np.float64)
        lift = np.linspace(0, reach, len(clip))[:, None, None, None] * np.ones((1, 64, 64, 1))
        lift[:, 8:56, 8:56] = 0
        found.append(consistency(np.clip(clip + lift, 0, 255).astype(np.uint8)).background)
    assert found[0] > 0.99
    assert found[0] - found[1] > 0.01
    assert found[1] - found[2] > 0.01


def test_a_frozen_clip_has_the_highest_consistency_there_is() -> None:
    """Which is why consistency is never to be read without motion."""
    frozen = consistency(np.repeat(CLIP[:1], 9, axis=0))
    assert frozen.subject == pytest.approx(1.0, abs=1e-12)
    assert frozen.background == pytest.approx(1.0, abs=1e-12)
    assert frozen.subject >= consistency(CLIP).subject


def test_where_everything_moves_subject_and_background_are_the_whole_frame() -> None:
    rng = np.random.default_rng(0)
    scene = cv2.resize(rng.uniform(0, 255, (16, 40, 3)), (160, 64)).astype(np.uint8)
    panned = np.stack([scene[:, 3 * i : 3 * i + 64] for i in range(9)])
    assert moving_region(panned).mean() > 0.99
    found = consistency(panned)
    assert found.subject == pytest.approx(found.background, abs=0.02)


def test_the_moving_region_is_what_the_subject_sweeps_without_holes() -> None:
    clip = np.full((9, 64, 64, 3), 20, np.uint8)
    for i in range(9):
        clip[i, 20:40, 4 + 4 * i : 24 + 4 * i] = 200  # 20 x 20, over columns 4 to 55 in all
    region = moving_region(clip)
    assert region[20:40, 4:56].all()
    assert region.sum() == 26 * 58  # 3 pixels more on each side


def test_seeds_that_give_the_same_clip_have_no_diversity() -> None:
    assert distances_to_others([clip_feature(CLIP)] * 3).tolist() == [0, 0, 0]


def test_diversity_by_hand() -> None:
    """Black, black and white: L differs by 100 and a, b by 0, which is 100 / sqrt 3 over the three channels.

    The mean distances to the others are half of it twice and all of it once; their mean is two pairs of three.
    """
    apart = 100 / 3**0.5
    found = distances_to_others([clip_feature(flat(0)), clip_feature(flat(0)), clip_feature(flat(255))])
    assert found == pytest.approx([apart / 2, apart / 2, apart], rel=1e-3)
    assert found.mean() == pytest.approx(apart * 2 / 3, rel=1e-3)


def test_diversity_sees_another_path_and_is_nearly_blind_to_noise() -> None:
    rng = np.random.default_rng(1)
    noisy = np.clip(CLIP + rng.normal(0, 12, CLIP.shape), 0, 255).astype(np.uint8)
    here, other_way = clip_feature(CLIP), clip_feature(plant(ORBIT, "wrong direction"))
    by_noise = distances_to_others([here, clip_feature(noisy)])[0]
    by_path = distances_to_others([here, other_way])[0]
    assert by_path > 5 * by_noise


def test_one_clip_has_no_diversity_to_speak_of() -> None:
    with pytest.raises(ValueError, match="at least two clips"):
        distances_to_others([clip_feature(CLIP)])
