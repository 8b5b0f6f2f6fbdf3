"""How far annotators agree, beyond what chance would give, with intervals over pairs.

Labels of one pair's segments are not independent, so whole pairs are drawn. Every coefficient here is a function of
sums over units, which are added up once by pair; so thousands of draws cost one product of matrices, where statsmodels
(whose kappas these match) would be called for each. Kappa falls towards 0 where nearly all labels are one value, ties
above all; AC1 does not: read the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from densedpo.core.errors import BadInput
from densedpo.metrics.statistics import LEVEL, NUM_DRAWS, Estimate, resampled_bounds

VALUES: Final = (-1, 0, 1)
TIE: Final = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Rating:
    """One annotator's value for one segment of a pair; None where the annotator gave none."""

    pair: str
    segment: int
    annotator: str
    value: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Coefficients of agreement; None where one does not exist, with the reason in `not_computed` by its name.

    `percent` is the share of agreeing annotator pairs, averaged over segments; `direction` the same among labels that
    are no ties; `tie_or_not` the same with all directions taken for one value.
    """

    num_annotators: int
    num_segments: int
    percent: Estimate | None
    cohen: Estimate | None
    fleiss: Estimate | None
    alpha_nominal: Estimate | None
    alpha_ordinal: Estimate | None
    ac1: Estimate | None
    direction: Estimate | None
    tie_or_not: Estimate | None
    not_computed: dict[str, str]


def agreement(
    ratings: Sequence[Rating],
    *,
    seed: int,
    values: Sequence[int] = VALUES,
    num_draws: int = NUM_DRAWS,
    level: float = LEVEL,
) -> Agreement:
    """Agreement over the segments that two or more annotators rated, each coefficient with an interval over pairs.

    Args:
        values: all values that could have been given, ascending; their number matters to AC1, their order to the
            ordinal alpha.

    Raises:
        BadInput: a value that is not among `values`, values that do not ascend, or two ratings of one segment by one
            annotator.
    """
    table = _table(ratings, values)
    sums = _sums_by_pair(table)
    width = len(values)
    found: dict[str, Estimate] = {}
    reasons: dict[str, str] = {}
    measures: dict[str, _Measure] = {
        "percent": (percent, sums, width),
        "cohen": (cohen_kappa, sums, width),
        "fleiss": (fleiss_kappa, sums, width),
        "alpha_nominal": (alpha_nominal, sums, width),
        "alpha_ordinal": (alpha_ordinal, sums, width),
        "ac1": (gwet_ac1, sums, width),
        **_of_ties(table, values),
    }
    for name, (measure, own, own_width) in measures.items():
        reason = _reason(name, table, own, measure, own_width)
        if reason is not None:
            reasons[name] = reason
            continue
        num_excluded = len(ratings) - int(own.used.sum())
        found[name] = _estimate(measure, own, own_width, num_excluded, seed=seed, num_draws=num_draws, level=level)
    return Agreement(
        num_annotators=table.given.shape[1],
        num_segments=len(table.given),
        percent=found.get("percent"),
        cohen=found.get("cohen"),
        fleiss=found.get("fleiss"),
        alpha_nominal=found.get("alpha_nominal"),
        alpha_ordinal=found.get("alpha_ordinal"),
        ac1=found.get("ac1"),
        direction=found.get("direction"),
        tie_or_not=found.get("tie_or_not"),
        not_computed=reasons,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Sums:
    """Sums over units, with any number of leading axes (of draws): what every coefficient is computed from."""

    agreeing: NDArray[np.float64]
    """Over units of two or more ratings, the share of their pairs of ratings that agree."""
    num_pairable: NDArray[np.float64]
    """Units of two or more ratings."""
    num_rated: NDArray[np.float64]
    """Units of one or more ratings."""
    shares: NDArray[np.float64]
    """Over rated units, the share of each value (..., value)."""
    coincidences: NDArray[np.float64]
    """Krippendorff's coincidence matrix (..., value, value)."""
    crossed: NDArray[np.float64]
    """The first annotator's values against the second's, where both gave one (..., value, value)."""
    used: NDArray[np.float64]
    """Ratings of pairable units."""


_Coefficient: TypeAlias = Callable[[Sums], NDArray[np.float64]]
_Measure: TypeAlias = tuple[_Coefficient, Sums, int]


def percent(sums: Sums) -> NDArray[np.float64]:
    """The share of agreeing pairs of ratings, averaged over units: what chance would give is not taken off."""
    return _over(sums.agreeing, sums.num_pairable)


