"""Robust DPO per labelled latent frame: unbiased where a known share of the labels is flipped."""

from __future__ import annotations

from densedpo.learn.objectives.dense_dpo import dense_dpo_terms
from densedpo.learn.objectives.errors import Field, LossOutput, PairErrors, logistic, reduce_terms
from densedpo.learn.objectives.groups import Cells


def dense_robust(
    errors: PairErrors, field: Field, *, beta: float, flip_rate: float, cell_weight: Cells | None = None
) -> LossOutput:
    """The loss whose mean over labels flipped at a known rate is `dense_dpo` on the true ones.

        u = -beta/2 * field * ((policy_a - reference_a) - (policy_b - reference_b))        per cell
        loss = sum of cell_weight * ((1 - e) * -log sigmoid(u) - e * -log sigmoid(-u)) / (1 - 2 e) over non-tie cells
        weight = sum of cell_weight

    Robust DPO (Chowdhury, Kini and Natarajan, arXiv 2403.00409), the loss of its section 3, with e the flip rate. At
    u = 0 the loss is log 2 for every e; with e = 0 it is `dense_dpo`. It is not bounded below: a term falls without end
    as u grows, so few labels and many steps drive it far; `dense_dpo` with a confidence of 1 - e is the bounded, biased
    relative.

    Deviation: per labelled latent frame in place of per answer. Ties and labels in space are as in `dense_dpo`.

    Args:
        errors: squared errors; see `PairErrors`.
        field: +1 where a is better, -1 where b is, 0 for a tie or no label.
        beta: strength of the pull to the reference, under mean reduction with the factor 1/2.
        flip_rate: the share of labels that are wrong, in [0, 0.5).
        cell_weight: at least 0, multiplies outside the logarithm.

    Raises:
        ValueError: wrong shapes, beta not above 0, flip_rate not in [0, 0.5), labels or weights out of range.
    """
    if not 0 <= flip_rate < 0.5:
        raise ValueError(f"flip_rate must lie in [0, 0.5), got {flip_rate}")
    terms = dense_dpo_terms(errors, field, beta=beta, cell_weight=cell_weight)
    right, wrong = logistic(terms.logit), logistic(-terms.logit)
    return reduce_terms(terms, ((1 - flip_rate) * right - flip_rate * wrong) / (1 - 2 * flip_rate))
