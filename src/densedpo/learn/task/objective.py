"""The objective that a run's settings name: its loss over a batch, and what a pair weighs in it by its labels alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import torch

from densedpo.learn.objectives import (
    LevelFields,
    LevelWeights,
    LossOutput,
    PairErrors,
    dense_dpo,
    dense_dpo_summed,
    dense_dpo_summed_weight,
    dense_dpo_ties,
    dense_dpo_ties_weight,
    dense_dpo_weight,
    dense_ipo,
    dense_robust,
    dpo,
    dpo_levels,
    dpo_levels_weight,
    dpo_weight,
)

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from densedpo.learn.config import LearnConfig
    from densedpo.learn.feed.batch import PairBatch
    from densedpo.learn.feed.inputs import LabelledPair


def preference_loss(
    config: LearnConfig,
    errors: PairErrors,
    batch: PairBatch,
    cell_weight: Float[Tensor, "batch frame 1 1"] | None = None,
) -> LossOutput:
    """The configured objective; sft has no preference loss and is measured as dense_dpo would be."""
    device = errors.policy_a.device
    field, sign = batch.field.to(device), batch.sign.to(device)
    weight = None if cell_weight is None else cell_weight.to(device).expand_as(field)
    match config.objective:
        case "dense_dpo" | "sft":
            confidence = batch.confidence.to(device) if config.use_confidence else None
            return dense_dpo(errors, field, beta=config.beta, confidence=confidence, cell_weight=weight)
        case "dense_ipo":
            return dense_ipo(errors, field, beta=config.beta, cell_weight=weight)
        case "dense_robust":
            return dense_robust(errors, field, beta=config.beta, flip_rate=config.flip_rate, cell_weight=weight)
        case "dense_dpo_ties":
            judged = batch.judged.to(device)
            return dense_dpo_ties(errors, field, beta=config.beta, nu=config.nu, judged=judged, cell_weight=weight)
        case "dense_dpo_summed":
            return dense_dpo_summed(errors, field, beta=config.beta)
        case "dpo":
            return dpo(errors, sign, beta=config.beta)
        case "dpo_levels":
            fields = LevelFields(sign=sign, segment=batch.segment.to(device), region=batch.region.to(device))
            weights, anchor = level_weights(config), config.winner_anchor
            return dpo_levels(errors, fields, beta=config.beta, weights=weights, winner_anchor=anchor)
        case _ as unknown:
            assert_never(unknown)


def level_weights(config: LearnConfig) -> LevelWeights:
    """The configured weights of clip, segments and region."""
    clip, segment, region = config.level_weights
    return LevelWeights(clip=clip, segment=segment, region=region)


def label_weight(
    config: LearnConfig, pair: LabelledPair, cell_weight: Float[Tensor, "1 frame 1 1"] | None = None
) -> float:
    """The weight of a pair in the loss, from its labels alone (and its own clips, where cells are weighted)."""
    labels = pair.labels
    field = torch.from_numpy(labels.cells.copy())[None]
    valid = torch.from_numpy(labels.over_cells(labels.valid).copy())[None]
    cell_weight = None if cell_weight is None else cell_weight.expand_as(field)
    match config.objective:
        case "dense_dpo" | "dense_ipo" | "dense_robust" | "sft":
            weight = dense_dpo_weight(field, valid, cell_weight)
        case "dense_dpo_ties":
            judged = torch.from_numpy(labels.over_cells(labels.judged).copy())[None]
            weight = dense_dpo_ties_weight(field, valid, judged, cell_weight)
        case "dense_dpo_summed":
            weight = dense_dpo_summed_weight(field, valid)
        case "dpo":
            weight = dpo_weight(torch.tensor([labels.sign]), valid)
        case "dpo_levels":
            fields = LevelFields(
                sign=torch.tensor([labels.sign]),
                segment=torch.from_numpy(labels.over_cells(labels.field).copy())[None],
                region=torch.from_numpy(labels.region)[None],
            )
            weight = dpo_levels_weight(fields, valid, weights=level_weights(config))
        case _ as unknown:
            assert_never(unknown)
    return float(weight.sum())