def cohen_kappa(sums: Sums) -> NDArray[np.float64]:
    """Cohen's kappa of two annotators, each with shares of values of its own (Cohen 1960)."""
    share = _over(sums.crossed, sums.crossed.sum(axis=(-2, -1))[..., None, None])
    observed = np.trace(share, axis1=-2, axis2=-1)
    return _beyond(observed, (share.sum(axis=-1) * share.sum(axis=-2)).sum(axis=-1))


def fleiss_kappa(sums: Sums) -> NDArray[np.float64]:
    """Fleiss' kappa, for the same number of ratings of every unit (Fleiss 1971)."""
    share = _over(sums.shares, sums.num_rated[..., None])
    return _beyond(percent(sums), (share**2).sum(axis=-1))


def gwet_ac1(sums: Sums) -> NDArray[np.float64]:
    """Gwet's AC1: p_e = sum of pi (1 - pi) / (Q - 1), with pi from all rated units (Gwet 2008)."""
    share = _over(sums.shares, sums.num_rated[..., None])
    return _beyond(percent(sums), (share * (1 - share)).sum(axis=-1) / (share.shape[-1] - 1))


def alpha_nominal(sums: Sums) -> NDArray[np.float64]:
    """Krippendorff's alpha where values either match or do not (Krippendorff 2011)."""
    return _alpha(sums.coincidences, 1 - np.eye(sums.coincidences.shape[-1]))


def alpha_ordinal(sums: Sums) -> NDArray[np.float64]:
    """Krippendorff's alpha where values further apart in rank differ more (Krippendorff 2011).

    The squared difference of c < k is (n_c / 2 + all n between + n_k / 2)^2, with n the numbers of pairable values.
    """
    marginal = sums.coincidences.sum(axis=-1)
    middle = np.cumsum(marginal, axis=-1) - marginal / 2
    return _alpha(sums.coincidences, (middle[..., :, None] - middle[..., None, :]) ** 2)


def _alpha(coincidences: NDArray[np.float64], difference: NDArray[np.float64]) -> NDArray[np.float64]:
    marginal = coincidences.sum(axis=-1)
    total = marginal.sum(axis=-1)
    observed = (coincidences * difference).sum(axis=(-2, -1))
    expected = (marginal[..., :, None] * marginal[..., None, :] * difference).sum(axis=(-2, -1))
    return 1 - _over((total - 1) * observed, expected)


def _beyond(observed: NDArray[np.float64], chance: NDArray[np.float64]) -> NDArray[np.float64]:
    return _over(observed - chance, 1 - chance)


