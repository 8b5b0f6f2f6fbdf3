"""A first frame that is given: what the pipelines that continue an image make of it, at toy size."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from densedpo.adapters import VideoModel, catalogue, load
from densedpo.adapters.base import TextCondition
from densedpo.core.errors import BadInput
from densedpo.core.seeds import noise
from densedpo.generate.sampler import sample
from toy import ToySize, add_lora, toy_frames, toy_scene
from toy_families import FAMILIES, IMAGE_FAMILIES, ToyFamily

CAPTIONS = [toy_scene(0).caption, toy_scene(3).caption]
GUIDANCE_SCALE = 3.0
NUM_STEPS = 4  # divides 1000, as CogVideoX's own sampler wants it
# layouts whose parts the others have between them
SLOW = dict.fromkeys(["CogVideoX 1.5 image", "Wan A14B image"], pytest.mark.slow)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One family: its toy directory, the pipeline that diffusers makes of it, and our model."""

    family: ToyFamily
    folder: Path
    pipeline: DiffusionPipeline
    model: VideoModel


@pytest.fixture(scope="module", params=[pytest.param(n, marks=SLOW.get(n, ())) for n in IMAGE_FAMILIES])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    family = IMAGE_FAMILIES[request.param]
    folder = family.save(tmp_path_factory.mktemp("model"))
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return Case(family=family, folder=folder, pipeline=pipeline, model=load(folder))


def frames_of(model: VideoModel) -> np.ndarray:
    """Two clips of the world at the model's size."""
    size = ToySize(num_frames=model.geometry.num_frames, side=model.geometry.height)
    return np.stack([toy_frames(toy_scene(index), size) for index in (0, 3)])


def start_of(model: VideoModel) -> torch.Tensor:
    return noise((len(CAPTIONS), *model.geometry.latent_shape), "first frame")


def condition(model: VideoModel, frames: np.ndarray) -> TextCondition:
    """Both captions, each with a first frame."""
    return model.encode_text(CAPTIONS).given(model.encode_first(frames))


def ours(model: VideoModel, text: TextCondition) -> torch.Tensor:
    return sample(
        model,
        start=start_of(model),
        sigmas=model.sigmas(NUM_STEPS),
        text=text,
        null_text=model.encode_text([""]),
        guidance_scale=GUIDANCE_SCALE,
    )


def theirs(case: Case, frame: np.ndarray, held: torch.Tensor | None) -> torch.Tensor:
    """The latents that the pipeline's own call makes for both captions from one image."""
    geometry, family = case.model.geometry, case.family
    start = start_of(case.model)
    if "LTX" in family.name:  # its call takes whole latents, first frame and all, or draws them itself
        start = torch.cat([held, start[:, :, held.shape[2] :]], dim=2)
    image = Image.fromarray(frame)
    made = case.pipeline(
        image=image if "Wan" in family.name else [image, image],  # Wan's call takes one for all captions
        prompt=CAPTIONS,
        latents=family.to_pipeline(start, 1.0),
        num_inference_steps=NUM_STEPS,
        num_frames=geometry.num_frames,
        height=geometry.height,
        width=geometry.width,
        output_type="latent",
        guidance_scale=GUIDANCE_SCALE,
        **family.call,
    ).frames
    return family.from_pipeline(made, 0.0)


def test_sampling_is_the_pipelines_own(case: Case) -> None:
    model = case.model
    frame = frames_of(model)[0, 0]
    text = condition(model, np.stack([frame, frame]))
    found = ours(model, text)
    expected = theirs(case, frame, text.first.held)
    assert (found - start_of(model)).abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_the_first_frame_matters_in_its_own_row_alone(case: Case) -> None:
    model, frames = case.model, frames_of(case.model)[:, 0]
    both = ours(model, condition(model, frames))
    first_twice = ours(model, condition(model, frames[[0, 0]]))
    torch.testing.assert_close(both[0], first_twice[0], atol=1e-5, rtol=0)
    rest = model.geometry.num_given_frames
    assert (both[1, :, rest:] - first_twice[1, :, rest:]).abs().max() > 1e-3


def test_a_held_frame_stays_clean_and_is_the_clips_own(case: Case) -> None:
    """What a causal autoencoder makes of the first frame alone is the first latent frame of the whole clip."""
    model, frames = case.model, frames_of(case.model)
    text = condition(model, frames[:, 0])
    if text.first.held is None:
        assert torch.equal(text.hold(start_of(model)), start_of(model))
        return
    torch.testing.assert_close(text.first.held, model.encode_video(frames)[:, :, :1], atol=1e-4, rtol=0)
    assert torch.equal(ours(model, text)[:, :, :1], text.first.held)


def test_a_saved_adapter_reloads_in_the_pipeline(case: Case, tmp_path: Path) -> None:
    model, frame = load(case.folder), frames_of(case.model)[0, 0]
    add_lora(model)
    file = model.save_adapter(tmp_path)
    text = condition(model, np.stack([frame, frame]))
    expected = ours(model, text)
    case.pipeline.load_lora_weights(str(tmp_path), weight_name=file.name, **case.family.adapter_call)
    try:
        found = theirs(case, frame, text.first.held)
    finally:
        case.pipeline.unload_lora_weights()
    assert (ours(case.model, text) - expected).abs().max() > 1e-3
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)


def said(folder: Path, **values: object) -> Path:
    """The folder, with these settings beside its own."""
    file = folder / "densedpo.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}), encoding="utf-8")
    return folder


def test_one_checkpoint_is_two_models(tmp_path: Path) -> None:
    """LTX-Video by its text-to-video index, and told to continue a frame: the other index's model, not its own."""
    plain = load(FAMILIES["LTX-Video"].save(tmp_path / "plain"))
    named = load(IMAGE_FAMILIES["LTX image"].save(tmp_path / "named"))
    told = load(said(FAMILIES["LTX-Video"].save(tmp_path / "told"), first_frame=True))
    assert (plain.geometry.num_given_frames, told.geometry.num_given_frames) == (0, 1)
    assert told.fingerprint == named.fingerprint != plain.fingerprint
    assert told.vae_fingerprint == plain.vae_fingerprint
    text = condition(told, frames_of(told)[:, 0])
    assert torch.equal(ours(told, text), ours(named, text))


def test_a_frame_goes_only_where_one_is_taken(tmp_path: Path) -> None:
    plain = FAMILIES["CogVideoX"].save(tmp_path / "plain")
    model = load(plain)
    frames = frames_of(model)[:, 0]
    with pytest.raises(BadInput, match="takes no first frame"):
        model.encode_first(frames)
    with pytest.raises(BadInput, match="first_frame = true, but this model takes no first frame"):
        catalogue.find(said(plain, first_frame=True))
    image = IMAGE_FAMILIES["CogVideoX image"].save(tmp_path / "image")
    continues = load(image)
    with pytest.raises(ValueError, match="takes no first frame: it is text-to-video"):
        ours(model, model.encode_text(CAPTIONS).given(continues.encode_first(frames)))
    with pytest.raises(ValueError, match="continues a first frame"):
        ours(continues, continues.encode_text(CAPTIONS))
    with pytest.raises(BadInput, match="first_frame = false, but this model continues a first frame always"):
        catalogue.find(said(image, first_frame=False))
