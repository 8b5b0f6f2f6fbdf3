"""Whether a change is small enough to ignore: two one-sided tests against a margin that was declared beforehand.

"Not significant" does not mean "no loss"; a small study finds nothing. Here the burden is turned round: equivalence is
claimed only where the data exclude a change of the margin or more (Schuirmann 1987).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from densedpo.core.errors import BadInput
from densedpo.core.seeds import generator
from densedpo.metrics.statistics import (
    MIN_BOOTSTRAP,
    NUM_DRAWS,
    Estimate,
    Key,
    differences,
    drawn_weights,
    prompt_means,
)

ALPHA: Final = 0.05

EquivalenceMethod: TypeAlias = Literal["t", "bootstrap"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Equivalence:
    """Two one-sided tests of a paired difference against -margin and +margin.

    `difference` carries the interval at level 1 - 2 alpha: where it lies within the margins, `equivalent` holds, and
    the other way round (with the bootstrap, but for a draw that lies on the edge).
    """

    difference: Estimate
    margin: float
    alpha: float
    p_loss: float
    """Of a loss of the margin or more; small means: no such loss."""
    p_gain: float
    """Of a gain of the margin or more; small means: no such gain."""

    @property
    def p(self) -> float:
        """The p-value of the pair of tests: the larger of the two."""
        return max(self.p_loss, self.p_gain)

    @property
    def equivalent(self) -> bool:
        """Whether changes of the margin or more are excluded both ways."""
        return self.p < self.alpha

    @property
    def no_loss(self) -> bool:
        """Whether a loss of the margin or more is excluded; a gain of any size is allowed (non-inferiority)."""
        return self.p_loss < self.alpha


def equivalence(
    base: Mapping[Key, float | None],
    other: Mapping[Key, float | None],
    *,
    margin: float,
    seed: int,
    alpha: float = ALPHA,
    method: EquivalenceMethod = "t",
    num_draws: int = NUM_DRAWS,
) -> Equivalence | None:
    """Tests whether other - base lies within the margin, over per-prompt means of the same prompts and seeds.

    Args:
        margin: the smallest change that matters, in the values' unit; declare it before looking at the data.
        method: "t" is Student's t over prompts; "bootstrap" draws prompts and studentises each draw (bootstrap-t). With
            fewer than 10 prompts, or nearly all equal, both are the t; the estimate's `method` says which it was.

    Returns:
        None with fewer than two prompts that have a value.

    Raises:
        BadInput: the margin is not positive, alpha not in (0, 0.5), the keys differ, or a value is not finite.
    """
    check_margin(margin)
    if not 0 < alpha < 0.5:
        raise BadInput(f"alpha is {alpha}; it lies in (0, 0.5)")
    own = differences(base, other)
    means = prompt_means(own)
    if len(means) < 2:
        return None
    found = _one_sided(means, margin=margin, alpha=alpha, method=method, seed=seed, num_draws=num_draws)
    num_excluded = sum(value is None for value in own.values())
    difference = Estimate(
        value=float(means.mean()),
        low=found.low,
        high=found.high,
        n=len(means),
        num_values=len(own) - num_excluded,
        num_excluded=num_excluded,
        method=f"paired difference; {found.method}",
        seed=seed,
        level=1 - 2 * alpha,
    )
    return Equivalence(difference=difference, margin=margin, alpha=alpha, p_loss=found.p_loss, p_gain=found.p_gain)


def within_margin(estimate: Estimate, margin: float, *, alpha: float = ALPHA) -> bool:
    """Whether an estimate's interval lies within (-margin, margin): the same two tests for any kind of interval.

    Raises:
        BadInput: the margin is not positive, or the interval's level is under 1 - 2 alpha: it would claim too much.
    """
    check_margin(margin)
    if estimate.level < 1 - 2 * alpha - 1e-12:
        raise BadInput(f"an interval at level {estimate.level} is too narrow for alpha {alpha}; use {1 - 2 * alpha:g}")
    return estimate.low is not None and estimate.high is not None and -margin < estimate.low <= estimate.high < margin


def check_margin(margin: float) -> None:
    """Refuses a margin that is not a positive finite number."""
    if not (margin > 0 and math.isfinite(margin)):
        raise BadInput(f"the margin is {margin}; declare the smallest change that matters, a positive number")


@dataclass(frozen=True, kw_only=True, slots=True)
class _OneSided:
    p_loss: float
    p_gain: float
    low: float
    high: float
    method: str


def _one_sided(
    means: NDArray[np.float64], *, margin: float, alpha: float, method: EquivalenceMethod, seed: int, num_draws: int
) -> _OneSided:
    n, centre = len(means), float(means.mean())
    error = float(means.std(ddof=1)) / math.sqrt(n)
    if error <= 1e-12 * max(1.0, abs(centre)):
        return _OneSided(
            p_loss=float(centre <= -margin),
            p_gain=float(centre >= margin),
            low=centre,
            high=centre,
            method="all prompts have the same value",
        )
    if method == "bootstrap" and n >= MIN_BOOTSTRAP:
        draws = _studentised(means, seed=seed, num_draws=num_draws)
        # draws of equal values have no error: so few values differ that the bootstrap knows nothing of their spread
        if np.isfinite(draws).all():
            return _from_draws(draws, centre=centre, error=error, margin=margin, alpha=alpha)
    half = float(stats.t.ppf(1 - alpha, df=n - 1)) * error
    return _OneSided(
        p_loss=float(stats.ttest_1samp(means, -margin, alternative="greater").pvalue),
        p_gain=float(stats.ttest_1samp(means, margin, alternative="less").pvalue),
        low=centre - half,
        high=centre + half,
        method="Student's t over prompts, two one-sided tests",
    )


def _from_draws(draws: NDArray[np.float64], *, centre: float, error: float, margin: float, alpha: float) -> _OneSided:
    below, above = np.quantile(draws, [alpha, 1 - alpha])
    # what was seen counts as one of the draws, so that no p-value is 0
    return _OneSided(
        p_loss=float((1 + (draws >= (centre + margin) / error).sum()) / (1 + len(draws))),
        p_gain=float((1 + (draws <= (centre - margin) / error).sum()) / (1 + len(draws))),
        low=centre - float(above) * error,
        high=centre - float(below) * error,
        method=f"bootstrap-t over prompts, {len(draws)} draws, two one-sided tests",
    )


def _studentised(means: NDArray[np.float64], *, seed: int, num_draws: int) -> NDArray[np.float64]:
    """(Mean of the draw - mean) / error of the draw (draw,); infinite for a draw of equal values."""
    n = len(means)
    centred = means - means.mean()
    weights = drawn_weights(generator(seed, "bootstrap-t"), num_units=n, num_draws=num_draws)
    shift = weights @ centred / n
    variance = (weights @ centred**2 / n - shift**2) * n / (n - 1)
    flat = variance <= 1e-12 * float(means.var())
    return np.where(flat, np.inf, shift / np.sqrt(np.where(flat, 1.0, variance) / n))
