"""The contract of an adapter, on a real `WanPipeline` at toy size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanPipeline
from safetensors import safe_open

from densedpo.adapters import VideoModel, load
from densedpo.core.errors import BadInput
from densedpo.core.seeds import noise
from densedpo.generate.sampler import sample
from toy import SHIPPED, add_lora, toy_frames, toy_scene

CAPTIONS = [toy_scene(0).caption, toy_scene(1).caption]


@pytest.fixture
def model(toy_model_dir: Path) -> VideoModel:
    return load(toy_model_dir)


@pytest.fixture(scope="module")
def pipeline(toy_model_dir: Path) -> WanPipeline:
    pipeline = WanPipeline.from_pretrained(toy_model_dir, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def start_of(model: VideoModel) -> torch.Tensor:
    return noise((len(CAPTIONS), *model.geometry.latent_shape), "contract")


def ours(model: VideoModel, *, guidance_scale: float = 3.0) -> torch.Tensor:
    return sample(
        model,
        start=start_of(model),
        sigmas=model.sigmas(4),
        text=model.encode_text(CAPTIONS),
        null_text=model.encode_text([""]),
        guidance_scale=guidance_scale,
    )


def theirs(pipeline: WanPipeline, model: VideoModel, *, guidance_scale: float = 3.0) -> torch.Tensor:
    geometry = model.geometry
    return pipeline(
        prompt=CAPTIONS,
        negative_prompt="",
        latents=start_of(model),
        num_inference_steps=4,
        guidance_scale=guidance_scale,
        num_frames=geometry.num_frames,
        height=geometry.height,
        width=geometry.width,
        max_sequence_length=geometry.max_sequence_length,
        output_type="latent",
    ).frames


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_sampling_from_noise_is_the_pipelines_own(
    model: VideoModel, pipeline: WanPipeline, guidance_scale: float
) -> None:
    expected = theirs(pipeline, model, guidance_scale=guidance_scale)
    found = ours(model, guidance_scale=guidance_scale)
    assert (found - start_of(model)).abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_decoding_is_the_pipelines_own(model: VideoModel, pipeline: WanPipeline) -> None:
    latents = model.encode_video(toy_frames(toy_scene(0))[None])
    raw = latents * torch.tensor(pipeline.vae.config.latents_std).view(1, -1, 1, 1, 1)
    raw = raw + torch.tensor(pipeline.vae.config.latents_mean).view(1, -1, 1, 1, 1)
    with torch.no_grad():
        video = pipeline.video_processor.postprocess_video(pipeline.vae.decode(raw).sample, output_type="np")[0]
    difference = np.abs(model.decode_latents(latents)[0].astype(int) - np.rint(video * 255).astype(int))
    assert difference.max() <= 1


def test_encoding_normalises_by_the_configs_statistics(model: VideoModel, pipeline: WanPipeline) -> None:
    frames = toy_frames(toy_scene(0))
    with torch.no_grad():
        raw = pipeline.vae.encode(torch.from_numpy(frames).permute(3, 0, 1, 2)[None] / 127.5 - 1).latent_dist.mode()
    mean, std = (torch.tensor(pipeline.vae.config[key]).view(1, -1, 1, 1, 1) for key in ("latents_mean", "latents_std"))
    torch.testing.assert_close(model.encode_video(frames[None]), (raw - mean) / std)


@pytest.mark.parametrize("size", ["toy_model_dir", "toy_model_dir_64"])
def test_shapes_follow_the_geometry(size: str, request: pytest.FixtureRequest) -> None:
    model = load(request.getfixturevalue(size))
    geometry = model.geometry
    shape = (2, geometry.num_frames, geometry.height, geometry.width, 3)
    latents = model.encode_video(np.zeros(shape, dtype=np.uint8))
    assert latents.shape == (2, *geometry.latent_shape)
    decoded = model.decode_latents(latents)
    assert decoded.shape == shape
    assert decoded.dtype == np.uint8


def test_clips_of_another_size_are_refused(model: VideoModel) -> None:
    with pytest.raises(BadInput, match=r"\(9, 32, 32, 3\)"):
        model.encode_video(toy_frames(toy_scene(0), SHIPPED)[None])


def test_predict_does_not_mix_rows(model: VideoModel) -> None:
    x, t, text = start_of(model), torch.tensor([0.9, 0.2]), model.encode_text(CAPTIONS)
    with torch.no_grad():
        together = model.predict(x, t, text)
        alone = [model.predict(x[i : i + 1], t[i : i + 1], model.encode_text([CAPTIONS[i]])) for i in range(2)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


def test_sigmas_run_from_one_to_zero(model: VideoModel) -> None:
    sigmas = model.sigmas(6)
    assert sigmas.shape == (7,)
    assert sigmas[0] == 1
    assert sigmas[-1] == 0
    assert bool((sigmas.diff() < 0).all())


def test_adapter_off_is_the_base_bit_for_bit(model: VideoModel) -> None:
    before = ours(model)
    add_lora(model)
    assert (ours(model) - before).abs().max() > 1e-3
    model.denoiser.disable_adapters()
    assert torch.equal(ours(model), before)


@pytest.mark.parametrize("name", ["", "adapter.safetensors"])
def test_a_saved_adapter_reloads_in_the_pipeline(
    model: VideoModel, toy_model_dir: Path, tmp_path: Path, name: str
) -> None:
    add_lora(model)
    file = model.save_adapter(tmp_path / name)
    pipeline = WanPipeline.from_pretrained(toy_model_dir, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(str(tmp_path), weight_name=file.name)
    expected = ours(model)
    torch.testing.assert_close(theirs(pipeline, model), expected, atol=1e-4, rtol=0)
    again = load(toy_model_dir)
    again.load_adapter(tmp_path / name)
    assert torch.equal(ours(again), expected)


def test_the_same_adapter_is_the_same_file_in_every_process(model: VideoModel, tmp_path: Path) -> None:
    """What peft holds as a set, whose order hangs on the process, is sorted in the file."""
    add_lora(model)
    with safe_open(model.save_adapter(tmp_path), "pt") as file:
        metadata = json.loads(file.metadata()["lora_adapter_metadata"])
    assert metadata["transformer.target_modules"] == sorted(model.lora_targets)
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_lora_weights.safetensors"]


def test_loading_an_adapter_replaces_the_one_that_is_there(
    model: VideoModel, toy_model_dir: Path, tmp_path: Path
) -> None:
    add_lora(model, seed=1)
    model.save_adapter(tmp_path)
    other = load(toy_model_dir)
    add_lora(other, seed=2)
    other.denoiser.disable_adapters()
    other.load_adapter(tmp_path)
    assert torch.equal(ours(other), ours(model))


def test_words_outside_the_vocabulary_are_warned_of_once(model: VideoModel, caplog: pytest.LogCaptureFixture) -> None:
    model.encode_text([toy_scene(0).caption, ""])
    assert not caplog.records
    model.encode_text(["a small red dragon slides home", "a dragon falls"])
    model.encode_text(["a dragon"])
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == ["dragon, home"]


def test_text_is_zero_after_its_last_token(model: VideoModel, pipeline: WanPipeline) -> None:
    with torch.no_grad():
        expected, _ = pipeline.encode_prompt(CAPTIONS, None, do_classifier_free_guidance=False, max_sequence_length=24)
    embeds = model.encode_text(CAPTIONS).embeds
    assert embeds.shape[1] == model.geometry.max_sequence_length
    torch.testing.assert_close(embeds, expected)
    assert bool((embeds[0, len(CAPTIONS[0].split()) + 1 :] == 0).all())
