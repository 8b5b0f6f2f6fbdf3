from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math

import numpy as np
import pytest

from densedpo.world.render import FRAME_SIZE, NUM_FRAMES, Pose, coverage, pose_at, render, signed_distance
from densedpo.world.scene import BACKGROUNDS, COLOURS, SHAPES, SIZES, all_scenes, draw_scene


def test_a_scene_renders_to_the_same_bits_today_and_tomorrow() -> None:
    digest = hashlib.sha256(b"".join(render(draw_scene(seed)).tobytes() for seed in range(60))).hexdigest()
    assert digest == "28483605e70eca28be5f3b5e4a2cbc789570eb5aba7de30af5db8e1f8e37a41d"


def test_a_clip_holds_the_colours_that_are_said() -> None:
    scene = draw_scene(3)
    frames = render(scene)
    pose = pose_at(scene, 0.0)
    assert frames.shape == (NUM_FRAMES, FRAME_SIZE, FRAME_SIZE, 3)
    assert frames.dtype == np.uint8
    assert tuple(frames[0, round(pose.y), round(pose.x)]) == COLOURS[scene.colour]
    assert tuple(frames[0, 0, 0]) == BACKGROUNDS[scene.background]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", SIZES)
def test_shapes_of_one_size_have_one_area(shape: str, size: str) -> None:
    area = float(coverage(shape, size, Pose(x=31.3, y=32.6, angle=0.4)).sum())
    assert area == pytest.approx(math.pi * SIZES[size] ** 2, rel=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_distance_is_negative_inside_and_grows_by_a_pixel_a_pixel(shape: str) -> None:
    distance = signed_distance(shape, "large", Pose(x=31.5, y=31.5, angle=0.0))
    assert distance[31, 31] < -5
    assert distance[31, 0] > 5
    assert np.abs(np.diff(distance, axis=0)).max() <= 1 + 1e-9


def test_every_scene_moves_and_stays_in_view() -> None:
    for centred in list(all_scenes())[::31]:
        scene = dataclasses.replace(centred, offset_x=1.0, offset_y=-1.0, phase=0.3)
        poses = [pose_at(scene, time) for time in np.linspace(0, 4, NUM_FRAMES)]
        assert all(8 < pose.x < 55 and 8 < pose.y < 55 for pose in poses), scene.caption
        steps = [abs(a.x - b.x) + abs(a.y - b.y) + abs(a.angle - b.angle) for a, b in itertools.pairwise(poses)]
        assert np.mean(steps) > 0.04, scene.caption
