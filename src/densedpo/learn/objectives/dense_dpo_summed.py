"""DenseDPO's equation 7 (arXiv 2506.03517): one sigmoid around the label-weighted sum over the clip."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from densedpo.learn.objectives.errors import (
    CellErrors,
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


def dense_dpo_summed(errors: PairErrors, field: Field, *, beta: float) -> LossOutput:
    """The main text's form of the loss, in which opposing segments cancel inside one sigmoid.

        u = -beta/2 * 1/F_valid * sum over valid cells of field * ((policy_a - reference_a) - (policy_b - reference_b))
        loss = -log sigmoid(u);   weight = 1 if any valid cell is not a tie, else 0 (and no loss)

    DenseDPO, equation 7. Deviation: the paper sums; we divide by the number of valid cells, ties counted, so that
    beta means the same in every objective and a field of +1 everywhere is `dpo` exactly.

    Raises:
        ValueError: wrong shapes, beta not above 0, labels other than -1, 0, +1.
    """
    check_beta(beta)
    check_field(errors, field)
    labels = (field * errors.valid).to(clip_gaps(errors)[0].dtype)
    return clip_logistic(errors, labels, beta=beta)


def dense_dpo_summed_weight(field: Field, valid: Bool[Tensor, "pair frame row column"]) -> Float[Tensor, " pair"]:
    """The `weight` that `dense_dpo_summed` will return, from the labels alone."""
    return ((field != 0) & valid).flatten(1).any(1).float()


def clip_logistic(errors: PairErrors, labels: CellErrors, *, beta: float) -> LossOutput:
    """One logistic term per pair over its valid cells: the algebra that `dpo` and `dense_dpo_summed` share.

    The gaps are means over the labelled cells, each cell's winner taken by its own label.
    """
    gap_a, gap_b = clip_gaps(errors)
    num_valid = errors.valid.flatten(1).sum(1).clamp_min(1)
    logit = -beta / 2 * (labels * (gap_a - gap_b)).flatten(1).sum(1) / num_valid
    wins, losses = labels.clamp_min(0), (-labels).clamp_min(0)
    num_labelled = labels.abs().flatten(1).sum(1)
    win_gap = (wins * gap_a + losses * gap_b).flatten(1).sum(1).detach() / num_labelled.clamp_min(1)
    lose_gap = (wins * gap_b + losses * gap_a).flatten(1).sum(1).detach() / num_labelled.clamp_min(1)
    terms = Terms(
        logit=logit[:, None],
        weight=(num_labelled > 0).to(logit.dtype)[:, None],
        win_gap=win_gap[:, None],
        lose_gap=lose_gap[:, None],
    )
    return reduce_terms(terms, logistic(terms.logit))
