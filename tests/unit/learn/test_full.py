"""All weights trained: the start is the reference, a copy is held only where it must run, and the end is a denoiser."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from densedpo.adapters import catalogue, load
from densedpo.adapters.trained import load_trained, trained_file
from densedpo.core.errors import BadInput
from densedpo.core.workspace import Project
from densedpo.learn.config import LearnConfig
from densedpo.learn.estimate import estimate_run
from densedpo.learn.full import train_all
from densedpo.learn.reference import adapters_off
from densedpo.learn.release.formats import release
from densedpo.learn.run import learn_offline, read_inputs
from processes import train_together

QUICK = {
    "train": "full", "num_steps": 4, "batch_pairs": 3, "eval_every": 4, "eval_pairs": 3, "eval_draws": 1,
    "checkpoint_every": 2, "learning_rate": 1e-4, "warmup_steps": 1,
}  # fmt: skip


def config(**settings: object) -> LearnConfig:
    return LearnConfig.model_validate(QUICK | settings)


def train(project: Project, model: Path, name: str, **settings: object) -> Path:
    return learn_offline(project, name, pairs="toy", preferences="toy", model=model, config=config(**settings))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")


def rows(folder: Path, split: str) -> list[dict[str, object]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return [{key: row[key] for key in row if key != "seconds"} for row in found if row["split"] == split]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where each model that a run loads was put."""
    found: list[str] = []
    of_catalogue = catalogue.load

    def counted(*args, **kwargs):
        found.append(kwargs["device"])
        return of_catalogue(*args, **kwargs)

    monkeypatch.setattr(catalogue, "load", counted)
    return found


def test_a_cut_run_goes_on_to_the_same_bits_with_a_live_copy(labelled: Project, toy_model_dir: Path, stop_before):
    whole = train(labelled, toy_model_dir, "whole")
    assert rows(whole, "train")[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    with stop_before(3):
        train(labelled, toy_model_dir, "cut")
    cut = train(labelled, toy_model_dir, "cut")
    ours, theirs = weights(cut), weights(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert rows(cut, "train") == rows(whole, "train")
    assert rows(whole, "validation")[-1]["drift"] > 0


def test_with_a_complete_cache_no_copy_is_loaded(labelled: Project, toy_model_dir: Path, loads: list[str]):
    cached = train(labelled, toy_model_dir, "cached", draws=2)
    assert loads == ["cpu"]
    assert rows(cached, "train")[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert "drift" not in rows(cached, "validation")[-1]
    train(labelled, toy_model_dir, "live")
    assert loads == ["cpu"] * 3


def test_the_denoiser_loads_into_the_pipeline_of_diffusers_and_every_weight_has_moved(
    labelled: Project, toy_model_dir: Path
):
    from diffusers import WanTransformer3DModel

    folder = train(labelled, toy_model_dir, "moved", draws=2)
    assert not (folder / "adapter.safetensors").exists()
    theirs = WanTransformer3DModel.from_pretrained(folder / "transformer", use_safetensors=True)
    base = load(toy_model_dir).denoiser.state_dict()
    found = theirs.state_dict()
    assert found.keys() == base.keys()
    assert {name for name in base if torch.equal(found[name], base[name])} == set()


def test_what_was_trained_loads_and_is_released_as_a_denoiser_only(labelled: Project, toy_model_dir: Path):
    folder = train(labelled, toy_model_dir, "mine", draws=2)
    model = load(toy_model_dir)
    load_trained(model, trained_file(folder))
    ours, theirs = model.denoiser.state_dict(), weights(folder)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    released = release(labelled, "mine", "merged")
    assert load_file(released / "transformer" / "diffusion_pytorch_model.safetensors").keys() == theirs.keys()
    assert "All weights of the denoiser" in (released / "README.md").read_text(encoding="utf-8")
    with pytest.raises(BadInput, match="trained all weights and has no adapter; use --format merged"):
        release(labelled, "mine", "peft")
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut short")
    with pytest.raises(BadInput, match=r"diffusion_pytorch_model\.safetensors does not load"):
        load_trained(model, trained_file(folder))


def test_a_copy_on_cpu_gives_the_same_bits(labelled: Project, toy_model_dir: Path):
    """On this machine both lie on CPU; what is checked is that blocks come and go and the numbers stay."""
    on_device = weights(train(labelled, toy_model_dir, "device", num_steps=2))
    on_cpu = weights(train(labelled, toy_model_dir, "cpu", num_steps=2, reference_copy="cpu"))
    assert all(torch.equal(on_cpu[name], on_device[name]) for name in on_device)


def test_two_sharded_processes_with_a_sharded_copy_are_one_to_float_tolerance(labelled: Project, toy_model_dir: Path):
    settings = config(strategy="fully_shard", checkpoint_activations=True)
    assert train_together(2, labelled, "two", toy_model_dir, settings) == [0, 0]
    one = weights(train(labelled, toy_model_dir, "one", checkpoint_activations=True))
    two = weights(labelled.run("two"))
    assert two.keys() == one.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=2e-5)


def test_a_dry_run_holds_no_copy_that_the_run_would_not_hold(labelled: Project, toy_model_dir: Path, loads: list[str]):
    for settings, num_models in ((config(draws=2), 1), (config(), 2)):
        loads.clear()
        named = {"pairs": "toy", "preferences": "toy", "model": toy_model_dir}
        estimate_run(read_inputs(labelled, "dry", **named, config=settings, allow_stale=False))
        assert len(loads) == num_models


def test_products_are_bfloat16_and_weights_float32_where_mixed_precision_is_asked_for(toy_model_dir: Path):
    model = load(toy_model_dir)
    parameters = train_all(model, config(precision="bfloat16"))
    assert {parameter.dtype for parameter in parameters.values()} == {torch.float32}
    seen: list[torch.dtype] = []
    model.denoiser.blocks[0].ffn.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    shape = (1, *model.geometry.latent_shape)
    loss = model.predict(torch.ones(shape), torch.tensor([0.5]), model.encode_text(["a red ball"])).square().mean()
    loss.backward()
    assert seen == [torch.bfloat16]
    assert {parameter.grad.dtype for parameter in parameters.values() if parameter.grad is not None} == {torch.float32}


def test_a_mixed_precision_run_starts_at_log_2(labelled: Project, toy_model_dir: Path):
    folder = train(labelled, toy_model_dir, "mixed", precision="bfloat16", num_steps=2, eval_every=0)
    assert rows(folder, "train")[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_f13_a_model_without_an_adapter_is_not_taken_for_its_own_reference(toy_model_dir: Path):
    with pytest.raises(ValueError, match="no adapter to switch off"), adapters_off(load(toy_model_dir).denoiser):
        pass


def test_weights_that_are_not_float32_are_refused(toy_model_dir: Path):
    with pytest.raises(ValueError, match="load the model in float32"):
        train_all(load(toy_model_dir, dtype=torch.bfloat16), config())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_rank": 4}, "lora_rank, lora_alpha and lora_targets have no effect with train = 'full'"),
        ({"reference_copy": "cpu", "strategy": "fully_shard"}, "has no effect with fully_shard"),
        ({"train": "lora", "reference_copy": "cpu"}, "has no effect with train = 'lora'"),
    ],
)
def test_settings_without_effect_are_refused(settings, message: str):
    with pytest.raises(ValueError, match=message):
        config(**settings)
