"""Estimates with their uncertainty: every number carries n, what was left out, an interval, a method and a seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from densedpo.core.errors import BadInput
from densedpo.metrics.statistics.crossed import pigeonhole, satterthwaite
from densedpo.metrics.statistics.intervals import LEVEL, NUM_DRAWS, Interval, all_equal, mean_bounds, percentile_bounds

Key: TypeAlias = tuple[str, int]
"""What makes two clips comparable: the prompt's id and the number of the seed."""

TrainedKey: TypeAlias = tuple[int, str]
"""The training seed of a model and the id of the prompt that its value is for."""

FEW_CLUSTERS: Final = 20  # training seeds or prompts; with fewer a two-way bootstrap alone may be too narrow


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
    bounds = mean_bounds(array, interval=interval, num_draws=num_draws, seed=seed, level=level)
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
    draws = pigeonhole(both, seed=seed, num_draws=num_draws)
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
    if len(means) < 2 or all_equal(means):
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
    bounds = mean_bounds(means, interval="bca", num_draws=num_draws, seed=like.seed, level=like.level)
    method = f"paired difference, prompts as they are; {bounds.method.replace('prompts', 'training seeds')}"
    return replace(like, low=bounds.low, high=bounds.high, n=len(means), method=method)


def _width(estimate: Estimate) -> float:
    return -1.0 if estimate.low is None or estimate.high is None else estimate.high - estimate.low
