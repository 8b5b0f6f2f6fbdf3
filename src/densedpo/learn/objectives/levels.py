"""One pair judged at several levels at once, clip, segment and region, each with a weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from densedpo.learn.objectives.anchor import with_winner_anchor
from densedpo.learn.objectives.dense_dpo import dense_dpo, dense_dpo_weight
from densedpo.learn.objectives.dense_dpo_summed import dense_dpo_summed, dense_dpo_summed_weight
from densedpo.learn.objectives.dpo import dpo, dpo_weight
from densedpo.learn.objectives.errors import Field, LossOutput, PairErrors, PairMetrics, check_field

Mask = Bool[Tensor, "pair frame row column"]
_TINY: Final = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelWeights:
    """What each level counts; 0 leaves it out.

    Raises:
        ValueError: one is below 0, or none is above.
    """

    clip: float = 1.0
    segment: float = 1.0
    region: float = 1.0

    def __post_init__(self) -> None:
        if min(self.clip, self.segment, self.region) < 0 or self.clip + self.segment + self.region == 0:
            raise ValueError(f"weights of levels are at least 0 and one is above, got {self}")


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelFields:
    """The labels of pairs at each level: +1 where a is better, -1 where b is, 0 for a tie or no label."""

    sign: Int[Tensor, " pair"]
    segment: Field
    region: Field


def dpo_levels(
    errors: PairErrors, fields: LevelFields, *, beta: float, weights: LevelWeights, winner_anchor: float = 0.0
) -> LossOutput:
    """The weighted mean of the losses of a pair's levels.

        loss = w_clip * dpo(sign) + w_segment * mean term of dense_dpo(segment) + w_region * region_dpo(region)
        weight = the sum of the weights of the levels at which the pair has a label

    The levels are those of VistaDPO (arXiv 2504.13122: instance, clip, object), which is a method for language models
    that watch video; here each is a preference over a diffusion model's errors. With the weights 1, 0, 1 and an anchor
    of 0.1 it is the loss of LocalDPO (arXiv 2601.04068): a logistic of the whole clip, one of the region, and a tenth
    of the winner's error in each. A pair without a level is weighted by those that it has.

    Deviation: the step divides by the sum of the weights, so that these say how levels share one loss, not how large
    it is. LocalDPO scales the region's margin by 1 + (eta - 0.75)/0.15, which is left out.

    Args:
        errors: squared errors; see `PairErrors`.
        fields: the labels at each level; `region` is 0 everywhere for a pair that has none.
        beta: strength of the pull to the reference, under mean reduction with the factor 1/2, the same at each level.
        weights: of the levels.
        winner_anchor: how many times the winner's error is added at each level; see `with_winner_anchor`.

    Raises:
        ValueError: wrong shapes, beta not above 0, labels out of range.
    """
    check_field(errors, fields.region)
    by_clip = fields.sign[:, None, None, None].expand_as(fields.segment)
    levels = (
        (weights.clip, dpo(errors, fields.sign, beta=beta), by_clip),
        (weights.segment, dense_dpo(errors, fields.segment, beta=beta), fields.segment),
        (weights.region, region_dpo(errors, fields.region, beta=beta), fields.region),
    )
    anchored = [
        (weight, with_winner_anchor(output, errors, field, strength=winner_anchor) if winner_anchor else output)
        for weight, output, field in levels
    ]
    return weighted_mean(anchored)


def dpo_levels_weight(fields: LevelFields, valid: Mask, *, weights: LevelWeights) -> Float[Tensor, " pair"]:
    """The `weight` that `dpo_levels` will return, from the labels alone: known before the first forward."""
    present = (
        (weights.clip, dpo_weight(fields.sign, valid)),
        (weights.segment, dense_dpo_weight(fields.segment, valid)),
        (weights.region, dense_dpo_summed_weight(fields.region, valid)),
    )
    return torch.stack([weight * (labels > 0) for weight, labels in present]).sum(0)


def region_dpo(errors: PairErrors, field: Field, *, beta: float) -> LossOutput:
    """One logistic around the mean over a pair's labelled cells; what is not labelled has no part in it.

        u = -beta/2 * mean over labelled valid cells of field * ((policy_a - reference_a) - (policy_b - reference_b))
        loss = -log sigmoid(u);   weight = 1 if any valid cell is labelled, else 0 (and no loss)

    LocalDPO's term of the region (arXiv 2601.04068). `dense_dpo_summed` divides by all valid cells, so that a small
    region has a small margin there; `dense_dpo` has a logistic for each latent frame.

    Raises:
        ValueError: wrong shapes, beta not above 0, labels other than -1, 0, +1.
    """
    check_field(errors, field)
    return dense_dpo_summed(replace(errors, valid=errors.valid & (field != 0)), field, beta=beta)


def weighted_mean(levels: Sequence[tuple[float, LossOutput]]) -> LossOutput:
    """Several losses of the same pairs as one: each by its own weight per pair, then together by the weights given."""
    shares = torch.stack([weight * (output.weight > 0) for weight, output in levels])
    losses = torch.stack([output.loss / output.weight.clamp_min(_TINY) for _, output in levels])
    metrics = [output.metrics for _, output in levels]
    ranked = torch.stack([weight * (output.metrics.weight > 0) for weight, output in levels])
    total = ranked.sum(0)

    def mean(values: Sequence[Float[Tensor, " pair"]]) -> Float[Tensor, " pair"]:
        return (ranked * torch.stack(list(values))).sum(0) / total.clamp_min(_TINY)

    return LossOutput(
        loss=(shares * losses).sum(0),
        weight=shares.sum(0),
        metrics=PairMetrics(
            accuracy=mean([each.accuracy for each in metrics]),
            margin=mean([each.margin for each in metrics]),
            win_gap=mean([each.win_gap for each in metrics]),
            lose_gap=mean([each.lose_gap for each in metrics]),
            loser_dominant=mean([each.loser_dominant for each in metrics]),
            weight=total,
        ),
    )
