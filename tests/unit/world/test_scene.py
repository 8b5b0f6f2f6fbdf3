from __future__ import annotations

import pytest

from densedpo.world.scene import COLOURS, MOTIONS, SHAPES, all_scenes, draw_scene, parse_caption


def test_a_seed_gives_one_scene_and_another_seed_another() -> None:
    assert draw_scene(7) == draw_scene(7)
    assert len({draw_scene(seed) for seed in range(50)}) == 50


def test_every_caption_is_said_once_and_read_back() -> None:
    captions = [scene.caption for scene in all_scenes()]
    assert len(set(captions)) == len(captions)
    for scene in list(all_scenes())[::97]:
        assert parse_caption(scene.caption) == scene


def test_a_caption_from_elsewhere_is_refused_with_an_example() -> None:
    with pytest.raises(ValueError, match="'a dog runs' is not a sentence of the world; an example"):
        parse_caption("a dog runs")


def test_held_out_combinations_are_disjoint_from_those_of_training() -> None:
    combinations = {scene.combination: scene.split for scene in all_scenes()}
    held_out = {c for c, split in combinations.items() if split == "held_out"}
    drawn = {
        split: {draw_scene(seed, split=split).combination for seed in range(300)} for split in ("train", "held_out")
    }
    assert drawn["held_out"] <= held_out
    assert not drawn["train"] & held_out
    assert 0.05 < len(held_out) / len(combinations) < 0.2


def test_what_is_held_out_is_made_of_words_that_training_sees() -> None:
    train = [scene for scene in all_scenes() if scene.split == "train"]
    assert {scene.shape for scene in train} == set(SHAPES)
    assert {scene.colour for scene in train} == set(COLOURS)
    assert {(scene.motion, scene.direction) for scene in train} == {(m, d) for m in MOTIONS for d in MOTIONS[m]}


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="'test'"):
        draw_scene(0, split="test")
