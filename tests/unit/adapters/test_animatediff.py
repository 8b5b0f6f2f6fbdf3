"""What is AnimateDiff's own beside the contract: the end of its schedule, a first frame, its attention, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from command_line import densedpo
from densedpo.adapters import VideoModel, catalogue, load
from densedpo.adapters.sparse_causal import sparse_causal_of, use_sparse_causal
from densedpo.core.errors import BadInput
from densedpo.core.paths import eta_to_alpha_bar, noise_levels, path_norm, timestep_at, without_signal
from densedpo.core.seeds import noise
from densedpo.generate.sampler import sample
from toy import SMALL, add_lora, toy_frames, toy_scene
from toy_families import FAMILIES

CAPTION = toy_scene(0).caption


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FAMILIES["AnimateDiff"].save(tmp_path_factory.mktemp("model"))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "model"))


def change(path: Path, **keys: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def test_an_eta_meets_the_schedule_by_its_ratio_of_noise_to_signal() -> None:
    """abar of eta, and the level of that abar, is eta again; between two trained levels the timestep is between."""
    eta = torch.tensor([0.2, 0.65, 0.8])
    torch.testing.assert_close(noise_levels(eta_to_alpha_bar(eta)), eta)
    levels = torch.tensor([0.1, 0.3, 0.7])
    found = timestep_at(levels, torch.tensor([0.0, 0.1, 0.2, 0.6, 0.7, 1.0]))
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, 0.5, 1.75, 2.0, 2.0]))


def test_where_nothing_was_trained_the_last_level_answers(folder: Path) -> None:
    """Pure noise is taken for the last level's: the same z there gives the same eps and x, so the same velocity."""
    model = load(folder)
    low, last = model.trained_t
    assert (low, last) == pytest.approx((0.0284, 0.936), abs=1e-3)  # Stable Diffusion 1's, by hand from its abar
    z, text = noise((1, *model.geometry.latent_shape), "z"), model.encode_text([CAPTION])
    with torch.no_grad():
        at_one, at_last = (model.predict(z * path_norm(t), t, text) for t in (torch.ones(1), torch.tensor([last])))
    torch.testing.assert_close(at_one, at_last, atol=1e-4, rtol=1e-4)


def test_a_given_first_frame_is_seen_clean_at_every_level_and_stays(copy: Path) -> None:
    """It is not scaled with what is noised beside it, and the sampler keeps it bit for bit."""
    change(copy / "densedpo.json", first_frame=True)
    model = load(copy)
    assert model.geometry.num_given_frames == 1
    assert model.fingerprint != load(FAMILIES["AnimateDiff"].save(copy.parent / "other")).fingerprint
    frames = np.stack([toy_frames(toy_scene(index), SMALL)[0] for index in (0, 3)])
    text = model.encode_text([CAPTION, CAPTION]).given(model.encode_first(frames))
    held = text.first.held
    torch.testing.assert_close(
        held[:1], model.encode_video(toy_frames(toy_scene(0), SMALL)[None])[:, :, :1], atol=1e-5, rtol=0
    )
    seen: list[torch.Tensor] = []
    model.denoiser.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["sample"]), with_kwargs=True)
    sigmas = model.sigmas(3)
    eps = noise((2, *model.geometry.latent_shape), "eps")
    start = without_signal(eps, sigmas[:1].expand(2))
    call = {"sigmas": sigmas, "null_text": model.encode_text([""]), "guidance_scale": 1.0}
    found = sample(model, start=start, text=text, **call)
    assert len(seen) == 3
    assert all(torch.equal(each[:, :, :1], held) for each in [*seen, found])
    torch.testing.assert_close(seen[0][:, :, 1:], eps[:, :, 1:], atol=1e-6, rtol=0)
    other = sample(model, start=start, text=text.rows(torch.tensor([1, 1])), **call)
    assert (other[0, :, 1:] - found[0, :, 1:]).abs().max() > 1e-3
    torch.testing.assert_close(other[1], found[1], atol=1e-5, rtol=0)


def test_with_motion_modules_that_end_in_zero_it_is_its_image_model_frame_by_frame(folder: Path) -> None:
    """How an image model is inflated for stage 1 of HuViDPO: a frame of a clip is what it is by itself."""
    model = load(folder)
    x, t, text = noise((1, *model.geometry.latent_shape), "x"), torch.tensor([0.7]), model.encode_text([CAPTION])
    before = predicted(model, x, t, text)
    parameters = model.denoiser.named_parameters()
    ends = [each for name, each in parameters if ".motion_modules." in name and ".proj_out." in name]
    assert ends
    for parameter in ends:
        parameter.zero_()
    found = predicted(model, x, t, text)
    alone = torch.cat([predicted(model, x[:, :, i : i + 1], t, text) for i in range(x.shape[2])], dim=2)
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)
    assert (before - found).abs().max() > 1e-3


