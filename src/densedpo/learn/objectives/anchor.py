"""An anchor on the winner: its own error, beside a loss that sees margins only."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from densedpo.learn.objectives.errors import CellErrors, Field, LossOutput, PairErrors, check_field


def winner_error(errors: PairErrors, field: Field) -> Float[Tensor, " pair"]:
    """The policy's error on the winner: the mean over a pair's labelled valid cells, 0 where there are none.

    In a cell labelled +1 the winner is a, in one labelled -1 it is b.

    Raises:
        ValueError: the field has another shape, or labels other than -1, 0, +1.
    """
    check_field(errors, field)
    labelled = errors.valid & (field != 0)
    winner: CellErrors = torch.where(field > 0, errors.policy_a, errors.policy_b)
    # where and not a product: 0 * NaN is NaN
    total = torch.where(labelled, winner, winner.new_zeros(())).flatten(1).sum(1)
    return total / labelled.flatten(1).sum(1).clamp_min(1)


def with_winner_anchor(output: LossOutput, errors: PairErrors, field: Field, *, strength: float) -> LossOutput:
    """The same objective with the flow-matching error of the winner added.

        loss + strength * weight * mean over labelled cells of the policy's error on the winner

    The diffusion form of DPO + NLL (Pang et al., arXiv 2404.19733, equation 1: the winner's negative log-likelihood,
    length-normalised, added to the preference loss), with a squared error for the likelihood. It holds up what the
    margin lets go: a winner that gets less likely as long as the loser does so faster. Weight and metrics stay.

    Raises:
        ValueError: strength below 0, or a field that does not fit.
    """
    if strength < 0:
        raise ValueError(f"strength must be at least 0, got {strength}")
    return replace(output, loss=output.loss + strength * output.weight * winner_error(errors, field))
