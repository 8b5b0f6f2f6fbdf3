"""The contract of an adapter, on the real pipeline of each family at toy size."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file

from densedpo.adapters import VideoModel, catalogue, load
from densedpo.adapters.base import TextCondition, target_scale
from densedpo.core.errors import BadInput
from densedpo.core.paths import noised, velocity, without_signal
from densedpo.core.seeds import noise
from densedpo.generate.sampler import sample
from densedpo.learn.errors import residuals
from densedpo.learn.feed.batch import ClipBatch
from toy import ToySize, add_lora, toy_frames, toy_scene
from toy_families import FAMILIES, VARIANTS, ToyFamily

CAPTIONS = [toy_scene(0).caption, toy_scene(3).caption]
NUM_STEPS = 4


@dataclass(frozen=True, kw_only=True)
class Case:
    """One family: its toy directory and the pipeline that diffusers makes of it."""

    family: ToyFamily
    folder: Path
    pipeline: DiffusionPipeline


@pytest.fixture(scope="module", params=list(FAMILIES))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    family = FAMILIES[request.param]
    folder = family.save(tmp_path_factory.mktemp(family.name))
    return Case(family=family, folder=folder, pipeline=open_pipeline(folder))


@pytest.fixture
def model(case: Case) -> VideoModel:
    return load(case.folder)


def open_pipeline(folder: Path) -> DiffusionPipeline:
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def frames_of(model: VideoModel) -> np.ndarray:
    """One clip of the world at the model's size."""
    size = ToySize(num_frames=model.geometry.num_frames, side=model.geometry.height)
    return toy_frames(toy_scene(0), size)[None]


def start_of(model: VideoModel) -> torch.Tensor:
    """Where the model's sampling of four steps begins."""
    eps = noise((len(CAPTIONS), *model.geometry.latent_shape), "contract")
    return without_signal(eps, model.sigmas(NUM_STEPS)[:1].expand(len(CAPTIONS)))


def ours(model: VideoModel, *, guidance_scale: float = 3.0) -> torch.Tensor:
    return sample(
        model,
        start=start_of(model),
        sigmas=model.sigmas(NUM_STEPS),
        text=model.encode_text(CAPTIONS),
        null_text=model.encode_text([""]),
        guidance_scale=guidance_scale,
    )