def test_a_text_to_video_model_takes_no_first_frame(folder: Path) -> None:
    with pytest.raises(BadInput, match="takes no first frame"):
        load(folder).encode_first(np.zeros((1, 32, 32, 3), dtype=np.uint8))


def test_the_spatial_attention_becomes_sparse_causal_and_trains(folder: Path) -> None:
    """Four layers: one down, one in the middle, two up; those over time stay. The reference is the masked kernel."""
    model = load(folder)
    add_lora(model)
    x, t, text = (
        noise((2, *model.geometry.latent_shape), "x"),
        torch.tensor([0.7, 0.4]),
        model.encode_text([CAPTION] * 2),
    )

    def gradients(kernel: str) -> tuple[torch.Tensor, list[torch.Tensor]]:
        assert use_sparse_causal(model.denoiser, num_frames=9, kernel=kernel) == 4
        assert sparse_causal_of(model.denoiser) == kernel
        velocity = model.predict(x, t, text)
        trained = [p for p in model.denoiser.parameters() if p.requires_grad]
        return velocity, list(torch.autograd.grad(velocity.square().mean(), trained))

    full = predicted(model, x, t, text)
    found, expected = gradients("gathered"), gradients("masked")
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-5)
    assert (found[0] - full).abs().max() > 1e-3
    for one, other in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_its_settings_ask_for_sparse_causal_attention_at_any_length(folder: Path, copy: Path) -> None:
    """It is another model of the same weights, whatever the kernel; clips of five frames do not mix in its batch."""
    change(copy / "densedpo.json", sparse_causal="gathered")
    plain, model = load(folder), load(copy)
    assert sparse_causal_of(model.denoiser) == "gathered"
    assert model.fingerprint != plain.fingerprint
    change(copy / "densedpo.json", sparse_causal="masked")
    assert catalogue.fingerprint(copy) == model.fingerprint
    channels, _, rows, columns = model.geometry.latent_shape
    x, t = noise((9, channels, 5, rows, columns), "x"), torch.linspace(0.1, 0.9, 9)
    text = model.encode_text([CAPTION] * 9)
    found = predicted(model, x, t, text)
    torch.testing.assert_close(
        found[4:5], predicted(model, x[4:5], t[4:5], text.rows(torch.tensor([4]))), atol=1e-4, rtol=1e-4
    )
    use_sparse_causal(plain.denoiser, num_frames=5, kernel="masked")
    torch.testing.assert_close(found, predicted(plain, x, t, text), atol=1e-4, rtol=1e-4)


def predicted(model: VideoModel, x: torch.Tensor, t: torch.Tensor, text) -> torch.Tensor:
    with torch.no_grad():
        return model.predict(x, t, text)


@pytest.mark.parametrize(
    ("file", "keys", "words"),
    [
        ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}, "prediction_type is 'v_prediction'"),
        ("scheduler/scheduler_config.json", {"clip_sample": True}, "clip_sample is True"),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr is True"),
        ("unet/config.json", {"in_channels": 9}, "in_channels is 9; only the clip's own 4"),
        ("unet/config.json", {"addition_embed_type": "text_time"}, "addition_embed_type is 'text_time'"),
        ("densedpo.json", {"num_frames": 33}, "takes clips of 32 frames at most"),
        ("densedpo.json", {"max_sequence_length": 77}, "max_sequence_length = 77, but the model's tokenizer has 24"),
        ("model_index.json", {"unet": ["diffusers", "UNet2DConditionModel"]}, "unet is UNet2DConditionModel"),
    ],
)
def test_what_the_adapter_cannot_run_is_refused(copy: Path, file: str, keys: dict[str, object], words: str) -> None:
    change(copy / file, **keys)
    with pytest.raises(BadInput, match=words):
        catalogue.find(copy)


def test_doctor_tells_its_size(folder: Path) -> None:
    """9 frames of 16x16 cells; the finest level has 16 channels and three blocks of three parts.

    A part is 9 * 256 * 16 = 36,864 numbers, at the second level of 8x8 a quarter. Three blocks of convolutions, places
    and time at the first, three of convolutions and time at the second, four parts in the middle: 9 and 10 quarters.
    """
    done = densedpo("doctor", folder, "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)["model"]
    assert (report["family"], report["temporal_stride"], report["spatial_stride"]) == ("AnimateDiff", 1, 2)
    assert (report["latents"], report["num_tokens"]) == ([4, 9, 16, 16], 9 * 256)
    assert report["parameters"]["unet"] == sum(tensor.numel() for tensor in load(folder).denoiser.state_dict().values())
    assert report["missing"] is None
    uses = {use["name"]: use["activations_gib"] * 2**30 for use in report["uses"]}
    part = 9 * 256 * 16
    assert uses["training, a pair at once"] == pytest.approx(2 * (9 + 10 / 4) * part * 34 * 4 / 2)
    assert uses["pairs, both halves at once"] == pytest.approx(2 * part * 34 * 4 / 2)
