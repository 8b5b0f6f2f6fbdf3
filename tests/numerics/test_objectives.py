"""The objectives at their limits: symmetry, ties, invalid cells, weights, finite differences, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from densedpo.learn.objectives import (
    LossOutput,
    PairErrors,
    dense_dpo,
    dense_dpo_summed,
    dense_dpo_summed_weight,
    dense_dpo_ties,
    dense_dpo_ties_weight,
    dense_dpo_weight,
    dpo,
    dpo_weight,
)
from objective_cases import NAMES, SHAPE, SPACE, random_errors, random_field, swapped


def all_objectives(errors: PairErrors, field: torch.Tensor, beta: float = 5.0) -> dict[str, LossOutput]:
    """Each objective on one field; `dpo` takes its first cell."""
    return {
        "dense_dpo": dense_dpo(errors, field, beta=beta),
        "dense_dpo_summed": dense_dpo_summed(errors, field, beta=beta),
        "dense_dpo_ties": dense_dpo_ties(errors, field, beta=beta, nu=3.0),
        "dpo": dpo(errors, field[:, 0, 0, 0], beta=beta),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_policy_equal_to_reference_gives_log_2(dtype: torch.dtype):
    for name, output in all_objectives(unmoved(random_errors(dtype=dtype)), random_field()).items():
        if name != "dense_dpo_ties":
            assert output.loss.sum().item() / output.weight.sum().item() == pytest.approx(math.log(2), abs=1e-7)
        ranked = output.metrics.weight > 0
        assert (output.metrics.accuracy[ranked] == 0.5).all()


def unmoved(errors: PairErrors) -> PairErrors:
    """The same with the policy as the reference."""
    return PairErrors(
        policy_a=errors.policy_a,
        policy_b=errors.policy_b,
        reference_a=errors.policy_a.detach(),
        reference_b=errors.policy_b.detach(),
        valid=errors.valid,
    )


def test_policy_equal_to_reference_gives_ties_their_chance_at_equal_strength():
    """At u = 0 and nu = 3: a win has 1/(1 + nu) = 1/4, a tie (nu - 1)/(nu + 1) = 1/2."""
    field = random_field()
    output = dense_dpo_ties(unmoved(random_errors()), field, beta=5.0, nu=3.0)
    num_won, num_tied = int((field != 0).sum()), int((field == 0).sum())
    assert output.loss.sum().item() == pytest.approx(num_won * math.log(4) + num_tied * math.log(2), abs=1e-10)
    assert output.weight.sum().item() == num_won + num_tied


def test_without_ties_a_threshold_of_nearly_1_is_dense_dpo():
    errors, field = random_errors(), torch.ones(SHAPE, dtype=torch.int8)
    ties, plain = dense_dpo_ties(errors, field, beta=5.0, nu=1 + 1e-13), dense_dpo(errors, field, beta=5.0)
    torch.testing.assert_close(ties.loss, plain.loss, rtol=1e-10, atol=0)
    assert torch.equal(ties.weight, plain.weight)


def test_a_tie_pulls_its_margin_to_0():
    """Where a's error fell more than b's, the gradient raises a's again; where nothing moved, there is none."""
    errors = requiring_grad(random_errors())
    field = torch.zeros(SHAPE, dtype=torch.int8)
    dense_dpo_ties(errors, field, beta=5.0, nu=3.0).loss.sum().backward()
    difference = (errors.policy_a - errors.reference_a) - (errors.policy_b - errors.reference_b)
    assert (errors.policy_a.grad * difference.detach() > 0).all()
    torch.testing.assert_close(errors.policy_b.grad, -errors.policy_a.grad)
    level = requiring_grad(random_errors())
    dense_dpo_ties(unmoved(level), field, beta=5.0, nu=3.0).loss.sum().backward()
    assert level.policy_a.grad.abs().max() < 1e-15


def test_what_nobody_judged_carries_no_loss():
    errors, field = requiring_grad(random_errors()), random_field()
    output = dense_dpo_ties(errors, field, beta=5.0, nu=3.0, judged=field != 0)
    output.loss.sum().backward()
    assert (errors.policy_a.grad[field == 0] == 0).all()
    assert torch.equal(output.weight, dense_dpo(random_errors(), field, beta=5.0).weight)


def test_bfloat16_errors_are_computed_in_float32():
    output = dense_dpo(random_errors(dtype=torch.bfloat16), random_field(), beta=500.0)
    assert output.loss.dtype == torch.float32


@pytest.mark.parametrize("shape", [SHAPE, SPACE])
def test_swapping_clips_and_negating_labels_changes_nothing(shape):
    errors, field = random_errors(shape), random_field(shape)
    before, after = all_objectives(errors, field), all_objectives(swapped(errors), -field)
    for name in before:
        torch.testing.assert_close(before[name].loss, after[name].loss, rtol=1e-12, atol=0)
        torch.testing.assert_close(before[name].metrics.win_gap, after[name].metrics.win_gap, rtol=1e-12, atol=0)


