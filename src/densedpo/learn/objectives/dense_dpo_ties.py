"""DenseDPO in which a tie is a label too: the Rao-Kupper model of comparisons with ties, per latent frame."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from densedpo.learn.objectives.errors import (
    Field,
    LossOutput,
    PairErrors,
    Terms,
    check_beta,
    check_field,
    clip_gaps,
    logistic,
    reduce_terms,
)
from densedpo.learn.objectives.groups import Cells, check_cells, group_mean, group_weight

Mask = Bool[Tensor, "pair frame row column"]


def dense_dpo_ties(
    errors: PairErrors,
    field: Field,
    *,
    beta: float,
    nu: float,
    judged: Mask | None = None,
    cell_weight: Cells | None = None,
) -> LossOutput:
    """`dense_dpo` with a loss on ties, which holds the margin at 0 where the clips are equally good.

        u = -beta/2 * field * ((policy_a - reference_a) - (policy_b - reference_b))        per cell
        win:  -log sigmoid(u - log nu)
        tie:  -log sigmoid(u - log nu) - log sigmoid(-u - log nu) - log(nu^2 - 1)          whatever the sign of u
        loss = sum of cell_weight * these over judged cells;   weight = sum of cell_weight over judged cells

    The negative log-likelihood of Rao and Kupper (1967, "Ties in Paired-Comparison Experiments", JASA 62, threshold nu)
    with strengths in the ratio exp(u): the chances of win, tie and loss add up to 1, and at u = 0 a tie has
    (nu - 1)/(nu + 1). The gradient vanishes at u = 0 for ties, and later than in `dense_dpo` for wins.

    Not in the DenseDPO paper, which drops ties; its appendix B measures what that leaves open: nothing holds on to what
    both clips share. In space, cells of one label within a latent frame are averaged first, as in `dense_dpo`.

    Args:
        errors: squared errors; see `PairErrors`.
        field: +1 where a is better, -1 where b is, 0 for a tie or no label.
        beta: strength of the pull to the reference, under mean reduction with the factor 1/2.
        nu: above 1; the larger, the wider the range of u that is called a tie.
        judged: false where a 0 of the field means that nobody judged: no loss. None: everything was judged.
        cell_weight: at least 0, multiplies outside the logarithm.

    Returns:
        Metrics are over cells with a winner only.

    Raises:
        ValueError: wrong shapes, beta not above 0, nu not above 1, labels or weights out of range.
    """
    check_beta(beta)
    check_field(errors, field)
    check_cells("cell_weight", cell_weight, errors, high=float("inf"))
    if not nu > 1:
        raise ValueError(f"nu must be above 1, got {nu}")
    groups = _labelled(field, errors.valid, judged)
    gap_a, gap_b = (group_mean(gap, groups) for gap in clip_gaps(errors))
    sign = gap_a.new_tensor([1.0, -1.0, 1.0])
    logit = -beta / 2 * sign * (gap_a - gap_b)
    is_tie = torch.tensor([False, False, True], device=logit.device).expand(logit.shape)
    shift = math.log(nu)
    won = logistic(logit - shift)
    term_loss = torch.where(is_tie, won + logistic(-logit - shift) - math.log(nu**2 - 1), won)
    terms = Terms(
        logit=logit.flatten(1),
        weight=group_weight(groups, cell_weight, logit.dtype).flatten(1),
        win_gap=torch.where(sign > 0, gap_a, gap_b).detach().flatten(1),
        lose_gap=torch.where(sign > 0, gap_b, gap_a).detach().flatten(1),
        has_winner=~is_tie.flatten(1),
    )
    return reduce_terms(terms, term_loss.flatten(1))


def dense_dpo_ties_weight(
    field: Field, valid: Mask, judged: Mask | None = None, cell_weight: Cells | None = None
) -> Float[Tensor, " pair"]:
    """The `weight` that `dense_dpo_ties` will return, from the labels alone: known before the first forward."""
    return group_weight(_labelled(field, valid, judged), cell_weight, torch.float32).sum((1, 2))


def _labelled(field: Field, valid: Mask, judged: Mask | None) -> Bool[Tensor, "pair frame row column 3"]:
    """Which valid cells are labelled +1, which -1 and which a tie, in this order along the last axis."""
    tie = field == 0 if judged is None else judged & (field == 0)
    return torch.stack([valid & (field == 1), valid & (field == -1), valid & tie], dim=-1)
