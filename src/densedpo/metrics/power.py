"""How much data a claim needs, and how small a difference the data at hand could have shown.

Before a study: from an assumed win rate or spread. After it: from the observed spread and ties, never from the observed
effect, which would only restate the p-value. Power counts independent values; m values of one prompt that correlate
by ICC are worth m / (1 + (m - 1) ICC) of them (Kish 1965, the design effect).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from densedpo.core.errors import BadInput
from densedpo.metrics.statistics import NUM_DRAWS, Estimate, Key, differences, prompt_means, resampled_bounds

ALPHA: Final = 0.05
POWER: Final = 0.8


@dataclass(frozen=True, kw_only=True, slots=True)
class Detectable:
    """The smallest effect that a study of this size finds with this power, by a two-sided test at alpha.

    For a win rate `value` is the rate above one half (its mirror below is found as well); for a difference it is in the
    values' unit, either way. `n` counts prompts, or judgements where `method` says so.
    """

    value: float
    n: int
    num_excluded: int
    power: float
    alpha: float
    method: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Clustering:
    """How much values of one prompt repeat each other, and how many independent values they are worth."""

    icc: Estimate
    deff: float
    num_values: int
    n_eff: float


def num_judgements(
    rate: float, *, power: float = POWER, alpha: float = ALPHA, deff: float = 1.0, tie_rate: float = 0.0
) -> int:
    """The judgements needed to tell a win rate from one half.

    n = ((z_(alpha/2) / 2 + z_beta sqrt(p (1 - p))) / (p - 1/2))^2 decided independent judgements; times the design
    effect, over the share that is not a tie.

    Args:
        rate: the true share of wins among decided judgements.

    Raises:
        BadInput: an argument out of range, or a rate of one half, which no number of judgements tells from itself.
    """
    _check(power=power, alpha=alpha, deff=deff, tie_rate=tie_rate)
    if not 0 < rate < 1 or rate == 0.5:
        raise BadInput(f"the win rate is {rate}; give one in (0, 1) other than 0.5")
    z_alpha, z_beta = stats.norm.ppf(1 - alpha / 2), stats.norm.ppf(power)
    decided = ((z_alpha / 2 + z_beta * math.sqrt(rate * (1 - rate))) / abs(rate - 0.5)) ** 2
    return math.ceil(float(decided) * deff / (1 - tie_rate) - 1e-9)


def detectable_win_rate(
    n: int, *, power: float = POWER, alpha: float = ALPHA, deff: float = 1.0, tie_rate: float = 0.0
) -> Detectable | None:
    """The smallest win rate above one half that n judgements, ties among them, tell from it: `num_judgements` inverted.

    Returns:
        None if n judgements are too few for any win rate.

    Raises:
        BadInput: an argument out of range.
    """
    _check(power=power, alpha=alpha, deff=deff, tie_rate=tie_rate)
    if n < 1:
        raise BadInput(f"{n} judgements; give at least 1")
    decided = n * (1 - tie_rate) / deff
    z_alpha, z_beta = stats.norm.ppf(1 - alpha / 2), stats.norm.ppf(power)

    def surplus(rate: float) -> float:
        return float((rate - 0.5) * math.sqrt(decided) - z_alpha / 2 - z_beta * math.sqrt(rate * (1 - rate)))

    if surplus(1.0) < 0:
        return None
    rate = float(optimize.brentq(surplus, 0.5, 1.0))
    assumed = f"design effect {deff:.3g}, {100 * tie_rate:.3g} % ties"
    return Detectable(
        value=rate, n=n, num_excluded=0, power=power, alpha=alpha, method=f"normal, over judgements; {assumed}"
    )


def num_prompts(
    difference: float,
    *,
    sd: float,
    seeds_per_prompt: int = 1,
    icc: float = 0.0,
    power: float = POWER,
    alpha: float = ALPHA,
) -> int:
    """The prompts needed to find a paired difference, by a two-sided t-test over prompts.

    Args:
        sd: the standard deviation of the paired difference of one clip.
        icc: the correlation of such differences of one prompt.

    Raises:
        BadInput: an argument out of range.
    """
    if difference == 0 or not math.isfinite(difference):
        raise BadInput(f"the difference is {difference}; give the smallest one that matters, not 0")
    spread = _sd_of_means(sd, seeds_per_prompt=seeds_per_prompt, icc=icc)
    _check(power=power, alpha=alpha)
    size = abs(difference) / spread
    low, high = 2, 2
    while _t_power(size, high, alpha=alpha) < power:
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _t_power(size, middle, alpha=alpha) >= power else (middle + 1, high)
    return high


def detectable_difference(
    n: int,
    *,
    sd: float,
    seeds_per_prompt: int = 1,
    icc: float = 0.0,
    power: float = POWER,
    alpha: float = ALPHA,
) -> Detectable:
    """The smallest paired difference that n prompts show, before there are data.

    Args:
        sd: the assumed standard deviation of the paired difference of one clip.
        icc: the assumed correlation of such differences of one prompt.

    Raises:
        BadInput: an argument out of range.
    """
    spread = _sd_of_means(sd, seeds_per_prompt=seeds_per_prompt, icc=icc)
    assumed = f"assumed standard deviation {sd:.4g}, {seeds_per_prompt} seeds a prompt, ICC {icc:.3g}"
    return _detectable(n, spread=spread, num_excluded=0, power=power, alpha=alpha, source=assumed)


def observed_detectable_difference(
    base: Mapping[Key, float | None],
    other: Mapping[Key, float | None],
    *,
    power: float = POWER,
    alpha: float = ALPHA,
) -> Detectable | None:
    """The smallest paired difference that these prompts and seeds could have shown, from their spread.

    Returns:
        None with fewer than two prompts, or where all prompts differ by the same amount.

    Raises:
        BadInput: the two do not hold the same prompts and seeds, or an argument is out of range.
    """
    own = differences(base, other)
    means = prompt_means(own)
    if len(means) < 2 or float(means.std(ddof=1)) <= 1e-12 * max(1.0, float(np.abs(means).max())):
        return None
    spread = float(means.std(ddof=1))
    num_excluded = sum(value is None for value in own.values())
    source = f"observed standard deviation of prompts {spread:.4g}"
    return _detectable(len(means), spread=spread, num_excluded=num_excluded, power=power, alpha=alpha, source=source)


def observed_detectable_win_rate(
    outcomes: Mapping[Key, int | None], *, power: float = POWER, alpha: float = ALPHA, seed: int
) -> Detectable | None:
    """The smallest win rate that these judgements could have told from one half, from their ties and their clustering.

    Args:
        outcomes: +1, 0, -1 by prompt and number of the judgement, as in `rates.win_rate`.

    Returns:
        None if there are too few judgements for any win rate.

    Raises:
        BadInput: an argument out of range.
    """
    given = {key: outcome for key, outcome in outcomes.items() if outcome is not None}
    decided: dict[Key, float | None] = {key: float(outcome > 0) for key, outcome in given.items() if outcome != 0}
    if not decided:
        return None
    found = clustering(decided, seed=seed)
    tie_rate = 1 - len(decided) / len(given)
    rate = detectable_win_rate(
        len(given), power=power, alpha=alpha, deff=1.0 if found is None else found.deff, tie_rate=tie_rate
    )
    if rate is None:
        return None
    return Detectable(
        value=rate.value,
        n=rate.n,
        num_excluded=len(outcomes) - len(given),
        power=power,
        alpha=alpha,
        method=f"{rate.method}, both observed",
    )


def clustering(values: Mapping[Key, float | None], *, seed: int, num_draws: int = NUM_DRAWS) -> Clustering | None:
    """The intraclass correlation of values of one prompt, their design effect and what they are worth.

    ICC(1) by one-way analysis of variance with unequal prompts (Donner 1986); deff = 1 + (m - 1) ICC with m the mean
    size of the prompt that a value belongs to. A negative ICC is reported and counted as 0 in deff.

    Returns:
        None where it does not exist: one prompt, one value for every prompt, or values that are all equal.

    Raises:
        BadInput: a value is not finite.
    """
    sums = _sums_by_prompt(values)
    ones = np.ones((1, len(sums)))
    if len(sums) < 2 or bool((sums[:, 0] == 1).all()) or bool(np.isnan(_icc(ones, sums)[0])):
        return None
    num_values = int(sums[:, 0].sum())
    bounds = resampled_bounds(
        lambda weights: _icc(weights, sums), num_units=len(sums), unit="prompts", seed=seed, num_draws=num_draws
    )
    icc = Estimate(
        value=float(_icc(ones, sums)[0]),
        low=bounds.low,
        high=bounds.high,
        n=len(sums),
        num_values=num_values,
        num_excluded=len(values) - num_values,
        method=f"ICC(1), one-way analysis of variance; {bounds.method}",
        seed=seed,
    )
    size = float((sums[:, 0] ** 2).sum() / num_values)
    deff = 1 + (size - 1) * max(icc.value, 0.0)
    return Clustering(icc=icc, deff=deff, num_values=num_values, n_eff=num_values / deff)


def _check(*, power: float, alpha: float, deff: float = 1.0, tie_rate: float = 0.0) -> None:
    if not 0 < alpha < 1:
        raise BadInput(f"alpha is {alpha}; it lies in (0, 1)")
    if not 0.5 <= power < 1:
        raise BadInput(f"the power is {power}; it lies in [0.5, 1), 0.8 by custom")
    if not (deff > 0 and math.isfinite(deff)):
        raise BadInput(f"the design effect is {deff}; it is positive, and 1 for independent judgements")
    if not 0 <= tie_rate < 1:
        raise BadInput(f"the tie rate is {tie_rate}; it lies in [0, 1)")


def _sd_of_means(sd: float, *, seeds_per_prompt: int, icc: float) -> float:
    if not (sd > 0 and math.isfinite(sd)):
        raise BadInput(f"the standard deviation is {sd}; it is a positive number")
    if seeds_per_prompt < 1:
        raise BadInput(f"{seeds_per_prompt} seeds a prompt; give at least 1")
    if not 0 <= icc <= 1:
        raise BadInput(f"the ICC is {icc}; it lies in [0, 1]")
    return sd * math.sqrt((1 + (seeds_per_prompt - 1) * icc) / seeds_per_prompt)


def _t_power(size: float, n: int, *, alpha: float) -> float:
    """Of a two-sided one-sample t-test at a standardised difference.

    The tail on the wrong side, under 1e-4 from a power of one half on, is left out: scipy has NaN there for some.
    """
    return float(stats.nct.sf(stats.t.ppf(1 - alpha / 2, n - 1), n - 1, size * math.sqrt(n)))


def _detectable(n: int, *, spread: float, num_excluded: int, power: float, alpha: float, source: str) -> Detectable:
    _check(power=power, alpha=alpha)
    if n < 2:
        raise BadInput(f"{n} prompts show no difference; give at least 2")
    normal = float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)) / math.sqrt(n)
    high = normal
    while _t_power(high, n, alpha=alpha) < power:  # t needs more than the normal, most with few prompts
        high *= 2
    size = float(optimize.brentq(lambda own: _t_power(own, n, alpha=alpha) - power, 0.5 * normal, high))
    return Detectable(
        value=size * spread,
        n=n,
        num_excluded=num_excluded,
        power=power,
        alpha=alpha,
        method=f"two-sided t over prompts; {source}",
    )


def _sums_by_prompt(values: Mapping[Key, float | None]) -> NDArray[np.float64]:
    """Count, sum and sum of squares about the mean of all (prompt, 3)."""
    given = {key: value for key, value in values.items() if value is not None}
    if not given:
        return np.zeros((0, 3))
    for (prompt, number), value in given.items():
        if not math.isfinite(value):
            raise BadInput(f"the value of prompt {prompt} number {number} is {value}; a value is a finite number")
    centre = math.fsum(given.values()) / len(given)  # taken off first, for the sake of the squares' digits
    by_prompt: dict[str, list[float]] = {}
    for (prompt, _), value in given.items():
        by_prompt.setdefault(prompt, []).append(value - centre)
    rows = [by_prompt[prompt] for prompt in sorted(by_prompt)]
    return np.array([[len(row), math.fsum(row), math.fsum(value**2 for value in row)] for row in rows])


def _icc(weights: NDArray[np.float64], sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """ICC(1) of each draw (draw,) from its prompts' weights (draw, prompt) and sums (prompt, 3)."""
    count, total, squares = sums.T
    k, n = weights.sum(axis=1), weights @ count
    between = weights @ (total**2 / count) - (weights @ total) ** 2 / n
    within = weights @ (squares - total**2 / count)
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw of single values only has no ICC: NaN
        mean_between = between / (k - 1)
        mean_within = np.maximum(within, 0) / (n - k)
        size = (n - weights @ count**2 / n) / (k - 1)
        whole = mean_between + (size - 1) * mean_within
        icc = (mean_between - mean_within) / whole
    flat = ~(whole > 1e-12 * float(squares.sum() / count.sum()))
    result: NDArray[np.float64] = np.where(flat, np.nan, icc)
    return result
