"""One clip after the other gives the packed step's gradient, and so do activations that are computed again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from densedpo.adapters import VideoModel
from densedpo.core import seeds
from densedpo.core.errors import BadInput
from densedpo.core.workspace import Project
from densedpo.learn import loop
from densedpo.learn.cache import CachedReference
from densedpo.learn.config import LearnConfig
from densedpo.learn.feed.batch import Source
from densedpo.learn.feed.inputs import LabelledPair, read_pairs
from densedpo.learn.feed.order import Visit
from densedpo.learn.memory import memory_that_fits, recompute_activations
from densedpo.learn.run import learn_offline
from densedpo.learn.task.preference import PreferenceTask
from learn_bench import FRESH, Bench

BETA = 5.0  # at 500 the logistic magnifies what forwards of other shapes round otherwise
VISITS = tuple(Visit(index=index, draw=0) for index in range(3))


@pytest.fixture
def pairs(labelled: Project, toy_model: VideoModel) -> tuple[LabelledPair, ...]:
    toy = (labelled.pairs("toy"), labelled.preferences("toy"))
    return read_pairs(*toy, toy_model.geometry, toy_model.fingerprint)


def gradients(bench: Bench, cache: CachedReference | None = None, **settings: object) -> dict[str, torch.Tensor]:
    """Of the loss over 2.5, with an adapter that is no longer fresh."""
    config = bench.config.model_copy(update=settings)
    with torch.no_grad():
        for name, parameter in bench.parameters.items():
            if "lora_B" in name:
                parameter.copy_(0.02 * seeds.noise(tuple(parameter.shape), "moved", name))
            parameter.grad = None
    task = bench.task
    draws = FRESH if cache is None else replace(FRESH, count=2)
    bench.task = PreferenceTask(bench.model, Source(bench.model), task._pairs, draws, config, cache)
    outcome = bench.task.backward(VISITS, 2.5)
    assert not outcome.loss.requires_grad
    found = {name: parameter.grad.clone() for name, parameter in bench.parameters.items()}
    return found | {"loss": outcome.loss, "weight": outcome.weight, "margin": outcome.metrics.margin}


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """To 1e-4 of each tensor's norm; a margin is what is left of errors near 1, and carries their rounding."""
    assert ours.keys() == theirs.keys()
    assert any(float(theirs[name].abs().max()) > 1e-4 for name in theirs if "lora" in name)
    for name, tensor in theirs.items():
        rounding = 5e-6 if name == "margin" else 1e-7
        assert float((ours[name] - tensor).norm()) <= 1e-4 * float(tensor.norm()) + rounding, name


@pytest.mark.parametrize(
    "settings",
    [{}, {"objective": "dpo"}, {"objective": "dense_dpo_ties"}, {"loser_safeguard": 0.5}, {"cell_weight": "difference"},
     {"noise": "own"}],
    ids=lambda settings: "-".join(map(str, settings.values())) or "dense_dpo",
)  # fmt: skip
def test_one_clip_after_the_other_has_the_packed_gradient(pairs, toy_model_dir: Path, settings):
    bench = Bench(toy_model_dir, pairs[:3], beta=BETA, **settings)
    assert_close(gradients(bench, memory="apart"), gradients(bench, memory="packed"))


def test_it_takes_two_forwards_more_and_half_the_clips_in_each(pairs, toy_model_dir: Path, tmp_path: Path):
    bench = Bench(toy_model_dir, pairs[:3], beta=BETA)
    cache = CachedReference(pairs[:3], replace(FRESH, count=2), tmp_path)
    cache.fill(bench.model, Source(bench.model), 1, poll=lambda: None)
    sizes: list[tuple[int, bool]] = []
    hook = bench.model.denoiser.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append((len(kwargs["hidden_states"]), torch.is_grad_enabled())),
        with_kwargs=True,
    )
    apart = gradients(bench, cache, memory="apart")
    assert sizes == [(3, False), (3, False), (3, True), (3, True)]
    sizes.clear()
    assert_close(apart, gradients(bench, cache, memory="packed"))
    assert sizes == [(6, True)]
    hook.remove()


def test_activations_computed_again_give_the_same_gradient(pairs, toy_model_dir: Path):
    bench = Bench(toy_model_dir, pairs[:3], beta=BETA)
    kept = gradients(bench)
    recompute_activations(bench.model.denoiser)
    for memory in ("packed", "apart"):
        assert_close(gradients(bench, memory=memory), kept)


def test_what_cannot_compute_activations_again_is_refused():
    with pytest.raises(BadInput, match="a Linear cannot compute activations again"):
        recompute_activations(torch.nn.Linear(2, 2))


def test_auto_tries_the_packed_forward_and_falls_back_where_it_does_not_fit(caplog):
    tried = []

    def too_large() -> None:
        tried.append(True)
        raise torch.OutOfMemoryError("CUDA out of memory")

    gpu = LearnConfig(memory="auto", device="cuda")
    assert memory_that_fits(gpu, lambda: None) == "packed"
    assert memory_that_fits(gpu, too_large) == "apart"
    assert "do not fit at once" in caplog.text
    assert memory_that_fits(LearnConfig(memory="auto"), too_large) == "packed"
    assert memory_that_fits(LearnConfig(memory="apart", device="cuda"), too_large) == "apart"
    assert tried == [True]


def test_f16_a_step_that_does_not_fit_says_what_to_set_and_loses_nothing(
    labelled: Project, toy_model_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    few = {"num_steps": 3, "batch_pairs": 2, "eval_every": 0, "lora_rank": 2, "checkpoint_every": 1}
    config, take_step = LearnConfig.model_validate(few), loop.take_step

    def short_of_memory(*args, step: int, **kwargs):
        if step == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")
        return take_step(*args, step=step, **kwargs)

    monkeypatch.setattr(loop, "take_step", short_of_memory)
    remedies = "try memory = 'apart' or checkpoint_activations = true or a smaller batch_pairs than 2"
    with pytest.raises(BadInput, match=rf"Tried to allocate 2 GiB.; {remedies}"):
        learn_offline(labelled, "short", pairs="toy", preferences="toy", model=toy_model_dir, config=config)
    assert max(path.name for path in (labelled.run("short") / "checkpoints").iterdir()) == "step-000002"
