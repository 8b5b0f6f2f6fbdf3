"""How a score grows with the labels that were paid for, and how many labels reach a given score.

One point at one budget says nothing of efficiency. Here a method is trained at several budgets with several training
seeds, and measured on the same prompts: the curve is linear in the logarithm of the budget. What a curve needs to
reach a score is read off its isotonic fit, so that one lucky budget does not count as having arrived.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from densedpo.core.errors import BadInput
from densedpo.core.seeds import generator
from densedpo.metrics.statistics import (
    LEVEL,
    MAX_UNDEFINED,
    NUM_DRAWS,
    Bounds,
    Estimate,
    TrainedKey,
    crossed_means,
    drawn_weights,
    expanded_level,
    percentile_bounds,
    satterthwaite,
    two_way_difference,
)

RunKey: TypeAlias = tuple[float, int, str]
"""The budget (labels, or seconds of labelling), the training seed and the prompt's id."""

UNIT = "training seeds and prompts"


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePoint:
    """The score at one budget, its interval over training seeds and prompts, and the number of training seeds."""

    budget: float
    score: Estimate
    num_seeds: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Needed:
    """The budget that reaches a score, or the ratio of two such budgets.

    `value` is None where the score was not reached at the largest budget; `high` is None where the interval has no
    upper end, because draws did not reach it either, and both ends where too many draws were undefined. `at_most` says
    that the smallest budget already reached the score: fewer labels may do.
    """

    target: float
    value: float | None
    low: float | None
    high: float | None
    at_most: bool
    share_not_reached: float
    n: int
    num_excluded: int
    method: str
    seed: int
    level: float = LEVEL


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelEfficiency:
    """One method's curve: its points, its mean height over the logarithm of the budget, and what its target needs."""

    points: tuple[CurvePoint, ...]
    height: Estimate
    needed: Needed


@dataclass(frozen=True, kw_only=True, slots=True)
class EfficiencyComparison:
    """Two methods at the same budgets: other - base in mean height, and other / base in the budget needed."""

    height: Estimate
    needed: Needed


def label_efficiency(
    scores: Mapping[RunKey, float | None],
    *,
    target: float,
    seed: int,
    num_draws: int = NUM_DRAWS,
    level: float = LEVEL,
) -> LabelEfficiency:
    """The curve of a method over its budgets, and the budget at which it reaches `target`.

    Prompts are drawn once for all budgets, training seeds for each budget on their own: they are different runs.

    Args:
        scores: higher is better; None where a clip had no score.

    Raises:
        BadInput: fewer than two budgets, a budget that is not positive or has no score, or a score that is not finite.
    """
    curve = _curve(scores)
    points = tuple(
        _point(budget, scores, seed=seed, num_draws=num_draws, level=level) for budget in curve.budgets.tolist()
    )
    prompts = _prompt_weights(curve, seed=seed, num_draws=num_draws)
    draws = _draws(curve, prompts, seed=seed, name="curve")
    once = _once(curve)
    height = _estimate(
        _height(curve.budgets, once)[0],
        percentile_bounds(_height(curve.budgets, draws), num_units=curve.worth, unit=UNIT, level=level),
        curve,
        name="mean height over log budget",
        seed=seed,
        level=level,
    )
    needed = _needed(
        _reached(curve.budgets, once, target)[0],
        _reached(curve.budgets, draws, target),
        curve,
        target=target,
        at_most=bool(_isotonic(once[0])[0] >= target),
        seed=seed,
        level=level,
    )
    return LabelEfficiency(points=points, height=height, needed=needed)


