"""The objectives against numbers derived by hand and a numpy twin."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from densedpo.learn.objectives import (
    PairErrors,
    dense_dpo,
    dense_dpo_summed,
    dense_dpo_ties,
    dpo,
)
from objective_cases import NAMES, SHAPE, by_hand, cells, log1p_exp, random_errors, random_field


def test_dense_dpo_by_hand():
    """beta = 10: u = -5 * (+1)(-.4) = 2 and -5 * (-1)(.2) = 1; the tie is dropped.

    loss = log(1 + e^-2) + log(1 + e^-1), weight 2. Winner's gaps -.2 (a) and -.1 (b), loser's .2 and .1.
    """
    errors, field = by_hand()
    output = dense_dpo(errors, field, beta=10.0)
    assert output.loss.item() == pytest.approx(log1p_exp(2) + log1p_exp(1), abs=1e-12)
    assert output.weight.item() == 2
    assert output.metrics.accuracy.item() == 1
    assert output.metrics.margin.item() == pytest.approx(1.5)
    assert output.metrics.win_gap.item() == pytest.approx(-0.15)
    assert output.metrics.lose_gap.item() == pytest.approx(0.15)
    assert output.metrics.loser_dominant.item() == 0


def test_dense_dpo_weighted_and_soft_by_hand():
    """Weights 3 and .5, confidences .9 and .6, with u = 2 and 1 as above.

    loss = 3 (.9 l(2) + .1 l(-2)) + .5 (.6 l(1) + .4 l(-1)) with l(u) = log(1 + e^-u); weight 3.5.
    """
    errors, field = by_hand()
    output = dense_dpo(
        errors, field, beta=10.0, confidence=cells([0.9, 0.6, 0.2]), cell_weight=cells([3.0, 0.5, 100.0])
    )
    first = 3 * (0.9 * log1p_exp(2) + 0.1 * log1p_exp(-2))
    second = 0.5 * (0.6 * log1p_exp(1) + 0.4 * log1p_exp(-1))
    assert output.loss.item() == pytest.approx(first + second, abs=1e-12)
    assert output.weight.item() == pytest.approx(3.5)


def test_dense_dpo_summed_by_hand():
    """beta = 10: u = -5/3 * ((+1)(-.4) + (-1)(.2) + 0) = 1; one term, weight 1."""
    errors, field = by_hand()
    output = dense_dpo_summed(errors, field, beta=10.0)
    assert output.loss.item() == pytest.approx(log1p_exp(1), abs=1e-12)
    assert output.weight.item() == 1
    assert output.metrics.win_gap.item() == pytest.approx(-0.15)
    assert output.metrics.lose_gap.item() == pytest.approx(0.15)


def test_dense_dpo_ties_by_hand():
    """beta = 10, nu = 3: u = 2 and 1 where there is a winner, and 5 * .7 = 3.5 up to its sign on the tie.

    loss = l(2 - log 3) + l(1 - log 3) + [l(3.5 - log 3) + l(-3.5 - log 3) - log 8] with l(u) = log(1 + e^-u); weight 3.
    The metrics leave the tie out: they are those of dense_dpo.
    """
    errors, field = by_hand()
    output = dense_dpo_ties(errors, field, beta=10.0, nu=3.0)
    shift = math.log(3)
    tie = log1p_exp(3.5 - shift) + log1p_exp(-3.5 - shift) - math.log(8)
    assert output.loss.item() == pytest.approx(log1p_exp(2 - shift) + log1p_exp(1 - shift) + tie, abs=1e-12)
    assert output.weight.item() == 3
    expected = dense_dpo(errors, field, beta=10.0).metrics
    for name in ("accuracy", "margin", "win_gap", "lose_gap", "loser_dominant", "weight"):
        assert torch.equal(getattr(output.metrics, name), getattr(expected, name))
    assert expected.weight.item() == 2


def test_dpo_by_hand():
    """beta = 6, a better: mean of d_a - d_b = .5/3, u = -3 * .5/3 = -.5, so the ranking is wrong.

    Winner's gap: mean d_a = .2/3; loser's: mean d_b = -.1.
    """
    errors, _ = by_hand()
    output = dpo(errors, torch.tensor([1]), beta=6.0)
    assert output.loss.item() == pytest.approx(log1p_exp(-0.5), abs=1e-12)
    assert output.metrics.accuracy.item() == 0
    assert output.metrics.win_gap.item() == pytest.approx(0.2 / 3)
    assert output.metrics.lose_gap.item() == pytest.approx(-0.1)


def test_space_time_by_hand():
    """One frame of four cells, labels + + - tie; d_a - d_b = -.2, -.4, .6, 9; beta = 2.

    Plus cells: mean -.3, u = .3. The minus cell: u = +1 * .6. Two terms: (frame, +) and (frame, -).
    """
    difference = torch.tensor([-0.2, -0.4, 0.6, 9.0], dtype=torch.float64).reshape(1, 1, 2, 2)
    zero = torch.zeros_like(difference)
    errors = PairErrors(
        policy_a=difference,
        policy_b=zero,
        reference_a=zero,
        reference_b=zero,
        valid=torch.ones(1, 1, 2, 2, dtype=torch.bool),
    )
    output = dense_dpo(errors, torch.tensor([1, 1, -1, 0]).reshape(1, 1, 2, 2), beta=2.0)
    assert output.loss.item() == pytest.approx(log1p_exp(0.3) + log1p_exp(0.6), abs=1e-12)
    assert output.weight.item() == 2


def test_loser_dominant_is_a_win_in_which_the_winner_got_worse():
    """Both errors rise, the loser's more: ranked as labelled, win_gap .1, lose_gap .5."""
    errors = PairErrors(
        policy_a=cells([1.1]),
        policy_b=cells([1.5]),
        reference_a=cells([1.0]),
        reference_b=cells([1.0]),
        valid=torch.ones(1, 1, 1, 1, dtype=torch.bool),
    )
    metrics = dpo(errors, torch.tensor([1]), beta=1.0).metrics
    assert metrics.accuracy.item() == 1
    assert metrics.loser_dominant.item() == 1


