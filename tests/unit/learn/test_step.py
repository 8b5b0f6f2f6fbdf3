"""One step: what divides the loss, what is skipped, and what a broken number does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from densedpo.adapters import VideoModel
from densedpo.core.workspace import Project
from densedpo.learn.config import LearnConfig
from densedpo.learn.feed.batch import Source
from densedpo.learn.feed.inputs import LabelledPair, read_pairs
from densedpo.learn.feed.order import Visit
from densedpo.learn.step import learning_rate_at
from densedpo.learn.task.objective import label_weight
from densedpo.learn.task.preference import PreferenceTask
from densedpo.learn.task.protocol import Outcome
from learn_bench import FRESH, Bench


@pytest.fixture
def pairs(labelled: Project, toy_model: VideoModel) -> tuple[LabelledPair, ...]:
    return read_pairs(labelled.pairs("toy"), labelled.preferences("toy"), toy_model.geometry, toy_model.fingerprint)


def tied(pair: LabelledPair) -> LabelledPair:
    return replace(pair, labels=replace(pair.labels, field=np.zeros_like(pair.labels.field), sign=0))


def unchanged(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(before[name], after[name]) for name in before)


def test_f01_a_window_without_labels_moves_nothing(pairs, toy_model_dir: Path):
    bench = Bench(toy_model_dir, [tied(pair) for pair in pairs[:4]])
    before = bench.adapter()
    result = bench.step()
    assert not result.has_signal
    assert not result.updated
    assert result.is_finite
    assert unchanged(before, bench.adapter())
    assert not bench.optimizer.state


def test_tied_pairs_beside_labelled_ones_change_nothing(pairs, toy_model_dir: Path):
    """The same labelled pairs, in a window with and without a tied one."""
    order = [Visit(index=index, draw=0) for index in range(3)]

    class Fixed(PreferenceTask):
        def window(self, step: int) -> tuple[tuple[Visit, ...], ...]:
            return (tuple(order),)

    norms = []
    for chosen in (pairs[:2], [*pairs[:2], tied(pairs[2])]):
        bench = Bench(toy_model_dir, chosen)
        order = order[: len(chosen)] if len(chosen) == 2 else [Visit(index=index, draw=0) for index in range(3)]
        bench.task = Fixed(bench.model, Source(bench.model), chosen, FRESH, bench.config, None)
        norms.append(bench.step().grad_norm)
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


@pytest.mark.parametrize("objective", ["dense_dpo", "dense_dpo_summed", "dense_dpo_ties", "dpo"])
def test_the_weight_known_beforehand_is_the_loss_own(pairs, toy_model_dir: Path, objective: str):
    bench = Bench(toy_model_dir, [*pairs[:3], tied(pairs[3])], objective=objective)
    visits = [Visit(index=index, draw=0) for index in range(4)]
    outcome = bench.task.outcome(visits)
    assert outcome.weight.sum().item() == bench.task.weight(visits)
    assert outcome.weight.tolist() == [label_weight(bench.config, pair) for pair in (*pairs[:3], tied(pairs[3]))]


class Breaks(torch.autograd.Function):
    """The identity, whose gradient is not a number."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.nan


@pytest.mark.parametrize(
    "fault",
    [lambda output: output * math.inf, lambda output: output + math.nan, Breaks.apply],
    ids=["inf", "nan", "grad"],
)
def test_f03_f04_a_step_that_is_not_finite_changes_nothing(pairs, toy_model_dir: Path, fault):
    bench = Bench(toy_model_dir, pairs[:4])
    assert bench.step(1, 0).updated
    before, state = bench.adapter(), bench.optimizer.state_dict()["state"]
    moments = {index: row["exp_avg"].clone() for index, row in state.items()}
    hook = bench.model.denoiser.register_forward_hook(lambda module, inputs, output: (fault(output[0]),))
    result = bench.step(2, 1)
    hook.remove()
    assert not result.is_finite
    assert not result.updated
    assert unchanged(before, bench.adapter())
    after = bench.optimizer.state_dict()["state"]
    assert all(torch.equal(moments[index], after[index]["exp_avg"]) for index in moments)
    assert bench.step(3, 1).updated


def test_f19_nothing_is_scaled_against_overflow_which_is_skipped_like_any_step_that_is_not_finite(
    pairs, toy_model_dir: Path
):
    """float16, which would need scaled losses, is refused; bfloat16 has float32's range, about 3e38.

    A prediction of 1e20 is finite in both and its square is not; the next step finds no scale that has changed.
    """
    with pytest.raises(ValidationError, match="'float32' or 'bfloat16'"):
        LearnConfig.model_validate({"precision": "float16"})
    assert torch.finfo(torch.bfloat16).max == pytest.approx(torch.finfo(torch.float32).max, rel=0.01)
    bench, usual = Bench(toy_model_dir, pairs[:4]), Bench(toy_model_dir, pairs[:4])
    hook = bench.model.denoiser.register_forward_hook(lambda module, inputs, output: (output[0] + 1e20,))
    assert not bench.step(1, 0).updated
    hook.remove()
    assert bench.step(2, 0).loss == usual.step(2, 0).loss
    assert unchanged(usual.adapter(), bench.adapter())


def test_the_gradient_is_clipped(pairs, toy_model_dir: Path):
    class Recorded(PreferenceTask):
        def outcome(self, visits: Sequence[Visit]) -> Outcome:
            outcome = super().outcome(visits)
            return Outcome(loss=outcome.loss * 1e4, weight=outcome.weight, t=outcome.t, metrics=outcome.metrics)

    bench = Bench(toy_model_dir, pairs[:2], clip_norm=0.5)
    bench.task = Recorded(bench.model, Source(bench.model), pairs[:2], FRESH, bench.config, None)
    assert bench.step().grad_norm > 0.5
    moments = [row["exp_avg"] for row in bench.optimizer.state_dict()["state"].values()]
    norm = math.sqrt(sum(float(moment.square().sum()) for moment in moments))
    assert norm == pytest.approx(0.1 * 0.5, rel=1e-3)  # exp_avg = (1 - beta1) * gradient


def test_the_schedule_warms_up_to_the_peak_and_stays_or_falls():
    constant = LearnConfig(learning_rate=1.0, warmup_steps=4, num_steps=12)
    assert [learning_rate_at(update, constant) for update in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    cosine = constant.model_copy(update={"schedule": "cosine"})
    assert learning_rate_at(4, cosine) == 1.0
    assert learning_rate_at(8, cosine) == pytest.approx(0.5)
    assert learning_rate_at(12, cosine) == pytest.approx(0.0)
    assert learning_rate_at(0, constant.model_copy(update={"warmup_steps": 0})) == 1.0
