from __future__ import annotations

import dataclasses
import itertools
from functools import cache
from typing import Final

import numpy as np
import pytest

from densedpo.world.faults import LOWERS, plant
from densedpo.world.oracle import OracleReport, score_clip
from densedpo.world.render import render
from densedpo.world.scene import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, SIZES, SPEEDS, Scene, draw_scene

CLEAR: Final = 0.15  # a score that should fall falls by at least this
UNMOVED: Final = 0.05  # one that should not stays within this
SEGMENTS: Final = [(0, 9), (9, 17), (17, 25), (25, 33)]
HAPPENING: Final = ("blur", "colour drift", "shape morph", "flicker", "freeze")  # faults with a range of frames


def scenes() -> list[Scene]:
    """One scene for every motion and direction, with the other words turned over."""
    moves = [(motion, direction) for motion, directions in MOTIONS.items() for direction in directions]
    turned = []
    for i, (motion, direction) in enumerate(moves):
        shapes = SHAPES[1:] if motion == "spins" else SHAPES
        turned.append(
            dataclasses.replace(
                draw_scene(i),
                shape=shapes[i % len(shapes)],
                colour=list(COLOURS)[i % len(COLOURS)],
                size=list(SIZES)[(i // 2) % len(SIZES)],
                background=list(BACKGROUNDS)[(i // 3) % len(BACKGROUNDS)],
                motion=motion,
                direction=direction,
                speed=SPEEDS[i % 2],
            )
        )
    return turned


@cache
def truth(scene: Scene) -> OracleReport:
    return score_clip(render(scene), scene, segments=SEGMENTS)


def check_table(
    fault: str, which: list[Scene], *, start_frame: int = 0, stop_frame: int = 33, clear: float = CLEAR
) -> None:
    for scene in which:
        frames = plant(scene, fault, start_frame=start_frame, stop_frame=stop_frame)
        before, after = (dataclasses.asdict(x.clip) for x in (truth(scene), score_clip(frames, scene)))
        fall = {name: before[name] - after[name] for name in before}
        target = fall.pop(LOWERS[fault])
        assert target >= clear, (scene.caption, target)
        assert max(abs(value) for value in fall.values()) <= UNMOVED, (scene.caption, fall)


@pytest.mark.parametrize("fault", LOWERS)
def test_a_fault_lowers_its_own_score_and_leaves_the_others(fault: str) -> None:
    check_table(fault, scenes())


@pytest.mark.slow
@pytest.mark.parametrize("fault", LOWERS)
def test_the_same_over_many_random_scenes(fault: str) -> None:
    check_table(fault, [draw_scene(seed) for seed in range(100)])


@pytest.mark.parametrize("fault", HAPPENING)
def test_the_same_where_the_fault_fills_half_of_the_clip(fault: str) -> None:
    check_table(fault, scenes()[::2], start_frame=9, stop_frame=25, clear=CLEAR / 2)


@pytest.mark.parametrize("fault", HAPPENING)
def test_a_fault_is_seen_in_the_segment_where_it_is(fault: str) -> None:
    # a freeze delays what follows: a fall, which speeds up, is slower after it
    for scene in [scene for scene in scenes()[1::2] if not (fault == "freeze" and scene.motion == "falls")]:
        frames = plant(scene, fault, start_frame=9, stop_frame=17)
        reports = (truth(scene), score_clip(frames, scene, segments=SEGMENTS))
        before, after = ([dataclasses.asdict(one)[LOWERS[fault]] for one in x.segments] for x in reports)
        fall = np.array(before) - np.array(after)
        assert fall[1] >= CLEAR, (scene.caption, fall)
        assert np.abs(fall[[0, 2, 3]]).max() <= UNMOVED, (scene.caption, fall)


@pytest.mark.parametrize("fault", [fault for fault in LOWERS if fault != "wrong direction"])
def test_a_score_falls_with_the_strength_of_its_fault_and_not_at_once(fault: str) -> None:
    for scene in scenes()[::4]:
        scores = [
            dataclasses.asdict(score_clip(plant(scene, fault, strength=strength), scene).clip)[LOWERS[fault]]
            for strength in (0.0, 0.3, 0.5, 0.75, 1.0)
        ]
        assert all(weaker >= stronger - 0.005 for weaker, stronger in itertools.pairwise(scores)), scores
        assert scores[1] > scores[4] + 0.03, (scene.caption, scores)


def test_strength_zero_is_the_truth() -> None:
    scene = draw_scene(4)
    for fault in LOWERS:
        assert np.array_equal(plant(scene, fault, strength=0.0), render(scene)), fault


def test_a_frozen_clip_has_no_motion_to_name() -> None:
    scene = draw_scene(4)
    found = score_clip(plant(scene, "freeze"), scene).found
    assert (found.motion, found.direction, found.speed) == (None, None, None)
    assert found.shape == scene.shape


def test_an_unknown_fault_a_strength_and_a_range_are_refused() -> None:
    scene = draw_scene(0)
    with pytest.raises(ValueError, match="unknown fault 'melt'; known: blur"):
        plant(scene, "melt")
    with pytest.raises(ValueError, match="not 2"):
        plant(scene, "blur", strength=2)
    with pytest.raises(ValueError, match=r"\[30, 40\)"):
        plant(scene, "blur", start_frame=30, stop_frame=40)
