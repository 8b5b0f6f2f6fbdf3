"""IPO per labelled latent frame: a margin to reach instead of one to widen without end."""

from __future__ import annotations

import torch

from densedpo.learn.objectives.dense_dpo import dense_dpo_terms
from densedpo.learn.objectives.errors import Field, LossOutput, PairErrors, reduce_terms
from densedpo.learn.objectives.groups import Cells


def dense_ipo(errors: PairErrors, field: Field, *, beta: float, cell_weight: Cells | None = None) -> LossOutput:
    """The squared distance of the margin from 1/2.

        u = -beta/2 * field * ((policy_a - reference_a) - (policy_b - reference_b))        per cell
        loss = sum over non-tie cells of cell_weight * (u - 1/2)^2;   weight = sum of cell_weight

    IPO (Azar et al., arXiv 2310.12036), equation 17: (h - 1/(2 tau))^2 with h the difference of the log ratios. A
    squared error with the factor 1/2 stands for a negative log-likelihood, so h = u / beta, tau = beta. A sigmoid goes
    on rewarding a margin however wide it is, and where labels are never wrong it drives the policy ever further from
    the reference; here the margin has an optimum.

    Deviations: multiplied by beta^2, so that a gradient at u = 0 is of the size of dense_dpo's (1 against 1/2 per u)
    and beta and learning rate stay apart; per labelled latent frame in place of per answer. Ties and labels in space
    are treated as in `dense_dpo`.

    Args:
        errors: squared errors; see `PairErrors`.
        field: +1 where a is better, -1 where b is, 0 for a tie or no label.
        beta: strength of the pull to the reference, under mean reduction with the factor 1/2.
        cell_weight: at least 0, multiplies outside the square.

    Raises:
        ValueError: wrong shapes, beta not above 0, labels or weights out of range.
    """
    terms = dense_dpo_terms(errors, field, beta=beta, cell_weight=cell_weight)
    return reduce_terms(terms, torch.square(terms.logit - 0.5))