def _over(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """The ratio; NaN where the denominator is 0 but for rounding, as it is where all labels are one value."""
    safe = np.where(np.abs(below) > 1e-12, below, np.nan)
    result: NDArray[np.float64] = above / safe
    return result


@dataclass(frozen=True, kw_only=True, slots=True)
class _Table:
    given: NDArray[np.float64]  # (unit, annotator, value): 1 for the value given, all 0 for none
    pair_of_unit: NDArray[np.int64]
    num_pairs: int

    def select(self, given: NDArray[np.float64]) -> _Table:
        return _Table(given=given, pair_of_unit=self.pair_of_unit, num_pairs=self.num_pairs)


def _table(ratings: Sequence[Rating], values: Sequence[int]) -> _Table:
    if len(values) < 2 or list(values) != sorted(set(values)):
        raise BadInput(f"the values are {list(values)}; give two or more, ascending")
    units = sorted({(rating.pair, rating.segment) for rating in ratings})
    annotators = sorted({rating.annotator for rating in ratings})
    pairs = sorted({pair for pair, _ in units})
    row = {unit: i for i, unit in enumerate(units)}
    column = {annotator: i for i, annotator in enumerate(annotators)}
    place = {value: i for i, value in enumerate(values)}
    given = np.zeros((len(units), len(annotators), len(values)))
    seen: set[tuple[str, int, str]] = set()
    for rating in ratings:
        name = f"segment {rating.segment} of pair {rating.pair} by annotator {rating.annotator}"
        if (rating.pair, rating.segment, rating.annotator) in seen:
            raise BadInput(f"two ratings of {name}; give the one that counts")
        seen.add((rating.pair, rating.segment, rating.annotator))
        if rating.value is None:
            continue
        if rating.value not in place:
            raise BadInput(f"the rating of {name} is {rating.value}; the values are {list(values)}")
        given[row[rating.pair, rating.segment], column[rating.annotator], place[rating.value]] = 1
    number = {pair: i for i, pair in enumerate(pairs)}
    return _Table(
        given=given, pair_of_unit=np.array([number[pair] for pair, _ in units], dtype=np.int64), num_pairs=len(pairs)
    )


def _sums_by_pair(table: _Table) -> Sums:
    """`Sums` with one leading axis, of the pairs that have a rating."""
    counts = table.given.sum(axis=1)
    size = counts.sum(axis=-1)
    pairable = size >= 2
    others = np.where(pairable, size - 1, 1.0)
    both = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(counts.shape[-1])
    both = np.where(pairable[:, None, None], both / others[:, None, None], 0.0)
    first = table.given[:, 0] if table.given.shape[1] else counts
    second = table.given[:, 1] if table.given.shape[1] > 1 else np.zeros_like(counts)

    def by_pair(of_unit: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.zeros((table.num_pairs, *of_unit.shape[1:]))
        np.add.at(total, table.pair_of_unit, of_unit)
        return total

    sums = Sums(
        agreeing=by_pair(np.trace(both, axis1=1, axis2=2) / np.maximum(size, 1)),
        num_pairable=by_pair(pairable.astype(np.float64)),
        num_rated=by_pair((size >= 1).astype(np.float64)),
        shares=by_pair(counts / np.maximum(size, 1)[:, None]),
        coincidences=by_pair(both),
        crossed=by_pair(first[:, :, None] * second[:, None, :]),
        used=by_pair(np.where(pairable, size, 0.0)),
    )
    rated = sums.num_rated > 0
    return Sums(
        agreeing=sums.agreeing[rated],
        num_pairable=sums.num_pairable[rated],
        num_rated=sums.num_rated[rated],
        shares=sums.shares[rated],
        coincidences=sums.coincidences[rated],
        crossed=sums.crossed[rated],
        used=sums.used[rated],
    )


def _weighted(weights: NDArray[np.float64], sums: Sums) -> Sums:
    return Sums(
        agreeing=weights @ sums.agreeing,
        num_pairable=weights @ sums.num_pairable,
        num_rated=weights @ sums.num_rated,
        shares=weights @ sums.shares,
        coincidences=np.tensordot(weights, sums.coincidences, axes=1),
        crossed=np.tensordot(weights, sums.crossed, axes=1),
        used=weights @ sums.used,
    )


def _of_ties(table: _Table, values: Sequence[int]) -> dict[str, _Measure]:
    if TIE not in values:
        return {}
    tie = list(values).index(TIE)
    directions = np.delete(table.given, tie, axis=-1)
    tie_or_not = np.stack([table.given[..., tie], directions.sum(axis=-1)], axis=-1)
    return {
        "direction": (percent, _sums_by_pair(table.select(directions)), directions.shape[-1]),
        "tie_or_not": (percent, _sums_by_pair(table.select(tie_or_not)), 2),
    }


def _reason(name: str, table: _Table, sums: Sums, measure: _Coefficient, width: int) -> str | None:
    """Why a coefficient does not exist for these ratings."""
    if sums.num_pairable.sum() == 0:
        return "no segment has two ratings of the kind"
    if name == "cohen" and table.given.shape[1] != 2:
        return f"for two annotators, and there are {table.given.shape[1]}"
    sizes = {int(size) for size in table.given.sum(axis=(1, 2))} - {0}
    if name == "fleiss" and len(sizes) > 1:
        return f"for one number of ratings a segment, and there are from {min(sizes)} to {max(sizes)}"
    if np.isnan(measure(_weighted(np.ones((1, len(sums.used))), sums))[0]):
        return f"all ratings are one value of {width}: chance alone would agree"
    return None


def _estimate(
    measure: _Coefficient,
    sums: Sums,
    width: int,
    num_excluded: int,
    *,
    seed: int,
    num_draws: int,
    level: float,
) -> Estimate:
    num_pairs = len(sums.used)
    bounds = resampled_bounds(
        lambda weights: measure(_weighted(weights, sums)),
        num_units=num_pairs,
        unit="pairs",
        seed=seed,
        num_draws=num_draws,
        level=level,
    )
    return Estimate(
        value=float(measure(_weighted(np.ones((1, num_pairs)), sums))[0]),
        low=bounds.low,
        high=bounds.high,
        n=num_pairs,
        num_values=int(sums.used.sum()),
        num_excluded=num_excluded,
        method=f"over {int(sums.num_pairable.sum())} segments of two or more ratings, {width} values; {bounds.method}",
        seed=seed,
        level=level,
    )
