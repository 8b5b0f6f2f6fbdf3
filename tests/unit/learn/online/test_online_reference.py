from __future__ import annotations

from pathlib import Path

import pytest
import torch

from densedpo.adapters import load
from densedpo.core import seeds
from densedpo.generate.sampler import sample
from densedpo.learn.config import LearnConfig
from densedpo.learn.errors import residuals
from densedpo.learn.feed.batch import ClipBatch
from densedpo.learn.online.reference import SecondAdapter
from densedpo.learn.reference import attach_lora, live_residuals


@pytest.fixture
def model(toy_model_dir: Path):
    return load(toy_model_dir)


def batch_of(model) -> ClipBatch:
    shape = (2, *model.geometry.latent_shape)
    return ClipBatch(
        latents=seeds.noise(shape, "x"), noise=seeds.noise(shape, "eps"), t=torch.tensor([0.3, 0.7]),
        text=model.encode_text(["a red circle", "a blue square"]),
    )  # fmt: skip


def move(parameters, name: str) -> dict[str, torch.Tensor]:
    """Puts random weights in a policy and returns copies of them."""
    with torch.no_grad():
        for key, parameter in parameters.items():
            parameter.copy_(0.3 * seeds.noise(tuple(parameter.shape), name, key))
    return {key: parameter.detach().clone() for key, parameter in parameters.items()}


def test_before_the_first_refresh_it_is_the_base_bit_for_bit_whatever_the_policy_does(model):
    parameters = attach_lora(model, LearnConfig(lora_rank=4))
    reference, batch = SecondAdapter(model), batch_of(model)
    base = live_residuals(model, batch)
    move(parameters, "moved")
    assert torch.equal(reference.residuals(batch), base)
    assert not torch.equal(residuals(model, batch), base)


def test_after_a_refresh_it_is_the_policy_bit_for_bit_and_stays_while_the_policy_goes_on(model):
    parameters = attach_lora(model, LearnConfig(lora_rank=4))
    reference, batch = SecondAdapter(model), batch_of(model)
    then = move(parameters, "then")
    reference.become(then)
    with torch.no_grad():
        policy = residuals(model, batch)
    assert torch.equal(reference.residuals(batch), policy)
    move(parameters, "later")
    assert torch.equal(reference.residuals(batch), policy)


def test_only_the_policy_is_trained_and_only_it_is_saved(model, tmp_path: Path):
    from safetensors.torch import load_file

    parameters = attach_lora(model, LearnConfig(lora_rank=4))
    reference, batch = SecondAdapter(model), batch_of(model)
    reference.residuals(batch)
    trained = {name for name, parameter in model.denoiser.named_parameters() if parameter.requires_grad}
    assert trained == set(parameters)
    moved = move(parameters, "moved")
    saved = load_file(model.save_adapter(tmp_path / "adapter.safetensors"))
    assert len(saved) == len(moved)


def test_tensors_of_another_adapter_are_refused(model):
    attach_lora(model, LearnConfig(lora_rank=4))
    with pytest.raises(ValueError, match="not the tensors of this adapter"):
        SecondAdapter(model).become({"x": torch.zeros(1)})


@pytest.mark.parametrize("num_steps", [2, 12])
def test_sampling_with_a_policy_in_training_keeps_nothing_for_a_backward(model, num_steps: int):
    """No tensor is saved for a gradient in any number of steps, so memory cannot grow with them."""
    attach_lora(model, LearnConfig(lora_rank=4))
    text, null_text = model.encode_text(["a red circle"]), model.encode_text([""])
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor.shape), lambda _: None):
        latents = sample(
            model,
            start=seeds.noise((1, *model.geometry.latent_shape), "start"),
            sigmas=model.sigmas(num_steps),
            text=text,
            null_text=null_text,
            guidance_scale=3.0,
        )
    assert saved == []
    assert not latents.requires_grad
