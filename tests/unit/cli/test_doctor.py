"""`densedpo doctor MODEL`: what a directory says of itself, checked against the loaded model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from command_line import densedpo
from densedpo.adapters import catalogue, load
from densedpo.adapters.base import Geometry
from densedpo.adapters.footprint import ComponentSize, Footprint, read_footprint
from toy import add_lora


def report_of(folder: Path) -> dict[str, object]:
    done = densedpo("doctor", folder, "--json")
    assert (done.code, done.err) == (0, "")
    return json.loads(done.out)["model"]


def test_it_counts_what_would_be_loaded(toy_model_dir: Path) -> None:
    """The LoRA of rank 4 that peft makes is 4/128 of the one that is told."""
    report, model = report_of(toy_model_dir), load(toy_model_dir)
    num_parameters = sum(parameter.numel() for parameter in model.denoiser.parameters())
    assert report["parameters"]["transformer"] == num_parameters
    add_lora(model)
    num_lora = sum(p.numel() for name, p in model.denoiser.named_parameters() if "lora_" in name)
    assert report["lora_parameters"] == 128 // 4 * num_lora
    assert report["family"] == "Wan"
    assert report["latents"] == list(model.geometry.latent_shape)
    assert report["num_tokens"] == 3 * 2 * 2  # 9 frames of 32x32 are 3 x 4 x 4 latent cells, a token takes 2 x 2
    assert report["missing"] is None


def test_memory_is_the_arithmetic_that_it_says() -> None:
    """10 tokens of 100 channels, 5 layers, 16 bit: a layer keeps 10 * 100 * 34 bytes a clip, its input 10 * 100 * 2.

    Weights: 1000 of the denoiser in 2 bytes, and for pairs 10 of the autoencoder in 4; the text encoder's 900 are gone
    before the denoiser's come. The LoRA of rank 3 has 3 * 7 parameters.
    """
    found = Footprint(
        family="any",
        geometry=Geometry(
            num_frames=1, height=8, width=8, fps=8, temporal_stride=4, spatial_stride=8, latent_channels=4,
            max_sequence_length=8,
        ),
        components=(
            ComponentSize(folder="transformer", num_parameters=1000),
            ComponentSize(folder="vae", num_parameters=10),
            ComponentSize(folder="text_encoder", num_parameters=900),
        ),
        denoisers=("transformer",),
        num_tokens=10,
        largest_layer=1000,
        all_layers=5000,
        lora_per_rank=7,
        missing=None,
    )  # fmt: skip
    pairs = found.for_pairs(value_bytes=2)
    assert (pairs.weights, pairs.adapter, pairs.activations) == (2040, 0, 2 * 34_000)
    kept = found.for_training(value_bytes=2, rank=3, recomputed=False)
    assert (kept.adapter, kept.activations) == (16 * 21, 2 * 5 * 34_000)
    again = found.for_training(value_bytes=2, rank=3, recomputed=True)
    assert again.activations == 2 * (5 * 2000 + 34_000)
    assert again.total == 2000 + 336 + 88_000
    apart = found.for_training(value_bytes=2, rank=3, recomputed=True, clips=1)
    assert apart.activations == 44_000
    two = (*found.components, ComponentSize(folder="transformer_2", num_parameters=1000))
    experts = replace(found, components=two, denoisers=("transformer", "transformer_2"))
    assert experts.for_pairs(value_bytes=2).weights == 4040
    assert experts.for_training(value_bytes=2, rank=3, recomputed=True).weights == 2000
    larger = (*found.components[:2], ComponentSize(folder="text_encoder", num_parameters=1100))
    assert replace(found, components=larger).for_pairs(value_bytes=2).weights == 2200


def test_without_weights_it_counts_from_the_config_and_says_what_is_missing(
    toy_model_dir: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(toy_model_dir, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors")))
    whole = read_footprint(toy_model_dir, catalogue.family_of(toy_model_dir))
    report = report_of(folder)
    assert report["parameters"]["transformer"] == whole.denoiser_parameters
    assert report["lora_parameters"] == 128 * whole.lora_per_rank
    assert report["parameters"]["text_encoder"] == 0
    assert "holds no .safetensors file" in report["missing"]


@pytest.mark.parametrize("family", ["MochiPipeline", "LTXConditionPipeline"])
def test_an_unknown_family_is_one_clear_line(toy_model_dir: Path, tmp_path: Path, family: str) -> None:
    index = json.loads((toy_model_dir / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps(index | {"_class_name": family}))
    done = densedpo("doctor", tmp_path)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert f"is a {family}; the families known are WanPipeline, WanImageToVideoPipeline, " in done.err


def test_a_damaged_header_is_named(toy_model_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(toy_model_dir, tmp_path / "model"))
    weights = next((folder / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])
    done = densedpo("doctor", folder)
    assert done.code == 2
    assert f"{weights} is not a whole safetensors file" in done.err


def test_it_says_in_words_what_fits(toy_model_dir: Path) -> None:
    out = densedpo("doctor", toy_model_dir).out
    assert "4 frames and 8x8 pixels to one latent cell" in out
    assert "training, activations computed again" in out
    assert "checkpoint_activations = true for the last two, and memory = 'apart' for the last" in out
    assert ": fits" in out
    assert "the model directory is complete" in out
