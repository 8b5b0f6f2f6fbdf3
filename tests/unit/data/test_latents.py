"""Latents are encoded from the clips' videos once for each autoencoder and content."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from densedpo.adapters import load
from densedpo.adapters.base import VideoModel
from densedpo.core.errors import BadInput
from densedpo.core.media import read_mp4, write_mp4
from densedpo.core.records import Clip, read_jsonl
from densedpo.core.workspace import Project, init_project
from densedpo.data.config import DataConfig, WorldConfig
from densedpo.data.latents import encode_clips, latents_path, load_latents
from densedpo.data.world import add_world


@pytest.fixture(scope="module")
def model(toy_model_dir: Path) -> VideoModel:
    return load(toy_model_dir)


@pytest.fixture
def project(tmp_path: Path, model: VideoModel) -> Project:
    project = init_project(tmp_path / "project")
    add_world(project, geometry=model.geometry, config=DataConfig(world=WorldConfig(num_clips=3)))
    return project


def clips_of(project: Project) -> list[Clip]:
    return read_jsonl(project.clips / "clips.jsonl", Clip)


def test_latents_are_those_of_the_frames_in_the_video(project: Project, model: VideoModel) -> None:
    assert encode_clips(project, model, batch=2) == 3
    for clip in clips_of(project):
        frames, _ = read_mp4(project.clips / clip.video, pixel_scale=clip.pixel_scale)
        latents = load_latents(project, clip, model.vae_fingerprint)
        assert tuple(latents.shape) == model.geometry.latent_shape
        assert latents.dtype == torch.float32
        torch.testing.assert_close(latents, model.encode_video(frames[None])[0], atol=1e-4, rtol=1e-4)


def test_what_is_cached_is_not_encoded_again(project: Project, model: VideoModel) -> None:
    encode_clips(project, model, batch=4)
    paths = [latents_path(project, clip, model.vae_fingerprint) for clip in clips_of(project)]
    times = [path.stat().st_mtime_ns for path in paths]
    assert encode_clips(project, model, batch=4) == 0
    assert [path.stat().st_mtime_ns for path in paths] == times
    paths[1].unlink()
    assert encode_clips(project, model, batch=4) == 1


def test_another_autoencoder_has_a_cache_of_its_own(project: Project, model: VideoModel) -> None:
    clip = clips_of(project)[0]
    encode_clips(project, model, batch=4)
    with pytest.raises(BadInput, match=f"no latents of clip '{clip.id}'"):
        load_latents(project, clip, "another")


def test_a_video_that_changed_is_refused(project: Project, model: VideoModel) -> None:
    clip = clips_of(project)[0]
    other = np.zeros((clip.num_frames, clip.height, clip.width, 3), np.uint8)
    write_mp4(project.clips / clip.video, other, fps=clip.fps, pixel_scale=clip.pixel_scale)
    with pytest.raises(BadInput, match=f"{clip.video} is not the video that was added"):
        encode_clips(project, model, batch=4)


def test_damaged_latents_are_named(project: Project, model: VideoModel) -> None:
    encode_clips(project, model, batch=4)
    clip = clips_of(project)[0]
    path = latents_path(project, clip, model.vae_fingerprint)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadInput, match="damaged"):
        load_latents(project, clip, model.vae_fingerprint)
    assert load_latents(project, replace(clips_of(project)[1]), model.vae_fingerprint) is not None