def compare_efficiency(
    base: Mapping[RunKey, float | None],
    other: Mapping[RunKey, float | None],
    *,
    target: float,
    seed: int,
    num_draws: int = NUM_DRAWS,
    level: float = LEVEL,
) -> EfficiencyComparison:
    """Whether `other` gets more from the same labels than `base`, by height and by the budget that `target` needs.

    A ratio under 1 favours `other`. Where only `base` falls short of the target the ratio is 0 (of an unbounded
    budget), where only `other` does it is unbounded, where both do it is undefined. Choose a target above the scores of
    both at the smallest budget: below it the ratio tells nothing.

    Raises:
        BadInput: as `label_efficiency`, or the two have not the same budgets and prompts.
    """
    first, second = _curve(base), _curve(other)
    if first.budgets.tolist() != second.budgets.tolist() or first.prompts != second.prompts:
        raise BadInput(
            f"budgets {first.budgets.tolist()} over {len(first.prompts)} prompts against {second.budgets.tolist()} "
            f"over {len(second.prompts)}: measure both at the same budgets on the same prompts"
        )
    prompts = _prompt_weights(first, seed=seed, num_draws=num_draws)
    draws = [_draws(own, prompts, seed=seed, name=name) for own, name in ((first, "base"), (second, "other"))]
    once = [_once(own) for own in (first, second)]
    worse = first if first.worth < second.worth else second
    both = replace(
        worse,
        num_values=first.num_values + second.num_values,
        num_excluded=first.num_excluded + second.num_excluded,
    )
    height = _estimate(
        _height(first.budgets, once[1] - once[0])[0],
        percentile_bounds(_height(first.budgets, draws[1] - draws[0]), num_units=both.worth, unit=UNIT, level=level),
        both,
        name="difference of mean heights over log budget, other - base",
        seed=seed,
        level=level,
    )
    needed = _needed(
        _ratio(_reached(first.budgets, once[1], target), _reached(first.budgets, once[0], target))[0],
        _ratio(_reached(first.budgets, draws[1], target), _reached(first.budgets, draws[0], target)),
        both,
        target=target,
        at_most=bool(_isotonic(once[1][0])[0] >= target),
        seed=seed,
        level=level,
    )
    return EfficiencyComparison(height=height, needed=needed)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Curve:
    budgets: NDArray[np.float64]  # ascending
    prompts: tuple[str, ...]
    tables: tuple[NDArray[np.float64], ...]  # by budget, (seed, prompt), NaN where there is no score
    worth: float  # independent values behind the least certain budget, by which the level is expanded
    num_values: int
    num_excluded: int


def _curve(scores: Mapping[RunKey, float | None]) -> _Curve:
    budgets = sorted({budget for budget, _, _ in scores})
    if len(budgets) < 2:
        raise BadInput(f"{len(budgets)} budgets make no curve; measure two or more")
    if not (budgets[0] > 0 and math.isfinite(budgets[-1])):
        raise BadInput(f"a budget is {budgets[0] if budgets[0] <= 0 else budgets[-1]}; budgets are positive numbers")
    prompts = tuple(sorted({prompt for _, _, prompt in scores}))
    tables = []
    for budget in budgets:
        seeds = sorted({number for own, number, _ in scores if own == budget})
        table = np.full((len(seeds), len(prompts)), np.nan)
        for i, number in enumerate(seeds):
            for j, prompt in enumerate(prompts):
                value = scores.get((budget, number, prompt))
                if value is not None and not math.isfinite(value):
                    raise BadInput(f"the score of budget {budget:g} seed {number} prompt {prompt} is {value}")
                table[i, j] = math.nan if value is None else value
        if np.isnan(table).all():
            raise BadInput(f"budget {budget:g} has no score; leave it out or measure it")
        tables.append(table[~np.isnan(table).all(axis=1)])
    present = [table[:, ~np.isnan(table).all(axis=0)] for table in tables]
    num_values = sum(int((~np.isnan(table)).sum()) for table in tables)
    return _Curve(
        budgets=np.array(budgets, dtype=np.float64),
        prompts=prompts,
        tables=tuple(tables),
        worth=1 + min(satterthwaite(own) if len(own) > 1 else own.shape[1] - 1 for own in present),
        num_values=num_values,
        num_excluded=len(scores) - num_values,
    )


def _point(
    budget: float, scores: Mapping[RunKey, float | None], *, seed: int, num_draws: int, level: float
) -> CurvePoint:
    own: dict[TrainedKey, float | None] = {
        (number, prompt): value for (at, number, prompt), value in scores.items() if at == budget
    }
    found = two_way_difference(dict.fromkeys(own, 0.0), own, seed=seed, num_draws=num_draws, level=level)
    assert found is not None, "a budget without scores was refused before"
    score = replace(found.estimate, method=found.estimate.method.replace("paired difference", "mean"))
    return CurvePoint(budget=budget, score=score, num_seeds=len(found.by_seed))


