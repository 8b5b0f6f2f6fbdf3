"""Estimates with their uncertainty: every number carries n, what was left out, an interval, a method and a seed.

Clips of one prompt are not independent, so the unit is the prompt. Values are averaged over a prompt's seeds first, and
the bootstrap draws prompts with replacement. With 128 prompts of 5 clips, intervals that treat clips as independent
exclude a true null 12 to 24 % of the time; these 5 %. Intervals are expanded for small n (Hesterberg 2015, What
teachers should know about the bootstrap, 5.2): a plain percentile interval over 40 prompts misses 6 to 7 % of the time.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from densedpo.core.errors import BadInput
from densedpo.core.seeds import generator

Key: TypeAlias = tuple[str, int]
"""What makes two clips comparable: the prompt's id and the number of the seed."""

TrainedKey: TypeAlias = tuple[int, str]
"""The training seed of a model and the id of the prompt that its value is for."""

Interval: TypeAlias = Literal["bca", "percentile"]

Statistic: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From how often each unit was drawn (draw, unit) to the value of each draw (draw,); NaN where it is undefined."""

NUM_DRAWS: Final = 2000
LEVEL: Final = 0.95
MIN_BOOTSTRAP: Final = 10  # prompts; fewer say too little about their own distribution
FEW_CLUSTERS: Final = 20  # training seeds or prompts; with fewer a two-way bootstrap alone may be too narrow
MAX_UNDEFINED: Final = 0.05  # of the draws; leaving out more would make the interval too narrow
MAX_CELLS: Final = 4_000_000  # of the matrix of draws held at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A number that can be audited.

    `n` counts the units that the interval is over, which are prompts unless `method` names another; `num_values` the
    clips (or pairs of clips, or judgements) behind them, `num_excluded` those that had no value. `low` and `high` are
    None where no interval exists: fewer than two units, or a reason that `method` gives.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    num_values: int
    num_excluded: int
    method: str
    seed: int
    level: float = LEVEL

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies wholly on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class TwoWayDifference:
    """A paired difference over training seeds and prompts, and what each of the two says alone.

    `estimate` carries the interval to quote; `over_seeds` is None with one training seed, about which `over_prompts`
    says nothing beyond itself. `by_seed` holds each training seed's mean over prompts.
    """

    estimate: Estimate
    over_prompts: Estimate
    over_seeds: Estimate | None
    by_seed: Mapping[int, float]

    @property
    def num_seeds_above(self) -> int:
        """How many training seeds have a difference above zero."""
        return sum(value > 0 for value in self.by_seed.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class PValue:
    """A test's p-value, with what it was computed from."""

    p: float
    n: int
    num_excluded: int
    method: str


def cluster_mean(
    values: Mapping[Key, float | None],
    *,
    seed: int,
    interval: Interval = "bca",
    num_draws: int = NUM_DRAWS,
    level: float = LEVEL,
) -> Estimate | None:
    """The mean over prompts of the mean over seeds, with a bootstrap interval over prompts.

    Args:
        values: one value per prompt and seed; None where it could not be computed.

    Returns:
        None if no clip has a value: the number is not computed, which is not 0.

    Raises:
        BadInput: a value is not finite.
    """
    array = prompt_means(values)
    if not len(array):
        return None
    num_values = sum(value is not None for value in values.values())
    bounds = _interval(array, interval=interval, num_draws=num_draws, seed=seed, level=level)
    return Estimate(
        value=float(array.mean()),
        low=bounds.low,
        high=bounds.high,
        n=len(array),
        num_values=num_values,
        num_excluded=len(values) - num_values,
        method=f"mean over prompts; {bounds.method}",
        seed=seed,
        level=level,
    )


