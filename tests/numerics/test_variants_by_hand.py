"""IPO, robust DPO and the winner's anchor against numbers derived by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from densedpo.learn.objectives import (
    PairErrors,
    dense_dpo,
    dense_ipo,
    dense_robust,
    winner_error,
    with_winner_anchor,
)
from objective_cases import by_hand, cells, log1p_exp, random_errors, random_field, swapped


def at_reference(errors: PairErrors) -> PairErrors:
    return replace(errors, policy_a=errors.reference_a, policy_b=errors.reference_b)


def test_ipo_by_hand():
    """(2 - 1/2)^2 + (1 - 1/2)^2 = 2.5, weight 2; weighted 3 and .5: 3 * 2.25 + .5 * .25 = 6.875."""
    errors, field = by_hand()
    output = dense_ipo(errors, field, beta=10.0)
    assert (output.loss.item(), output.weight.item()) == (pytest.approx(2.5), 2)
    assert output.metrics.margin.item() == pytest.approx(1.5)
    weighted = dense_ipo(errors, field, beta=10.0, cell_weight=cells([3.0, 0.5, 9.0]))
    assert (weighted.loss.item(), weighted.weight.item()) == (pytest.approx(6.875), 3.5)


def test_ipo_is_the_papers_square_times_beta_squared():
    """h = u / beta = .2 at beta 10: beta^2 (h - 1 / (2 beta))^2 = 100 (.2 - .05)^2 = 2.25."""
    errors, field = by_hand()
    first = dense_ipo(errors, field * torch.tensor([1, 0, 0]).reshape(1, 3, 1, 1), beta=10.0)
    assert first.loss.item() == pytest.approx(100 * (0.2 - 0.05) ** 2)


def test_ipo_has_a_quarter_at_the_reference():
    errors, field = random_errors(), random_field()
    start = dense_ipo(at_reference(errors), field, beta=5.0)
    torch.testing.assert_close(start.loss, start.weight * 0.25)


@pytest.mark.parametrize(("gap", "falls"), [(0.1, True), (0.4, False)])
def test_ipo_is_least_where_u_is_a_half(gap: float, falls: bool):
    """One frame, beta 4: u = 2 * gap is .2 or .8; dL/d policy_a = 2 (u - 1/2) * -2 is 1.2 or -1.2."""
    errors, _ = by_hand()
    policy = torch.full_like(errors.policy_a, 1 - gap).requires_grad_()
    still = replace(errors, policy_a=policy, policy_b=errors.reference_b)
    dense_ipo(still, torch.tensor([1, 0, 0]).reshape(1, 3, 1, 1), beta=4.0).loss.sum().backward()
    assert policy.grad[0, 0].item() == pytest.approx(1.2 if falls else -1.2)


def test_robust_by_hand():
    """e = .2: ((.8) l(u) - .2 l(-u)) / .6 with l(u) = log(1 + e^-u), for u = 2 and 1."""
    errors, field = by_hand()
    output = dense_robust(errors, field, beta=10.0, flip_rate=0.2)
    expected = sum((0.8 * log1p_exp(u) - 0.2 * log1p_exp(-u)) / 0.6 for u in (2, 1))
    assert (output.loss.item(), output.weight.item()) == (pytest.approx(expected), 2)


def test_robust_is_unbiased_under_flips():
    """(1 - e) * loss(labels) + e * loss(flipped labels) is dense_dpo on the true labels, for each pair."""
    errors, field = random_errors(), random_field()
    kept = dense_robust(errors, field, beta=3.0, flip_rate=0.3).loss
    flipped = dense_robust(errors, -field, beta=3.0, flip_rate=0.3).loss
    torch.testing.assert_close(0.7 * kept + 0.3 * flipped, dense_dpo(errors, field, beta=3.0).loss)


def test_robust_without_flips_is_dense_dpo_and_has_log_2_at_the_reference():
    errors, field = random_errors(), random_field()
    assert torch.equal(
        dense_robust(errors, field, beta=3.0, flip_rate=0.0).loss, dense_dpo(errors, field, beta=3.0).loss
    )
    start = dense_robust(at_reference(errors), field, beta=3.0, flip_rate=0.4)
    torch.testing.assert_close(start.loss, start.weight * math.log(2))
    for rate in (-0.1, 0.5, math.nan):
        with pytest.raises(ValueError, match="flip_rate"):
            dense_robust(errors, field, beta=3.0, flip_rate=rate)


@pytest.mark.parametrize("objective", [dense_ipo, lambda *args, **kw: dense_robust(*args, **kw, flip_rate=0.2)])
def test_swapping_clips_and_labels_changes_nothing(objective):
    errors, field = random_errors(), random_field()
    ours, theirs = objective(errors, field, beta=2.0), objective(swapped(errors), -field, beta=2.0)
    torch.testing.assert_close(ours.loss, theirs.loss)


def test_the_winners_error_by_hand():
    """Winner a in frame 0 (.8), b in frame 1 (.9), a tie in frame 2: mean .85; anchored by 2: + 2 * 2 * .85 = 3.4."""
    errors, field = by_hand()
    assert winner_error(errors, field).item() == pytest.approx(0.85)
    plain = dense_dpo(errors, field, beta=10.0)
    anchored = with_winner_anchor(plain, errors, field, strength=2.0)
    assert anchored.loss.item() == pytest.approx(plain.loss.item() + 3.4)
    assert anchored.weight is plain.weight
    assert anchored.metrics is plain.metrics
    assert with_winner_anchor(plain, errors, field, strength=0.0).loss.item() == plain.loss.item()
    with pytest.raises(ValueError, match="strength"):
        with_winner_anchor(plain, errors, field, strength=-1.0)


def test_the_anchor_pulls_on_the_winner_alone_and_sees_no_invalid_cell():
    errors, field = by_hand()
    policy_a, policy_b = errors.policy_a.clone(), errors.policy_b.clone()
    policy_b[0, 0], policy_a[0, 2] = math.nan, math.nan  # the loser of frame 0, and a tie
    valid = torch.tensor([True, True, False]).reshape(1, 3, 1, 1)
    broken = replace(errors, policy_a=policy_a.requires_grad_(), policy_b=policy_b.requires_grad_(), valid=valid)
    winner_error(broken, field).sum().backward()
    assert broken.policy_a.grad.flatten().tolist() == [0.5, 0, 0]
    assert broken.policy_b.grad.flatten().tolist() == [0, 0.5, 0]


def test_ties_alone_have_no_anchor():
    errors, field = by_hand()
    assert winner_error(errors, torch.zeros_like(field)).item() == 0
