"""Intervals by drawing whole units with replacement, or from a few by Student's t.

They are expanded for small n (Hesterberg 2015, What teachers should know about the bootstrap, 5.2): a plain percentile
interval over 40 prompts misses 6 to 7 % of the time.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from densedpo.core.seeds import generator

Interval: TypeAlias = Literal["bca", "percentile"]

Statistic: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From how often each unit was drawn (draw, unit) to the value of each draw (draw,); NaN where it is undefined."""

NUM_DRAWS: Final = 2000
LEVEL: Final = 0.95
MIN_BOOTSTRAP: Final = 10  # prompts; fewer say too little about their own distribution
MAX_UNDEFINED: Final = 0.05  # of the draws; leaving out more would make the interval too narrow
MAX_CELLS: Final = 4_000_000  # of the matrix of draws held at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """An interval and how it was found; both ends are None where there is none, and `method` says why."""

    low: float | None
    high: float | None
    method: str


def resampled_bounds(
    statistic: Statistic,
    *,
    num_units: int,
    unit: str,
    seed: int,
    num_draws: int = NUM_DRAWS,
    level: float = LEVEL,
) -> Bounds:
    """An interval for any statistic of whole units: an expanded percentile bootstrap, or with few units a jackknife t.

    Args:
        unit: what is drawn, in the plural, for the method's text: "prompts".
    """
    if num_units < 2:
        return Bounds(low=None, high=None, method=f"no interval from fewer than two {unit}")
    if num_units < MIN_BOOTSTRAP:
        return _jackknife_bounds(statistic, num_units=num_units, unit=unit, level=level)
    batch = max(1, MAX_CELLS // num_units)
    if num_draws <= batch:
        parts = [statistic(_bootstrap_weights(seed, unit, num_units=num_units, num_draws=num_draws))]
    else:
        rng = generator(seed, "bootstrap", unit)
        parts = [
            statistic(drawn_weights(rng, num_units=num_units, num_draws=min(batch, num_draws - start)))
            for start in range(0, num_draws, batch)
        ]
    return percentile_bounds(np.concatenate(parts), num_units=num_units, unit=unit, level=level)


@lru_cache(maxsize=1)
def _bootstrap_weights(seed: int, unit: str, *, num_units: int, num_draws: int) -> NDArray[np.float64]:
    """Draws that the statistics of one sample share; the last ones are kept, at most MAX_CELLS numbers."""
    weights = drawn_weights(generator(seed, "bootstrap", unit), num_units=num_units, num_draws=num_draws)
    weights.flags.writeable = False
    return weights


def drawn_weights(rng: np.random.Generator, *, num_units: int, num_draws: int) -> NDArray[np.float64]:
    """How often each unit comes up in each draw with replacement (draw, unit); rows sum to the number of units."""
    drawn = rng.integers(num_units, size=(num_draws, num_units))  # several times quicker than rng.multinomial
    cells = drawn + num_units * np.arange(num_draws)[:, None]
    counts = np.bincount(cells.ravel(), minlength=num_draws * num_units)
    return counts.reshape(num_draws, num_units).astype(np.float64)


def percentile_bounds(draws: NDArray[np.float64], *, num_units: float, unit: str, level: float = LEVEL) -> Bounds:
    """The expanded percentile interval of a statistic's bootstrap draws (draw,); NaN draws are left out and counted.

    Args:
        num_units: how many units were drawn from, which sets how far the level is expanded.
    """
    if num_units <= 1:
        return Bounds(low=None, high=None, method=f"no interval from fewer than two {unit}")
    defined = draws[~np.isnan(draws)]
    num_undefined = len(draws) - len(defined)
    if num_undefined > MAX_UNDEFINED * len(draws):
        return Bounds(
            low=None, high=None, method=f"no interval: undefined in {num_undefined} of {len(draws)} draws of {unit}"
        )
    tail = (1 - expanded_level(num_units, level)) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    left_out = f", {num_undefined} undefined and left out" if num_undefined else ""
    method = f"bootstrap over {unit}, expanded percentile, {len(draws)} draws{left_out}"
    return Bounds(low=float(low), high=float(high), method=method)


def _jackknife_bounds(statistic: Statistic, *, num_units: int, unit: str, level: float) -> Bounds:
    value = float(statistic(np.ones((1, num_units)))[0])
    without = statistic(1 - np.eye(num_units))
    if not (math.isfinite(value) and np.isfinite(without).all()):
        return Bounds(low=None, high=None, method=f"no interval: undefined without some of {num_units} {unit}")
    error = math.sqrt((num_units - 1) / num_units * float(((without - without.mean()) ** 2).sum()))
    half = float(stats.t.ppf((1 + level) / 2, df=num_units - 1)) * error
    return Bounds(low=value - half, high=value + half, method=f"jackknife and Student's t over {unit}")


def all_equal(values: NDArray[np.float64]) -> bool:
    """Whether values differ by no more than rounding makes them."""
    return bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))


def mean_bounds(means: NDArray[np.float64], *, interval: Interval, num_draws: int, seed: int, level: float) -> Bounds:
    """The interval of the mean of values that are one for each prompt."""
    n = len(means)
    if n < 2:
        return Bounds(low=None, high=None, method="no interval from one prompt")
    centre = float(means.mean())
    # equal values have no acceleration, for which scipy answers NaN; their interval is the point itself
    if all_equal(means):
        return Bounds(low=centre, high=centre, method="all prompts have the same value")
    if n < MIN_BOOTSTRAP:
        half = float(stats.t.ppf((1 + level) / 2, df=n - 1) * means.std(ddof=1)) / math.sqrt(n)
        return Bounds(low=centre - half, high=centre + half, method="Student's t over prompts")
    low, high = _bootstrap(means, interval=interval, num_draws=num_draws, seed=seed, level=level)
    if not (math.isfinite(low) and math.isfinite(high)):  # BCa of data that are nearly all equal
        interval = "percentile"
        low, high = _bootstrap(means, interval=interval, num_draws=num_draws, seed=seed, level=level)
    name = {"bca": "BCa", "percentile": "percentile"}[interval]
    return Bounds(low=low, high=high, method=f"bootstrap over prompts, expanded {name}, {num_draws} draws")


def _bootstrap(
    means: NDArray[np.float64], *, interval: Interval, num_draws: int, seed: int, level: float
) -> tuple[float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # answered by NaN, which the caller handles
        result = stats.bootstrap(
            (means,),
            np.mean,
            n_resamples=num_draws,
            batch=max(1, MAX_CELLS // len(means)),
            confidence_level=expanded_level(len(means), level),
            method={"bca": "BCa", "percentile": "percentile"}[interval],
            rng=generator(seed, "bootstrap"),
        )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def expanded_level(n: float, level: float) -> float:
    """The level at which a bootstrap interval over n values is as wide, to first order, as Student's t at `level`."""
    quantile = stats.t.ppf((1 + level) / 2, df=n - 1) * math.sqrt(n / (n - 1))
    return float(2 * stats.norm.cdf(quantile) - 1)