def paired_difference(
    base: Mapping[Key, float | None],
    other: Mapping[Key, float | None],
    *,
    seed: int,
    interval: Interval = "bca",
    num_draws: int = NUM_DRAWS,
    level: float = LEVEL,
) -> Estimate | None:
    """The mean of other - base over the same prompts and seeds, with a bootstrap interval over prompts.

    Raises:
        BadInput: the two do not hold the same prompts and seeds, or a value is not finite.
    """
    estimate = cluster_mean(differences(base, other), seed=seed, interval=interval, num_draws=num_draws, level=level)
    if estimate is None:
        return None
    return replace(estimate, method=f"paired difference; {estimate.method}")


def two_way_difference(
    base: Mapping[TrainedKey, float | None],
    other: Mapping[TrainedKey, float | None],
    *,
    seed: int,
    num_draws: int = NUM_DRAWS,
    level: float = LEVEL,
) -> TwoWayDifference | None:
    """The mean of other - base where both training seeds and prompts could have been others.

    Training seeds and prompts are drawn with replacement, each on its own (the pigeonhole bootstrap, Owen 2007), at a
    level expanded by Satterthwaite's degrees of freedom of the two. With fewer than 20 of either, the widest of this
    and the two one-way intervals is quoted: five training seeds say little of how much training seeds differ.

    Args:
        base: the value by training seed and prompt; for a base that was trained once see `beside_every_seed`.

    Returns:
        None if no prompt has both values.

    Raises:
        BadInput: the two do not hold the same prompts and training seeds, or a value is not finite.
    """
    by_prompt = differences(_by_prompt(base), _by_prompt(other))
    over_prompts = cluster_mean(by_prompt, seed=seed, num_draws=num_draws, level=level)
    if over_prompts is None:
        return None
    over_prompts = replace(over_prompts, method=f"paired difference, training seeds as they are; {over_prompts.method}")
    table = _seeds_by_prompts(by_prompt)
    rows = {number: own for number, own in table.items() if not np.isnan(own).all()}
    by_seed = {number: float(np.nanmean(own)) for number, own in rows.items()}
    if len(rows) < 2:
        return TwoWayDifference(estimate=over_prompts, over_prompts=over_prompts, over_seeds=None, by_seed=by_seed)
    over_seeds = _over_seeds(by_seed, like=over_prompts, num_draws=num_draws)
    stacked = np.stack(list(rows.values()))
    both = stacked[:, ~np.isnan(stacked).all(axis=0)]
    draws = _pigeonhole(both, seed=seed, num_draws=num_draws)
    unit = "training seeds and prompts"
    bounds = percentile_bounds(draws, num_units=satterthwaite(both) + 1, unit=unit, level=level)
    two_way = replace(over_prompts, low=bounds.low, high=bounds.high, method=f"paired difference; {bounds.method}")
    if min(both.shape) >= FEW_CLUSTERS:
        estimate = two_way
    else:
        widest = max((two_way, over_prompts, over_seeds), key=_width)
        estimate = replace(over_prompts, low=widest.low, high=widest.high, method=f"widest of three: {widest.method}")
    return TwoWayDifference(estimate=estimate, over_prompts=over_prompts, over_seeds=over_seeds, by_seed=by_seed)


def beside_every_seed(
    values: Mapping[str, float | None], training_seeds: Iterable[int]
) -> dict[TrainedKey, float | None]:
    """The values by prompt of a base that was trained once, to be compared with every training seed of another."""
    return {(number, prompt): value for number in training_seeds for prompt, value in values.items()}


def difference_p_value(base: Mapping[Key, float | None], other: Mapping[Key, float | None]) -> PValue | None:
    """The two-sided p-value of no difference on the same prompts and seeds: Student's t over prompts.

    Returns:
        None with fewer than two prompts, or where all prompts differ by the same amount and t does not exist.

    Raises:
        BadInput: the two do not hold the same prompts and seeds, or a value is not finite.
    """
    own = differences(base, other)
    means = prompt_means(own)
    num_excluded = sum(value is None for value in own.values())
    if len(means) < 2 or _all_equal(means):
        return None
    p = float(stats.ttest_1samp(means, 0.0).pvalue)
    return PValue(p=p, n=len(means), num_excluded=num_excluded, method="two-sided t over prompts, paired")


