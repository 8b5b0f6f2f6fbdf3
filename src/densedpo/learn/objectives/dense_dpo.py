"""DenseDPO (arXiv 2506.03517, appendix E): a logistic loss per labelled latent frame."""

from __future__ import annotations

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


def dense_dpo(
    errors: PairErrors,
    field: Field,
    *,
    beta: float,
    confidence: Cells | None = None,
    cell_weight: Cells | None = None,
) -> LossOutput:
    """The paper's default loss: ties are dropped, each other cell has its own sigmoid.

        u = -beta/2 * field * ((policy_a - reference_a) - (policy_b - reference_b))        per cell
        loss = sum over non-tie cells of cell_weight * -log sigmoid(u);   weight = sum of cell_weight

    DenseDPO, appendix E (pseudo-code). The paper's mean over all non-tie frames of the batch is the step's total loss
    over its total weight, so that accumulation and more processes change nothing.

    Deviations: labels in space too (row, column > 1), where the errors of one sign within a latent frame are averaged
    first and the logistic is per (frame, sign), with the mean `cell_weight` and `confidence` of those cells: so a label
    spread over a frame equals the label of the frame. `confidence` and `cell_weight` are not in the paper.

    Args:
        errors: squared errors; see `PairErrors`.
        field: +1 where a is better, -1 where b is, 0 for a tie or no label.
        beta: strength of the pull to the reference, under mean reduction with the factor 1/2.
        confidence: p in [0, 1] that the label is right: -p log sigmoid(u) - (1-p) log sigmoid(-u).
        cell_weight: at least 0, multiplies outside the sigmoid.

    Raises:
        ValueError: wrong shapes, beta not above 0, labels, confidences or weights out of range.
    """
    check_cells("confidence", confidence, errors, high=1.0)
    terms = dense_dpo_terms(errors, field, beta=beta, cell_weight=cell_weight)
    term_loss = logistic(terms.logit)
    if confidence is not None:
        sure = group_mean(confidence.to(terms.logit.dtype), _labelled(field, errors.valid)).flatten(1)
        term_loss = sure * term_loss + (1 - sure) * logistic(-terms.logit)
    return reduce_terms(terms, term_loss)


def dense_dpo_terms(errors: PairErrors, field: Field, *, beta: float, cell_weight: Cells | None = None) -> Terms:
    """The margin u of every (latent frame, sign) that carries a label: what all losses that drop ties share.

    Raises:
        ValueError: wrong shapes, beta not above 0, labels or weights out of range.
    """
    check_beta(beta)
    check_field(errors, field)
    check_cells("cell_weight", cell_weight, errors, high=float("inf"))
    labelled = _labelled(field, errors.valid)
    gap_a, gap_b = (group_mean(gap, labelled) for gap in clip_gaps(errors))
    sign = gap_a.new_tensor([1.0, -1.0])
    logit = -beta / 2 * sign * (gap_a - gap_b)
    return Terms(
        logit=logit.flatten(1),
        weight=group_weight(labelled, cell_weight, logit.dtype).flatten(1),
        win_gap=torch.where(sign > 0, gap_a, gap_b).detach().flatten(1),
        lose_gap=torch.where(sign > 0, gap_b, gap_a).detach().flatten(1),
    )


def dense_dpo_weight(
    field: Field, valid: Bool[Tensor, "pair frame row column"], cell_weight: Cells | None = None
) -> Float[Tensor, " pair"]:
    """The `weight` that `dense_dpo` will return, from the labels alone: known before the first forward."""
    return group_weight(_labelled(field, valid), cell_weight, torch.float32).sum((1, 2))


def _labelled(field: Field, valid: Bool[Tensor, "pair frame row column"]) -> Bool[Tensor, "pair frame row column 2"]:
    """Which valid cells are labelled +1 and which -1, in this order along the last axis."""
    return torch.stack([valid & (field == 1), valid & (field == -1)], dim=-1)
