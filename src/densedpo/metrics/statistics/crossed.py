"""Means over training seeds and prompts at once: drawn both ways, and their degrees of freedom."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from densedpo.core.seeds import generator
from densedpo.metrics.statistics.intervals import MAX_CELLS, drawn_weights


def pigeonhole(table: NDArray[np.float64], *, seed: int, num_draws: int) -> NDArray[np.float64]:
    """The mean of each draw (draw,) of rows and, apart from them, columns of a table (seed, prompt); Owen 2007.

    NaN cells are left out.
    """
    num_seeds, num_prompts = table.shape
    rng = generator(seed, "two-way bootstrap")
    parts = []
    batch = max(1, MAX_CELLS // num_prompts)
    for start in range(0, num_draws, batch):
        size = min(batch, num_draws - start)
        seeds = drawn_weights(rng, num_units=num_seeds, num_draws=size)
        parts.append(crossed_means(table, seeds, drawn_weights(rng, num_units=num_prompts, num_draws=size)))
    return np.concatenate(parts)


def crossed_means(
    table: NDArray[np.float64], of_seeds: NDArray[np.float64], of_prompts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The mean over prompts of the mean over training seeds for each draw of both (draw,).

    Args:
        table: values (seed, prompt), NaN where there is none; those are left out.
        of_seeds: how often each seed was drawn (draw, seed).
        of_prompts: how often each prompt was drawn (draw, prompt).

    Returns:
        NaN for a draw of nothing but empty cells.
    """
    count = of_seeds @ (~np.isnan(table)).astype(np.float64)
    means = (of_seeds @ np.nan_to_num(table)) / np.maximum(count, 1)
    weight = of_prompts * (count > 0)
    total = weight.sum(axis=1)
    result: NDArray[np.float64] = (weight * means).sum(axis=1) / np.where(total > 0, total, np.nan)
    return result


def satterthwaite(table: NDArray[np.float64]) -> float:
    """Degrees of freedom of the mean of a crossed table (seed, prompt), by Satterthwaite (1946)."""
    num_seeds, num_prompts = table.shape
    if num_prompts < 2:
        return float(num_seeds - 1)
    of_seeds, of_prompts = np.nanmean(table, axis=1), np.nanmean(table, axis=0)
    rest = table - of_seeds[:, None] - of_prompts[None, :] + of_prompts.mean()
    df_rest = (num_seeds - 1) * (num_prompts - 1)
    seeds, prompts = of_seeds.var(ddof=1) / num_seeds, of_prompts.var(ddof=1) / num_prompts
    noise = float(np.nansum(rest**2)) / df_rest / table.size
    whole = max(seeds, prompts, seeds + prompts - noise)
    spread = seeds**2 / (num_seeds - 1) + prompts**2 / (num_prompts - 1) + noise**2 / df_rest
    return max(1.0, float(whole**2 / spread)) if spread > 0 else float(num_seeds - 1)