def differences(base: Mapping[Key, float | None], other: Mapping[Key, float | None]) -> dict[Key, float | None]:
    """Other - base for each prompt and seed; None where either has no value.

    Raises:
        BadInput: the two do not hold the same prompts and seeds.
    """
    check_same_keys(base, other)
    result: dict[Key, float | None] = {}
    for key, before in base.items():
        after = other[key]
        result[key] = None if before is None or after is None else after - before
    return result


def check_same_keys(base: Mapping[Key, object], other: Mapping[Key, object]) -> None:
    """Refuses two sets of clips that are not of the same prompts and seeds."""
    missing, extra = sorted(base.keys() - other.keys()), sorted(other.keys() - base.keys())
    if not missing and not extra:
        return
    side, (prompt, number) = ("first", missing[0]) if missing else ("second", extra[0])
    raise BadInput(
        f"not the same prompts and seeds: {len(missing)} clips only in the first and {len(extra)} only in the second, "
        f"for example prompt {prompt} seed {number} only in the {side}; measure both with the same prompts and seeds"
    )


def prompt_means(values: Mapping[Key, float | None]) -> NDArray[np.float64]:
    """The mean of each prompt over its seeds (prompt,), in the order of the prompts' ids; without prompts of no value.

    Raises:
        BadInput: a value is not finite.
    """
    by_prompt: dict[str, list[float]] = {}
    for (prompt, number), value in values.items():
        if value is None:
            continue
        if not math.isfinite(value):
            raise BadInput(
                f"the value of prompt {prompt} seed {number} is {value}; a value is a finite number or missing"
            )
        by_prompt.setdefault(prompt, []).append(value)
    return np.array([math.fsum(by_prompt[prompt]) / len(by_prompt[prompt]) for prompt in sorted(by_prompt)])


def _by_prompt(values: Mapping[TrainedKey, float | None]) -> dict[Key, float | None]:
    return {(prompt, number): value for (number, prompt), value in values.items()}


def _seeds_by_prompts(values: Mapping[Key, float | None]) -> dict[int, NDArray[np.float64]]:
    """The values of each training seed over all prompts, in the order of both; NaN where there is none."""
    prompts = sorted({prompt for prompt, _ in values})
    seeds = sorted({number for _, number in values})
    table = {(prompt, number): math.nan if value is None else value for (prompt, number), value in values.items()}
    return {number: np.array([table.get((prompt, number), math.nan) for prompt in prompts]) for number in seeds}


def _over_seeds(by_seed: Mapping[int, float], *, like: Estimate, num_draws: int) -> Estimate:
    """Training seeds as the units, prompts as they are; the value stays the one that is quoted."""
    means = np.array(list(by_seed.values()))
    bounds = _interval(means, interval="bca", num_draws=num_draws, seed=like.seed, level=like.level)
    method = f"paired difference, prompts as they are; {bounds.method.replace('prompts', 'training seeds')}"
    return replace(like, low=bounds.low, high=bounds.high, n=len(means), method=method)


def _pigeonhole(table: NDArray[np.float64], *, seed: int, num_draws: int) -> NDArray[np.float64]:
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


def _width(estimate: Estimate) -> float:
    return -1.0 if estimate.low is None or estimate.high is None else estimate.high - estimate.low


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


def _all_equal(values: NDArray[np.float64]) -> bool:
    return bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))


def _interval(means: NDArray[np.float64], *, interval: Interval, num_draws: int, seed: int, level: float) -> Bounds:
    n = len(means)
    if n < 2:
        return Bounds(low=None, high=None, method="no interval from one prompt")
    centre = float(means.mean())
    # equal values have no acceleration, for which scipy answers NaN; their interval is the point itself
    if _all_equal(means):
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
