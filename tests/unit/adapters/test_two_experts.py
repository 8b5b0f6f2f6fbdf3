"""Wan 2.2's two denoisers: which of them answers, which is trained, and where t is drawn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from densedpo.adapters import VideoModel, catalogue, load
from densedpo.adapters.sparse_causal import sparse_causal_of, use_sparse_causal
from densedpo.core.errors import BadInput
from densedpo.core.seeds import noise
from toy import add_lora
from toy_families import WAN_TWO_EXPERTS

CAPTION = "a small red circle"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return WAN_TWO_EXPERTS.save(tmp_path_factory.mktemp("experts"))


@pytest.fixture
def model(folder: Path) -> VideoModel:
    return load(folder)


def predicted(model: VideoModel, *times: float) -> torch.Tensor:
    x = noise(model.geometry.latent_shape, "experts").expand(len(times), -1, -1, -1, -1)
    with torch.no_grad():
        return model.predict(x, torch.tensor(times), model.encode_text([CAPTION] * len(times)))


def test_the_lora_is_on_the_low_noise_expert_alone(model: VideoModel) -> None:
    """The boundary is 0.875, and the expert of high noise answers from there on."""
    times = (0.874, 0.875, 0.2, 1.0)
    before = predicted(model, *times)
    add_lora(model)
    after = predicted(model, *times)
    changed = [bool((found - base).abs().max() > 1e-4) for found, base in zip(after, before, strict=True)]
    assert changed == [True, False, True, False]
    assert model.trained_t == (0.0, 0.875)


def test_below_the_boundary_the_expert_of_high_noise_is_not_loaded(folder: Path, tmp_path: Path) -> None:
    """As in training, where no t lies above it: half of the weights stay on disk."""
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    model = load(copy)
    for weights in (copy / "transformer").glob("*.safetensors"):
        weights.unlink()
    add_lora(model)
    assert bool(predicted(model, 0.874, 0.2).isfinite().all())
    with pytest.raises(BadInput, match="does not load"):
        predicted(model, 0.874, 0.875)


def test_rows_come_back_in_their_order(model: VideoModel) -> None:
    times = (0.9, 0.1, 1.0, 0.5)
    alone = torch.cat([predicted(model, t) for t in times])
    torch.testing.assert_close(predicted(model, *times), alone, atol=1e-5, rtol=0)


def test_settings_ask_for_sparse_causal_attention_of_both_experts_at_any_length(folder: Path, tmp_path: Path) -> None:
    """It is another model of the same weights, whatever the kernel; the reference is the masked one, set by hand."""
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    settings = copy / "densedpo.json"
    own = json.loads(settings.read_text())
    settings.write_text(json.dumps(own | {"sparse_causal": "masked"}))
    fingerprint = catalogue.fingerprint(copy)
    settings.write_text(json.dumps(own | {"sparse_causal": "gathered"}))
    assert fingerprint == catalogue.fingerprint(copy) != catalogue.fingerprint(folder)

    full, sparse = load(folder), load(copy)
    channels, frames, rows, columns = full.geometry.latent_shape
    x = noise((2, channels, frames + 3, rows, columns), "longer")
    t, text = torch.tensor([0.9, 0.3]), full.encode_text([CAPTION] * 2)
    with torch.no_grad():
        found, before = sparse.predict(x, t, text), full.predict(x, t, text)
        for expert in (full._high_noise, full._low_noise):
            use_sparse_causal(expert, num_frames=frames + 3, kernel="masked")
        expected = full.predict(x, t, text)
    assert sparse_causal_of(sparse.denoiser) == "gathered"
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (found - before).flatten(1).abs().amax(1).min() > 1e-4


def test_a_second_expert_changes_the_fingerprint(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    index = copy / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"boundary_ratio": 0.9}))
    assert catalogue.fingerprint(copy) != catalogue.fingerprint(folder)
    assert catalogue.vae_fingerprint(copy) == catalogue.vae_fingerprint(folder)


def test_half_a_model_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    shutil.rmtree(copy / "transformer_2")
    with pytest.raises(BadInput, match="transformer_2 is missing"):
        catalogue.find(copy)
