"""Clips of the world: the scene is kept, the splits are the scenes', and seeds decide everything."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from densedpo.adapters.base import Geometry
from densedpo.core.errors import BadInput
from densedpo.core.media import read_mp4
from densedpo.core.records import Clip, Prompt, read_jsonl
from densedpo.core.workspace import Project, init_project
from densedpo.data.config import DataConfig, WorldConfig
from densedpo.data.world import add_world
from densedpo.world.render import render
from densedpo.world.scene import Scene


@pytest.fixture
def geometry_64(geometry: Geometry) -> Geometry:
    return replace(geometry, height=64, width=64)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return init_project(tmp_path / "project")


def config(num_clips: int, seed: int = 0) -> DataConfig:
    return DataConfig(world=WorldConfig(num_clips=num_clips, seed=seed))


def test_a_clip_is_its_scene(project: Project, geometry_64: Geometry) -> None:
    add_world(project, geometry=geometry_64, config=config(5))
    for clip in read_jsonl(project.clips / "clips.jsonl", Clip):
        assert clip.scene is not None
        scene = Scene(**clip.scene)
        frames, fps = read_mp4(project.clips / clip.video, pixel_scale=clip.pixel_scale)
        assert (clip.pixel_scale, fps, clip.caption, clip.scene) == (2, 8.0, scene.caption, asdict(scene))
        assert np.abs(frames.astype(int) - render(scene, num_frames=9, fps=8.0)).mean() < 1.0
    prompts = read_jsonl(project.clips / "prompts.jsonl", Prompt)
    assert all(prompt.scene is not None for prompt in prompts)


def test_held_out_combinations_are_held_out_and_no_others(project: Project, geometry_64: Geometry) -> None:
    summary = add_world(project, geometry=geometry_64, config=config(60))
    clips = read_jsonl(project.clips / "clips.jsonl", Clip)
    for clip in clips:
        assert clip.scene is not None
        assert (clip.split == "held_out") == (Scene(**clip.scene).split == "held_out")
    assert summary.splits["validation"] > 0
    assert summary.splits["held_out"] > 0


def test_the_same_seed_gives_the_same_clips_and_more_of_them_extend_it(
    project: Project, tmp_path: Path, geometry_64: Geometry
) -> None:
    add_world(project, geometry=geometry_64, config=config(3))
    first = (project.clips / "clips.jsonl").read_text()
    add_world(project, geometry=geometry_64, config=config(5))
    assert (project.clips / "clips.jsonl").read_text().startswith(first)
    other = init_project(tmp_path / "other")
    add_world(other, geometry=geometry_64, config=config(5))
    assert (other.clips / "clips.jsonl").read_text() == (project.clips / "clips.jsonl").read_text()
    add_world(other, geometry=geometry_64, config=config(5, seed=1))
    contents = [clip.content for clip in read_jsonl(other.clips / "clips.jsonl", Clip)]
    assert len(set(contents)) == len(contents) == 10


def test_the_world_fits_square_models_only(project: Project, geometry_64: Geometry, geometry: Geometry) -> None:
    with pytest.raises(BadInput, match="square"):
        add_world(project, geometry=replace(geometry_64, width=96), config=config(1))
    add_world(project, geometry=geometry, config=config(1))
    (clip,) = read_jsonl(project.clips / "clips.jsonl", Clip)
    assert read_mp4(project.clips / clip.video, pixel_scale=2)[0].shape == (9, 32, 32, 3)
