"""How the denoiser runs is what was asked for, and read back; what cannot be is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers.models.attention_dispatch import _AttentionBackendRegistry

from densedpo.adapters import VideoModel, load
from densedpo.adapters.sparse_causal import use_sparse_causal
from densedpo.core import seeds
from densedpo.core.errors import BadInput
from densedpo.core.workspace import Project
from densedpo.learn.config import LearnConfig
from densedpo.learn.execution import attention_of, compile_blocks, read_back, use_attention, watching_products
from densedpo.learn.memory import recompute_activations
from densedpo.learn.reference import attach_lora
from densedpo.learn.run import learn_offline
from toy_families import FAMILIES

QUICK = {"num_steps": 1, "batch_pairs": 2, "eval_every": 0, "lora_rank": 2, "lora_alpha": 2.0}


@pytest.fixture(autouse=True)
def _own_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers also keeps the chosen kernel for the whole process."""
    monkeypatch.setattr(_AttentionBackendRegistry, "_active_backend", _AttentionBackendRegistry._active_backend)


def predicted(model: VideoModel) -> torch.Tensor:
    x_t = seeds.noise((1, *model.geometry.latent_shape), "x")
    return model.predict(x_t, torch.tensor([0.5]), model.encode_text(["a red ball"]))


def test_compiled_blocks_compute_the_same_and_keep_their_names(toy_model_dir: Path, caplog):
    """With torch's `eager` backend: the blocks are traced as for any other, and no compiler is waited for."""
    plain, compiled = load(toy_model_dir), load(toy_model_dir)
    traced: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]):
        traced.append(len(inputs))
        return graph.forward

    with caplog.at_level("INFO", "densedpo"):
        assert compile_blocks(compiled.denoiser, backend=backend) == 2
    assert "2 blocks (WanTransformerBlock); the rest of the model is not" in caplog.text
    with torch.no_grad():
        torch.testing.assert_close(predicted(compiled), predicted(plain), rtol=1e-5, atol=1e-6)
    assert traced
    assert compiled.denoiser.state_dict().keys() == plain.denoiser.state_dict().keys()


def test_what_does_not_say_its_blocks_is_not_compiled():
    with pytest.raises(BadInput, match="compile_blocks: a Linear does not say what its blocks are"):
        compile_blocks(torch.nn.Linear(2, 2))


def test_a_chosen_attention_is_in_force_and_computes_the_same(toy_model_dir: Path):
    model = load(toy_model_dir)
    assert attention_of(model.denoiser) == "default"
    with torch.no_grad():
        before = predicted(model)
        use_attention(model.denoiser, "_native_math")
        assert attention_of(model.denoiser) == "_native_math"
        torch.testing.assert_close(predicted(model), before, rtol=1e-4, atol=1e-5)


def test_an_attention_that_cannot_be_is_refused_by_name(toy_model_dir: Path, tmp_path: Path):
    denoiser = load(toy_model_dir).denoiser
    with pytest.raises(BadInput, match=r"attention = 'no_such': .*must be one of"):
        use_attention(denoiser, "no_such")
    with pytest.raises(BadInput, match="attention = 'flash_hub' would be downloaded"):
        use_attention(denoiser, "flash_hub")
    with pytest.raises(BadInput, match="attention = 'flash'"):
        use_attention(denoiser, "flash")
    fixed = load(FAMILIES["CogVideoX"].save(tmp_path)).denoiser
    with pytest.raises(BadInput, match="a CogVideoXTransformer3DModel does not let all its attention be chosen"):
        use_attention(fixed, "native")


def test_each_block_runs_again_in_the_backward_where_activations_are_not_kept(toy_model_dir: Path):
    model = load(toy_model_dir)
    attach_lora(model, LearnConfig(lora_rank=2))
    calls: list[bool] = []
    # at its start: the second run ends as soon as it has made what the backward needs
    model.denoiser.blocks[0].register_forward_pre_hook(lambda module, args: calls.append(True))
    predicted(model).square().mean().backward()
    assert len(calls) == 1
    recompute_activations(model.denoiser)
    predicted(model).square().mean().backward()
    assert len(calls) == 3


def test_what_is_in_force_is_read_from_the_model(toy_model_dir: Path):
    model = load(toy_model_dir, dtype=torch.bfloat16)
    config = LearnConfig(lora_rank=2, precision="bfloat16", checkpoint_activations=True)
    parameters = attach_lora(model, config)
    with pytest.raises(RuntimeError, match="checkpoint_activations = True was asked for"):
        read_back(model.denoiser, parameters, config, compiled=0)
    recompute_activations(model.denoiser)
    found = read_back(model.denoiser, parameters, config, compiled=0)
    assert found.trained_weights == "float32"
    assert "bfloat16" in found.frozen_weights
    assert found.recomputes_activations
    with watching_products(model.denoiser, config):
        predicted(model)
    with (
        pytest.raises(RuntimeError, match=r"products are \{torch.bfloat16\}"),
        watching_products(model.denoiser, LearnConfig()),
    ):
        predicted(model)


def test_sparse_causal_attention_is_told_beside_the_kernel(toy_model_dir: Path):
    model = load(toy_model_dir)
    parameters = attach_lora(model, LearnConfig(lora_rank=2))
    use_sparse_causal(model.denoiser, num_frames=model.geometry.num_latent_frames, kernel="masked")
    found = read_back(model.denoiser, parameters, LearnConfig(), compiled=0)
    assert found.attention == "default, sparse-causal by masked"


def test_a_run_says_what_was_in_force(labelled: Project, toy_model_dir: Path):
    config = LearnConfig.model_validate(QUICK | {"attention": "native", "checkpoint_activations": True})
    folder = learn_offline(labelled, "said", pairs="toy", preferences="toy", model=toy_model_dir, config=config)
    said = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["in_force"]
    assert said == {
        "trained": said["trained"], "trained_weights": "float32", "frozen_weights": "float32", "products": "float32",
        "recomputes_activations": True, "compiled_blocks": 0, "attention": "native",
    }  # fmt: skip
    assert said["trained"].startswith("lora, ")