def numpy_dense(errors: PairErrors, field, beta, confidence, weight) -> tuple[np.ndarray, np.ndarray]:
    """Cell by cell, straight from appendix E."""
    pa, pb, ra, rb = (getattr(errors, name).numpy() for name in NAMES)
    loss, total = np.zeros(len(pa)), np.zeros(len(pa))
    for pair, frame, row, column in np.ndindex(pa.shape):
        at = (pair, frame, row, column)
        if errors.valid[at] and field[at] != 0:
            u = -beta / 2 * int(field[at]) * ((pa[at] - ra[at]) - (pb[at] - rb[at]))
            term = confidence[at] * np.log1p(np.exp(-u)) + (1 - confidence[at]) * np.log1p(np.exp(u))
            loss[pair] += weight[at] * term
            total[pair] += weight[at]
    return loss, total


@pytest.mark.parametrize("seed", range(4))
def test_dense_dpo_equals_its_numpy_twin(seed: int):
    rng = np.random.default_rng(100 + seed)
    valid = torch.from_numpy(rng.uniform(size=SHAPE) < 0.8)
    errors, field = random_errors(seed=seed, valid=valid), random_field(seed=seed)
    confidence, weight = rng.uniform(size=SHAPE), rng.uniform(0, 3, size=SHAPE)
    output = dense_dpo(
        errors, field, beta=7.0, confidence=torch.from_numpy(confidence), cell_weight=torch.from_numpy(weight)
    )
    loss, total = numpy_dense(errors, field.numpy(), 7.0, confidence, weight)
    np.testing.assert_allclose(output.loss.numpy(), loss, rtol=1e-12)
    np.testing.assert_allclose(output.weight.numpy(), total, rtol=1e-12)


def numpy_ties(errors: PairErrors, field, beta, nu, judged, weight) -> tuple[np.ndarray, np.ndarray]:
    """Cell by cell, from the chances of Rao and Kupper for clips of strengths pi_a and pi_b."""
    pa, pb, ra, rb = (getattr(errors, name).numpy() for name in NAMES)
    loss, total = np.zeros(len(pa)), np.zeros(len(pa))
    for at in np.ndindex(pa.shape):
        if not errors.valid[at] or (field[at] == 0 and not judged[at]):
            continue
        pi_a, pi_b = np.exp(-beta / 2 * (pa[at] - ra[at])), np.exp(-beta / 2 * (pb[at] - rb[at]))
        chance = {
            1: pi_a / (pi_a + nu * pi_b),
            -1: pi_b / (pi_b + nu * pi_a),
            0: (nu**2 - 1) * pi_a * pi_b / ((pi_a + nu * pi_b) * (pi_b + nu * pi_a)),
        }
        assert sum(chance.values()) == pytest.approx(1, abs=1e-12)
        loss[at[0]] -= weight[at] * np.log(chance[int(field[at])])
        total[at[0]] += weight[at]
    return loss, total


@pytest.mark.parametrize("seed", range(4))
def test_dense_dpo_ties_equals_its_numpy_twin(seed: int):
    rng = np.random.default_rng(100 + seed)
    valid, judged = (torch.from_numpy(rng.uniform(size=SHAPE) < 0.8) for _ in range(2))
    errors, field = random_errors(seed=seed, valid=valid), random_field(seed=seed)
    weight = rng.uniform(0, 3, size=SHAPE)
    nu = 1.0 + float(rng.uniform(0.1, 4))
    output = dense_dpo_ties(errors, field, beta=7.0, nu=nu, judged=judged, cell_weight=torch.from_numpy(weight))
    loss, total = numpy_ties(errors, field.numpy(), 7.0, nu, judged, weight)
    np.testing.assert_allclose(output.loss.numpy(), loss, rtol=1e-10)
    np.testing.assert_allclose(output.weight.numpy(), total, rtol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_clip_losses_equal_their_numpy_twin(seed: int):
    valid = torch.from_numpy(np.random.default_rng(100 + seed).uniform(size=SHAPE) < 0.8)
    errors, field = random_errors(seed=seed, valid=valid), random_field(seed=seed)
    pa, pb, ra, rb = (getattr(errors, name).numpy()[:, :, 0, 0] for name in NAMES)
    mask, labels = valid.numpy()[:, :, 0, 0], field.numpy()[:, :, 0, 0]
    advantage = ((pa - ra) - (pb - rb)) * mask
    u = -3.5 * (labels * advantage).sum(1) / mask.sum(1)
    has_label = (labels * mask != 0).any(1)
    output = dense_dpo_summed(errors, field, beta=7.0)
    np.testing.assert_allclose(output.loss, np.log1p(np.exp(-u)) * has_label, rtol=1e-12)
    sign = np.array([1, -1, 0, 1, -1])
    u = -3.5 * sign * advantage.sum(1) / mask.sum(1)
    output = dpo(errors, torch.from_numpy(sign), beta=7.0)
    np.testing.assert_allclose(output.loss, np.log1p(np.exp(-u)) * (sign != 0), rtol=1e-12)
    np.testing.assert_array_equal(output.weight, np.abs(sign))
