"""Cells of one label within a latent frame count together: the algebra of the objectives that are dense in time."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from densedpo.learn.objectives.errors import PairErrors

Cells = Float[Tensor, "pair frame row column"]
Groups = Bool[Tensor, "pair frame row column label"]
Grouped = Float[Tensor, "pair frame label"]


def group_mean(value: Cells, groups: Groups) -> Grouped:
    """The mean over the cells of each (frame, label), 0 where there are none.

    Args:
        groups: which cells carry which label.
    """
    total = torch.where(groups, value[..., None], value.new_zeros(())).sum((2, 3))
    return total / groups.sum((2, 3)).clamp_min(1)


def group_weight(groups: Groups, cell_weight: Cells | None, dtype: torch.dtype) -> Grouped:
    """The mean `cell_weight` of each (frame, label), or 1 where there are cells and no weights are given."""
    if cell_weight is None:
        return groups.any(3).any(2).to(dtype)
    return group_mean(cell_weight.to(dtype), groups)


def check_cells(name: str, value: Cells | None, errors: PairErrors, *, high: float) -> None:
    """ValueError unless the values fit the errors and lie in [0, high] on valid cells."""
    if value is None:
        return
    if value.shape != errors.valid.shape:
        raise ValueError(f"{name} has shape {tuple(value.shape)}, errors have {tuple(errors.valid.shape)}")
    if bool((errors.valid & ~((value >= 0) & (value <= high))).any()):
        raise ValueError(f"{name} must lie in [0, {high:g}] on valid cells")