def _prompt_weights(curve: _Curve, *, seed: int, num_draws: int) -> NDArray[np.float64]:
    rng = generator(seed, "label efficiency", "prompts")
    return drawn_weights(rng, num_units=len(curve.prompts), num_draws=num_draws)


def _draws(curve: _Curve, prompts: NDArray[np.float64], *, seed: int, name: str) -> NDArray[np.float64]:
    """The curve of each draw (draw, budget)."""
    columns = []
    for budget, table in zip(curve.budgets.tolist(), curve.tables, strict=True):
        rng = generator(seed, "label efficiency", name, str(budget))
        columns.append(crossed_means(table, drawn_weights(rng, num_units=len(table), num_draws=len(prompts)), prompts))
    return np.stack(columns, axis=1)


def _once(curve: _Curve) -> NDArray[np.float64]:
    """The curve with every training seed and prompt once (1, budget)."""
    even = np.ones((1, len(curve.prompts)))
    return np.stack([crossed_means(table, np.ones((1, len(table))), even) for table in curve.tables], axis=1)


def _height(budgets: NDArray[np.float64], curves: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of each curve (curve, budget) over the logarithm of the budget, by trapezoids (curve,)."""
    x = np.log(budgets)
    result: NDArray[np.float64] = np.trapezoid(curves, x, axis=1) / (x[-1] - x[0])
    return result


def _isotonic(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    fitted: NDArray[np.float64] = optimize.isotonic_regression(curve).x
    return fitted


def _reached(budgets: NDArray[np.float64], curves: NDArray[np.float64], target: float) -> NDArray[np.float64]:
    """The budget at which each curve's isotonic fit reaches the target; infinite if never, NaN for a NaN curve."""
    x = np.log(budgets)
    found = np.full(len(curves), np.nan)
    for i, curve in enumerate(curves):
        if np.isnan(curve).any():
            continue
        fitted = _isotonic(curve)
        above = np.flatnonzero(fitted >= target)
        if not len(above):
            found[i] = np.inf
        elif above[0] == 0:
            found[i] = budgets[0]
        else:
            k = int(above[0])
            share = (target - fitted[k - 1]) / (fitted[k] - fitted[k - 1])
            found[i] = math.exp(x[k - 1] + share * (x[k] - x[k - 1]))
    return found


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where neither is reached there is no ratio: NaN."""
    with np.errstate(invalid="ignore"):
        result: NDArray[np.float64] = above / below
    return result


def _estimate(value: float, bounds: Bounds, curve: _Curve, *, name: str, seed: int, level: float) -> Estimate:
    return Estimate(
        value=float(value),
        low=bounds.low,
        high=bounds.high,
        n=len(curve.prompts),
        num_values=curve.num_values,
        num_excluded=curve.num_excluded,
        method=f"{name}; {bounds.method}",
        seed=seed,
        level=level,
    )


def _needed(
    value: float,
    draws: NDArray[np.float64],
    curve: _Curve,
    *,
    target: float,
    at_most: bool,
    seed: int,
    level: float,
) -> Needed:
    defined = draws[~np.isnan(draws)]
    num_undefined = len(draws) - len(defined)
    low, high = None, None
    if num_undefined <= MAX_UNDEFINED * len(draws) and curve.worth > 1:
        tail = (1 - expanded_level(curve.worth, level)) / 2
        # no mean of two draws: a draw that never arrives is infinite
        ends = np.quantile(defined, [tail, 1 - tail], method="inverted_cdf").tolist()
        low, high = (end if math.isfinite(end) else None for end in ends)
    told = f", {num_undefined} undefined" if num_undefined else ""
    return Needed(
        target=target,
        value=float(value) if math.isfinite(value) else None,
        low=low,
        high=high,
        at_most=at_most,
        share_not_reached=float(np.isinf(defined).mean()) if len(defined) else 1.0,
        n=len(curve.prompts),
        num_excluded=curve.num_excluded,
        method=f"isotonic fit, linear in log budget; bootstrap over {UNIT}, {len(draws)} draws{told}",
        seed=seed,
        level=level,
    )
