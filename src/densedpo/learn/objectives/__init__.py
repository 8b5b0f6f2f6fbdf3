"""Preference objectives: pure functions of squared errors and a preference field.

They know no model, config, device or number of processes, and import only torch and this folder.
"""

from densedpo.learn.objectives.anchor import winner_error, with_winner_anchor
from densedpo.learn.objectives.d2_dpo import PairTokens, d2_dpo, token_errors
from densedpo.learn.objectives.dense_dpo import dense_dpo, dense_dpo_weight
from densedpo.learn.objectives.dense_dpo_summed import dense_dpo_summed, dense_dpo_summed_weight
from densedpo.learn.objectives.dense_dpo_ties import dense_dpo_ties, dense_dpo_ties_weight
from densedpo.learn.objectives.dense_ipo import dense_ipo
from densedpo.learn.objectives.dense_robust import dense_robust
from densedpo.learn.objectives.dpo import dpo, dpo_weight
from densedpo.learn.objectives.errors import LossOutput, PairErrors, PairMetrics
from densedpo.learn.objectives.levels import LevelFields, LevelWeights, dpo_levels, dpo_levels_weight, region_dpo

__all__ = [
    "LevelFields",
    "LevelWeights",
    "LossOutput",
    "PairErrors",
    "PairMetrics",
    "PairTokens",
    "d2_dpo",
    "dense_dpo",
    "dense_dpo_summed",
    "dense_dpo_summed_weight",
    "dense_dpo_ties",
    "dense_dpo_ties_weight",
    "dense_dpo_weight",
    "dense_ipo",
    "dense_robust",
    "dpo",
    "dpo_levels",
    "dpo_levels_weight",
    "dpo_weight",
    "region_dpo",
    "token_errors",
    "winner_error",
    "with_winner_anchor",
]