def requiring_grad(errors: PairErrors) -> PairErrors:
    return PairErrors(
        policy_a=errors.policy_a.clone().requires_grad_(),
        policy_b=errors.policy_b.clone().requires_grad_(),
        reference_a=errors.reference_a,
        reference_b=errors.reference_b,
        valid=errors.valid,
    )


def test_ties_carry_no_gradient_and_labels_pull_the_right_way():
    errors, field = requiring_grad(random_errors()), random_field()
    dense_dpo(errors, field, beta=5.0).loss.sum().backward()
    gradient = errors.policy_a.grad
    assert (gradient[field == 0] == 0).all()
    assert (gradient[field == 1] > 0).all()  # descending lowers the winner's error
    assert (gradient[field == -1] < 0).all()
    torch.testing.assert_close(errors.policy_b.grad, -gradient)


def test_a_batch_of_ties_gives_0_and_moves_nothing():
    field = torch.zeros(SHAPE, dtype=torch.int8)
    for name in ("dense_dpo", "dense_dpo_summed", "dpo"):
        errors = requiring_grad(random_errors())
        output = all_objectives(errors, field)[name]
        assert (output.loss == 0).all()
        assert (output.weight == 0).all()
        output.loss.sum().backward()
        assert (errors.policy_a.grad == 0).all()
        assert (errors.policy_b.grad == 0).all()


@pytest.mark.parametrize("name", ["dense_dpo", "dense_dpo_summed", "dense_dpo_ties", "dpo"])
def test_what_is_in_invalid_cells_changes_nothing(name: str):
    valid = torch.ones(SHAPE, dtype=torch.bool)
    valid[:, 5:] = False
    clean, field = random_errors(valid=valid), random_field()
    holes = {key: getattr(clean, key).clone() for key in NAMES}
    for value in holes.values():
        value[:, 5:] = math.nan
    dirty = requiring_grad(PairErrors(**holes, valid=valid))
    output = all_objectives(dirty, field)[name]
    expected = all_objectives(clean, field)[name]
    torch.testing.assert_close(output.loss, expected.loss, rtol=0, atol=0)
    torch.testing.assert_close(output.metrics.win_gap, expected.metrics.win_gap, rtol=0, atol=0)
    output.loss.sum().backward()
    assert dirty.policy_a.grad.isfinite().all()
    assert (dirty.policy_a.grad[:, 5:] == 0).all()
    short = PairErrors(**{key: getattr(clean, key)[:, :5] for key in NAMES}, valid=valid[:, :5])
    torch.testing.assert_close(all_objectives(short, field[:, :5])[name].loss, output.loss, rtol=1e-12, atol=0)


def test_confidence_and_weight_in_invalid_cells_may_be_nan():
    valid = torch.ones(SHAPE, dtype=torch.bool)
    valid[:, 0] = False
    errors, field, half = random_errors(valid=valid), random_field(), torch.full(SHAPE, 0.5, dtype=torch.float64)
    holes = half.clone()
    holes[:, 0] = math.nan
    expected = dense_dpo(errors, field, beta=5.0, confidence=half, cell_weight=half)
    output = dense_dpo(errors, field, beta=5.0, confidence=holes, cell_weight=holes)
    torch.testing.assert_close(output.loss, expected.loss, rtol=0, atol=0)


def test_a_pair_without_a_valid_cell_is_nothing():
    valid = torch.ones(SHAPE, dtype=torch.bool)
    valid[0] = False
    for output in all_objectives(random_errors(valid=valid), torch.ones(SHAPE, dtype=torch.int8)).values():
        assert output.loss[0] == 0
        assert output.weight[0] == 0
        assert output.loss.isfinite().all()


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("shape", [SHAPE, SPACE])
def test_one_label_everywhere_makes_the_summed_loss_the_clip_loss(sign: int, shape):
    valid = torch.from_numpy(np.random.default_rng(5).uniform(size=shape) < 0.7)
    errors = random_errors(shape, valid=valid)
    summed = dense_dpo_summed(errors, torch.full(shape, sign, dtype=torch.int8), beta=50.0)
    clip = dpo(errors, torch.full(shape[:1], sign), beta=50.0)
    assert torch.equal(summed.loss, clip.loss)
    assert torch.equal(summed.metrics.win_gap, clip.metrics.win_gap)


def test_a_label_spread_over_a_frame_is_the_label_of_the_frame():
    errors, field = random_errors(SPACE), random_field((3, 4, 1, 1))
    means = {name: getattr(errors, name).mean((2, 3), keepdim=True) for name in NAMES}
    frames = PairErrors(**means, valid=torch.ones(3, 4, 1, 1, dtype=torch.bool))
    for name in ("dense_dpo", "dense_dpo_ties"):
        spread, whole = all_objectives(errors, field.expand(SPACE))[name], all_objectives(frames, field)[name]
        torch.testing.assert_close(spread.loss, whole.loss, rtol=1e-12, atol=0)
        assert torch.equal(spread.weight, whole.weight)