def theirs(
    case: Case, model: VideoModel, *, guidance_scale: float = 3.0, pipeline: DiffusionPipeline | None = None
) -> list[torch.Tensor]:
    """The pipeline's latents after each of its steps, on the flow path and in `B C F H W`."""
    geometry, family = model.geometry, case.family
    levels = model.sigmas(NUM_STEPS).tolist()
    seen: list[torch.Tensor] = []

    def keep(_: object, step: int, __: object, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        seen.append(family.from_pipeline(tensors["latents"], levels[step + 1]).clone())
        return tensors

    made = (pipeline or case.pipeline)(
        prompt=CAPTIONS,
        latents=family.to_pipeline(start_of(model), levels[0]),
        num_inference_steps=NUM_STEPS,
        num_frames=geometry.num_frames,
        height=geometry.height,
        width=geometry.width,
        output_type="latent",
        callback_on_step_end=keep,
        **family.call,
        **{family.guidance_argument: guidance_scale},
    ).frames
    torch.testing.assert_close(family.from_pipeline(made, 0.0), seen[-1])
    return seen


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_sampling_from_noise_is_the_pipelines_own(case: Case, model: VideoModel, guidance_scale: float) -> None:
    expected = theirs(case, model, guidance_scale=guidance_scale)[-1]
    found = ours(model, guidance_scale=guidance_scale)
    assert (found - start_of(model)).abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", VARIANTS)
def test_sampling_a_variant_is_the_pipelines_own(name: str, tmp_path: Path) -> None:
    folder = VARIANTS[name].save(tmp_path)
    case, model = Case(family=VARIANTS[name], folder=folder, pipeline=open_pipeline(folder)), load(folder)
    # random weights on eps give latents of some hundreds, so that a float's last bits show
    torch.testing.assert_close(ours(model), theirs(case, model)[-1], atol=1e-4, rtol=1e-5)


def test_each_step_is_the_pipelines_own(case: Case, model: VideoModel) -> None:
    """Each step starts where the pipeline's stood, so that an error in one velocity does not hide in the next."""
    text, null_text = model.encode_text(CAPTIONS), model.encode_text([""])
    levels = pairwise(model.sigmas(NUM_STEPS))
    stops = theirs(case, model)
    for (before, after), stop, (level, next_level) in zip(
        [(start_of(model), stops[0]), *pairwise(stops)], stops, levels, strict=True
    ):
        found = sample(
            model,
            start=before,
            sigmas=torch.stack([level, next_level]),
            text=text,
            null_text=null_text,
            guidance_scale=3.0,
        )
        assert stop is after
        torch.testing.assert_close(found, after, atol=5e-5, rtol=0)


def test_decoding_is_the_pipelines_own(case: Case, model: VideoModel) -> None:
    frames = frames_of(model)
    latents = model.encode_video(frames)
    raw = case.family.encode(case.pipeline, torch.from_numpy(frames).permute(0, 4, 1, 2, 3) / 127.5 - 1)
    torch.testing.assert_close(latents, case.family.normalise(case.pipeline.vae, raw))
    expected = case.family.decode(case.pipeline, raw)
    video = case.pipeline.video_processor.postprocess_video(expected, output_type="np")[0]
    difference = np.abs(model.decode_latents(latents)[0].astype(int) - np.rint(video * 255).astype(int))
    assert difference.max() <= 1


def test_shapes_follow_the_geometry(model: VideoModel) -> None:
    geometry = model.geometry
    shape = (2, geometry.num_frames, geometry.height, geometry.width, 3)
    latents = model.encode_video(np.zeros(shape, dtype=np.uint8))
    assert latents.shape == (2, *geometry.latent_shape)
    decoded = model.decode_latents(latents)
    assert (decoded.shape, decoded.dtype) == (shape, np.uint8)
    with pytest.raises(BadInput, match="takes uint8 clips"):
        model.encode_video(np.zeros((1, 5, 32, 32, 3), dtype=np.uint8))


def test_predict_does_not_mix_rows(model: VideoModel) -> None:
    x, t, text = start_of(model), torch.tensor([0.9, 0.2]), model.encode_text(CAPTIONS)
    with torch.no_grad():
        together = model.predict(x, t, text)
        alone = [model.predict(x[i : i + 1], t[i : i + 1], model.encode_text([CAPTIONS[i]])) for i in range(2)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


def test_the_caption_and_t_matter(model: VideoModel) -> None:
    x, t, text = start_of(model), torch.tensor([0.9, 0.9]), model.encode_text(CAPTIONS)
    with torch.no_grad():
        found = model.predict(x, t, text)
        assert (model.predict(x, t, text.rows(torch.tensor([1, 0]))) - found).abs().max() > 1e-4
        assert (model.predict(x, t - 0.5, text) - found).abs().max() > 1e-4


@pytest.mark.parametrize("num_steps", [4, 5])
def test_sigmas_run_from_the_last_level_to_zero(case: Case, model: VideoModel, num_steps: int) -> None:
    """That is 1, pure noise, or by the spacing `leading` timestep 751 of four steps at 0.80, 801 of five at 0.84."""
    sigmas = model.sigmas(num_steps)
    assert sigmas.shape == (num_steps + 1,)
    assert float(sigmas[0]) == pytest.approx(case.family.last_level, abs=0.03 if case.family.last_level < 1 else 0)
    assert float(sigmas[-1]) == 0
    assert sigmas[0] <= model.trained_t[1] or model.trained_t[1] < sigmas[0] == 1
    assert bool((sigmas.diff() < 0).all())


def test_residuals_are_in_the_models_own_target(model: VideoModel) -> None:
    """The residual is the velocity's times `target_scale`, whatever the model predicts."""
    x, eps, t = start_of(model), noise(tuple(start_of(model).shape), "eps"), torch.tensor([0.8, 0.3])
    text = model.encode_text(CAPTIONS)
    with torch.no_grad():
        found = residuals(model, ClipBatch(latents=x, noise=eps, t=t, text=text))
        expected = model.predict(noised(x, eps, t), t, text) - velocity(x, eps)
    torch.testing.assert_close(found, expected * target_scale(model.target, t)[:, None, None, None, None])


def test_the_noise_path_is_the_schedulers(case: Case, model: VideoModel) -> None:
    """Noising a clip to a level of the schedule, as guided pairs do, is the scheduler's own noising."""
    x, eps = start_of(model), noise(tuple(start_of(model).shape), "eps")
    scheduler, family = case.pipeline.scheduler, case.family
    levels = model.sigmas(NUM_STEPS)
    theirs(case, model)  # sets the scheduler's timesteps
    for step, level in enumerate(levels[:-1]):
        found = family.to_pipeline(noised(x, eps, level.expand(len(x))), float(level))
        timesteps = scheduler.timesteps[step].expand(len(x))
        expected = family.noised(scheduler, family.to_pipeline(x, 0.0), family.to_pipeline(eps, 1.0), timesteps)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_half_precision_stays_close(case: Case, model: VideoModel) -> None:
    x, t = start_of(model), torch.tensor([0.7, 0.4])
    half = load(case.folder, dtype=torch.bfloat16)
    with torch.no_grad():
        expected = model.predict(x, t, model.encode_text(CAPTIONS))
        found = half.predict(x, t, half.encode_text(CAPTIONS))
    assert found.dtype == torch.float32
    assert (found - expected).norm() < 0.05 * expected.norm()


def test_computing_activations_again_changes_no_gradient(model: VideoModel) -> None:
    add_lora(model)
    x, t, text = start_of(model), torch.tensor([0.7, 0.4]), model.encode_text(CAPTIONS)

    def gradients() -> list[torch.Tensor]:
        model.denoiser.zero_grad()
        model.predict(x, t, text).square().mean().backward()
        return [p.grad.clone() for p in model.denoiser.parameters() if p.requires_grad and p.grad is not None]

    kept = gradients()
    model.denoiser.train()
    model.denoiser.enable_gradient_checkpointing()
    again = gradients()
    assert len(again) == len(kept) > 0
    for one, other in zip(kept, again, strict=True):
        torch.testing.assert_close(one, other)


def test_adapter_off_is_the_base_bit_for_bit(model: VideoModel) -> None:
    before = ours(model)
    add_lora(model)
    assert (ours(model) - before).abs().max() > 1e-3
    model.denoiser.disable_adapters()
    assert torch.equal(ours(model), before)


def test_every_lora_target_is_a_layer_and_learns(model: VideoModel) -> None:
    add_lora(model)
    adapted = {name for name, module in model.denoiser.named_modules() if isinstance(module, BaseTunerLayer)}
    for target in model.lora_targets:
        assert any(name.endswith(target) for name in adapted), target
    model.predict(start_of(model), torch.tensor([0.7, 0.4]), model.encode_text(CAPTIONS)).square().mean().backward()
    trained = {name: p for name, p in model.denoiser.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in trained)
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in trained.values())
    assert sum(bool(p.grad.abs().max() > 0) for p in trained.values()) > len(trained) // 2


def test_loading_an_adapter_replaces_the_one_that_is_there(case: Case, model: VideoModel, tmp_path: Path) -> None:
    add_lora(model, seed=1)
    model.save_adapter(tmp_path)
    other = load(case.folder)
    add_lora(other, seed=2)
    other.denoiser.disable_adapters()
    other.load_adapter(tmp_path)
    assert torch.equal(ours(other), ours(model))


def test_a_saved_adapter_reloads_in_the_pipeline_and_here(case: Case, model: VideoModel, tmp_path: Path) -> None:
    add_lora(model)
    file = model.save_adapter(tmp_path)
    expected = ours(model)
    pipeline = open_pipeline(case.folder)
    pipeline.load_lora_weights(str(tmp_path), weight_name=file.name, **case.family.adapter_call)
    torch.testing.assert_close(theirs(case, model, pipeline=pipeline)[-1], expected, atol=2e-4, rtol=0)
    again = load(case.folder)
    again.load_adapter(tmp_path)
    assert torch.equal(ours(again), expected)


def test_the_directory_answers_without_torch(case: Case, model: VideoModel) -> None:
    code = (
        "import sys; from densedpo.adapters import catalogue; f = sys.argv[1]; "
        "print(catalogue.geometry(f).latent_shape, catalogue.fingerprint(f), catalogue.vae_fingerprint(f), "
        "catalogue.defaults(f).num_steps, 'torch' in sys.modules or 'diffusers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(case.folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (
        f"{model.geometry.latent_shape} {model.fingerprint} {model.vae_fingerprint} {model.defaults.num_steps} False"
    )


def test_a_model_without_its_weights_is_refused(case: Case, tmp_path: Path) -> None:
    for source in case.folder.rglob("*.json"):
        target = tmp_path / source.relative_to(case.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    with pytest.raises(BadInput, match=r"holds no \.safetensors file"):
        catalogue.find(tmp_path)
    denoiser = catalogue.family_of(tmp_path).denoisers(tmp_path)[0]
    (tmp_path / denoiser / "diffusion_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(BadInput, match=r"diffusion_pytorch_model\.bin is a pickle"):
        catalogue.find(tmp_path)


def test_a_lora_of_another_model_is_refused(case: Case, model: VideoModel, tmp_path: Path) -> None:
    """Another family's layer names, and another width; the adapter that is there stays."""
    add_lora(model)
    before = ours(model)
    weights = load_file(model.save_adapter(tmp_path / "own"))
    renamed = {key.replace(".", ".other_", 1): tensor for key, tensor in weights.items()}
    narrow = {key: tensor[:, 1:].contiguous() if "lora_A" in key else tensor for key, tensor in weights.items()}
    for wrong, words in ((renamed, "the denoiser has no layer other_"), (narrow, "does not fit this model: .* wide")):
        save_file(wrong, tmp_path / "wrong.safetensors")
        with pytest.raises(BadInput, match=words):
            model.load_adapter(tmp_path / "wrong.safetensors")
    assert torch.equal(ours(model), before)


def test_components_are_read_when_used_and_again_after_they_were_freed(case: Case, tmp_path: Path) -> None:
    """Encoding needs no denoiser, predicting needs no encoder: what is not used is not missed."""
    copy = Path(shutil.copytree(case.folder, tmp_path / "model"))
    model = load(copy)
    for denoiser in catalogue.family_of(copy).denoisers(copy):
        for weights in (copy / denoiser).glob("*.safetensors"):
            weights.unlink()
    latents, text = model.encode_video(frames_of(model)), model.encode_text(CAPTIONS)
    with pytest.raises(BadInput, match="does not load"):
        model.predict(start_of(model), torch.tensor([0.5, 0.5]), text)
    model.free_encoders()
    assert torch.equal(model.encode_video(frames_of(model)), latents)
    assert torch.equal(model.encode_text(CAPTIONS).embeds, text.embeds)
    model.free_encoders()
    for weights in [*copy.glob("vae/*.safetensors"), *copy.glob("text_encoder*/*.safetensors")]:
        weights.unlink()
    for use in (lambda: model.encode_video(frames_of(model)), lambda: model.encode_text(CAPTIONS)):
        with pytest.raises(BadInput, match="does not load"):
            use()


def test_a_caption_is_encoded_once_for_all_and_as_it_is_alone(case: Case, model: VideoModel, tmp_path: Path) -> None:
    """What was kept is the encoder's bit for bit, and serves where no encoder can be loaded any more."""
    copy, kept = Path(shutil.copytree(case.folder, tmp_path / "model")), tmp_path / "captions"
    fresh = model.encode_text(CAPTIONS)
    first = load(copy, captions=kept)
    assert same(first.encode_text(CAPTIONS[:1]), fresh.rows(torch.tensor([0])))
    first.encode_ahead(CAPTIONS)
    load(copy, captions=kept, dtype=torch.bfloat16).encode_text(CAPTIONS[:1])
    assert sorted(len(list(folder.iterdir())) for folder in kept.iterdir()) == [1, 2]  # a folder for each precision

    other = load(copy, captions=kept)
    for weights in copy.glob("text_encoder*/*.safetensors"):
        weights.unlink()
    assert same(other.encode_text([*CAPTIONS[::-1], CAPTIONS[0]]), fresh.rows(torch.tensor([1, 0, 0])))
    for one in (first, other):  # the first has let its encoder go
        with pytest.raises(BadInput, match="does not load"):
            one.encode_text(["a red circle"])


def same(one: TextCondition, other: TextCondition) -> bool:
    """Whether two conditions are the same bits."""
    pairs = ((one.embeds, other.embeds), (one.mask, other.mask), (one.pooled, other.pooled))
    return all(a is b is None or torch.equal(a, b) for a, b in pairs)
