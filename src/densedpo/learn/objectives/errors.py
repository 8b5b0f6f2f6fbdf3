"""What an objective takes and gives back, and the algebra that all of them share.

One convention for all: an error is a squared error in the model's own training target, averaged over the elements of a
cell; d = policy - reference is the implicit reward, negated; u = -beta/2 * label * (d_a - d_b) is the logit that the
labelled winner is preferred.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

CellErrors = Float[Tensor, "pair frame row column"]
Field = Int[Tensor, "pair frame row column"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PairErrors:
    """Squared errors per cell of both clips under both models; row = column = 1 for labels in time only.

    Cells that are not `valid` (conditioned frames, padding) take part in nothing and may hold NaN.

    Raises:
        ValueError: the shapes differ, or `valid` is not boolean.
    """

    policy_a: CellErrors
    policy_b: CellErrors
    reference_a: CellErrors
    reference_b: CellErrors
    valid: Bool[Tensor, "pair frame row column"]

    def __post_init__(self) -> None:
        shape = self.valid.shape
        if len(shape) != 4:
            raise ValueError(f"errors are [pair frame row column], got valid of shape {tuple(shape)}")
        for name, value in (
            ("policy_a", self.policy_a),
            ("policy_b", self.policy_b),
            ("reference_a", self.reference_a),
            ("reference_b", self.reference_b),
        ):
            if value.shape != shape:
                raise ValueError(f"{name} has shape {tuple(value.shape)}, valid has {tuple(shape)}")
        if self.valid.dtype != torch.bool:
            raise ValueError(f"valid must be boolean, got {self.valid.dtype}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PairMetrics:
    """Detached diagnostics per pair: means over the pair's terms that have a winner, 0 where there is none.

    Implicit accuracy alone misleads: it also rises when both errors rise, the loser's faster. The gaps show which.
    """

    accuracy: Float[Tensor, " pair"]
    """Share of terms ranked as labelled (u > 0); a term that is not ranked at all (u = 0) counts one half."""
    margin: Float[Tensor, " pair"]
    """Mean u."""
    win_gap: Float[Tensor, " pair"]
    """Policy error minus reference error of the winner: below 0 the winner became more likely."""
    lose_gap: Float[Tensor, " pair"]
    """The same of the loser."""
    loser_dominant: Float[Tensor, " pair"]
    """Share of terms ranked as labelled although the winner's error rose: won only through the loser."""
    weight: Float[Tensor, " pair"]
    """The total weight of these terms: the weight of the loss, but for ties where those carry loss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossOutput:
    """Loss per pair, unreduced: the step divides the sum of `loss` by the sum of `weight` over its whole window."""

    loss: Float[Tensor, " pair"]
    weight: Float[Tensor, " pair"]
    metrics: PairMetrics


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """The logistic terms of an objective, n for each pair; a term of weight 0 is not there.

    `has_winner` is false where a term is a tie, which has no place in the diagnostics; None: all have one.
    """

    logit: Float[Tensor, "pair n"]
    weight: Float[Tensor, "pair n"]
    win_gap: Float[Tensor, "pair n"]
    lose_gap: Float[Tensor, "pair n"]
    has_winner: Bool[Tensor, "pair n"] | None = None


def clip_gaps(errors: PairErrors) -> tuple[CellErrors, CellErrors]:
    """d_a and d_b, policy error minus reference error, in float32 at least; 0 in cells that are not valid."""
    dtype = torch.promote_types(errors.policy_a.dtype, torch.float32)
    gap_a = errors.policy_a.to(dtype) - errors.reference_a.to(dtype)
    gap_b = errors.policy_b.to(dtype) - errors.reference_b.to(dtype)
    zero = gap_a.new_zeros(())
    # where and not a product: 0 * NaN is NaN
    return torch.where(errors.valid, gap_a, zero), torch.where(errors.valid, gap_b, zero)


def check_field(errors: PairErrors, field: Field) -> None:
    """ValueError unless the field has the errors' shape and holds only -1, 0 and +1."""
    if field.shape != errors.valid.shape:
        raise ValueError(f"field has shape {tuple(field.shape)}, errors have {tuple(errors.valid.shape)}")
    if bool((field.abs() > 1).any()):
        raise ValueError(f"a field holds only -1, 0 and +1, got {sorted(set(field.flatten().tolist()))}")


def check_beta(beta: float) -> None:
    """ValueError unless beta is above 0."""
    if not beta > 0:
        raise ValueError(f"beta must be above 0, got {beta}")


def reduce_terms(terms: Terms, term_loss: Float[Tensor, "pair n"]) -> LossOutput:
    """Sums a pair's weighted terms and averages its diagnostics by the same weights."""
    ranked = terms.weight if terms.has_winner is None else terms.weight * terms.has_winner
    total_ranked = ranked.sum(-1)

    def mean(value: Float[Tensor, "pair n"]) -> Float[Tensor, " pair"]:
        total = (ranked * value.detach()).sum(-1)
        return torch.where(total_ranked > 0, total / total_ranked.clamp_min(torch.finfo(total.dtype).tiny), 0.0)

    won = terms.logit.detach()
    metrics = PairMetrics(
        accuracy=mean((won.sign() + 1) / 2),
        margin=mean(won),
        win_gap=mean(terms.win_gap),
        lose_gap=mean(terms.lose_gap),
        loser_dominant=mean(((won > 0) & (terms.win_gap > 0)).to(won.dtype)),
        weight=total_ranked,
    )
    return LossOutput(loss=(terms.weight * term_loss).sum(-1), weight=terms.weight.sum(-1), metrics=metrics)


def logistic(logit: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """-log sigmoid(u), without overflow."""
    return -logsigmoid(logit)