def test_the_weights_are_known_from_labels_alone():
    valid = torch.from_numpy(np.random.default_rng(3).uniform(size=SPACE) < 0.5)
    errors, field = random_errors(SPACE, valid=valid), random_field(SPACE)
    weight = torch.from_numpy(np.random.default_rng(4).uniform(0, 2, SPACE)).float()
    sign = torch.tensor([1, 0, -1])
    dense = dense_dpo(errors, field, beta=1.0, cell_weight=weight)
    torch.testing.assert_close(dense_dpo_weight(field, valid, weight).double(), dense.weight, rtol=1e-6, atol=0)
    judged = torch.from_numpy(np.random.default_rng(6).uniform(size=SPACE) < 0.5)
    ties = dense_dpo_ties(errors, field, beta=1.0, nu=2.0, judged=judged, cell_weight=weight)
    known = dense_dpo_ties_weight(field, valid, judged, weight)
    torch.testing.assert_close(known.double(), ties.weight, rtol=1e-6, atol=0)
    assert torch.equal(dense_dpo_summed_weight(field, valid).double(), dense_dpo_summed(errors, field, beta=1.0).weight)
    assert torch.equal(dpo_weight(sign, valid).double(), dpo(errors, sign, beta=1.0).weight)


def test_a_confidence_of_one_half_pulls_back_to_the_reference():
    """p = 1/2 has its minimum at u = 0, where the loss is log 2 and the gradient 0."""
    errors = requiring_grad(random_errors())
    half = torch.full(SHAPE, 0.5, dtype=torch.float64)
    dense_dpo(unmoved(errors), random_field(), beta=5.0, confidence=half).loss.sum().backward()
    assert errors.policy_a.grad.abs().max() < 1e-15


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (2, 2, 2, 2)])
@pytest.mark.parametrize("name", ["dense_dpo", "dense_dpo_summed", "dense_dpo_ties", "dpo"])
def test_gradients_by_finite_differences(name: str, shape):
    errors, field = random_errors(shape), random_field(shape, seed=2)
    valid = torch.ones(shape, dtype=torch.bool)
    valid[0, 0] = False

    def loss(policy_a: torch.Tensor, policy_b: torch.Tensor) -> torch.Tensor:
        moved = PairErrors(
            policy_a=policy_a,
            policy_b=policy_b,
            reference_a=errors.reference_a,
            reference_b=errors.reference_b,
            valid=valid,
        )
        return all_objectives(moved, field, beta=3.0)[name].loss

    inputs = (errors.policy_a.clone().requires_grad_(), errors.policy_b.clone().requires_grad_())
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-6, atol=1e-8)


def test_extreme_logits_stay_finite():
    errors, field = random_errors(), random_field()
    for beta in (1e-8, 1e8):
        for output in all_objectives(errors, field, beta=beta).values():
            assert output.loss.isfinite().all()
    tiny = dense_dpo(errors, field, beta=1e-8)
    torch.testing.assert_close(tiny.loss, tiny.weight * math.log(2), rtol=1e-7, atol=0)


def test_metrics_carry_no_graph():
    output = dense_dpo(requiring_grad(random_errors()), random_field(), beta=5.0)
    assert output.loss.requires_grad
    for name in ("accuracy", "margin", "win_gap", "lose_gap", "loser_dominant"):
        assert not getattr(output.metrics, name).requires_grad


def test_what_does_not_fit_is_refused():
    errors, field = random_errors(), random_field()
    with pytest.raises(ValueError, match="field has shape"):
        dense_dpo(errors, field[:, :3], beta=1.0)
    with pytest.raises(ValueError, match="only -1, 0 and"):
        dense_dpo_summed(errors, field * 2, beta=1.0)
    with pytest.raises(ValueError, match="beta must be above 0, got -1"):
        dense_dpo(errors, field, beta=-1.0)
    with pytest.raises(ValueError, match="nu must be above 1, got 1"):
        dense_dpo_ties(errors, field, beta=1.0, nu=1.0)
    with pytest.raises(ValueError, match="sign has shape"):
        dpo(errors, torch.ones(2, dtype=torch.int8), beta=1.0)
    with pytest.raises(ValueError, match="a sign is -1, 0 or"):
        dpo(errors, torch.full((5,), 3), beta=1.0)
    with pytest.raises(ValueError, match=r"confidence must lie in \[0, 1\]"):
        dense_dpo(errors, field, beta=1.0, confidence=torch.full(SHAPE, 1.5))
    with pytest.raises(ValueError, match="cell_weight must lie in"):
        dense_dpo(errors, field, beta=1.0, cell_weight=torch.full(SHAPE, -0.5))


def test_errors_that_do_not_fit_each_other_are_refused():
    # TypeError where the test run checks shapes by annotation before the record does
    errors = random_errors()
    same = dict.fromkeys(NAMES, errors.policy_a)
    with pytest.raises((ValueError, TypeError), match="policy_b"):
        PairErrors(**(same | {"policy_b": errors.policy_b[:2]}), valid=errors.valid)
    with pytest.raises((ValueError, TypeError), match="valid"):
        PairErrors(**same, valid=errors.policy_a)
    flat = {name: value[:, :, 0, 0] for name, value in same.items()}
    with pytest.raises((ValueError, TypeError)):
        PairErrors(**flat, valid=errors.valid[:, :, 0, 0])
