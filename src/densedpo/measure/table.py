"""The table of metrics and runs, with paired differences as bars on one scale per row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from densedpo.measure.compare import Comparison, Role
from densedpo.measure.findings import Difference
from densedpo.measure.numbers import count_text, interval_text, value_text
from densedpo.measure.score import METRICS, Metric
from densedpo.metrics.statistics import Estimate

BAR_WIDTH: Final = 120.0
BAR_MARGIN: Final = 6.0


@dataclass(frozen=True, kw_only=True, slots=True)
class IntervalBar:
    """An interval in the coordinates of a bar `BAR_WIDTH` wide, zero in the middle."""

    low: float
    high: float
    value: float


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanCell:
    """One run's mean; `value` is empty where it was not computed."""

    value: str
    interval: str
    count: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DifferenceCell:
    """One paired difference; `bar` is None where there is no interval to draw."""

    value: str
    interval: str
    count: str
    verdict: str
    note: str
    bar: IntervalBar | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """One metric: a mean for each run, then the differences."""

    metric: Metric
    means: tuple[MeanCell, ...]
    differences: tuple[DifferenceCell, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """The head of a column of means."""

    name: str
    role: Role


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """The table as the page draws it: `groups` are the metrics' groups with their rows, in order."""

    columns: tuple[Column, ...]
    matched: tuple[tuple[str, str], ...]  # (base, other) of each column of differences
    groups: tuple[tuple[str, tuple[TableRow, ...]], ...]
    method: str
    seed: int
    counts: tuple[str, ...]
    """What stands behind each column of means, where it is the same for every metric of the column; else empty."""


def build_table(comparison: Comparison) -> Table:
    """The table of a comparison."""
    report = comparison.report
    matched = tuple(dict.fromkeys((d.base, d.other) for d in report.differences))
    by_key = {(d.base, d.other, d.metric): d for d in report.differences}
    rows = []
    for metric in METRICS:
        differences = [by_key[(base, other, metric.key)] for base, other in matched]
        reach = max((abs(b) for d in differences for b in _bounds(d.estimate)), default=0.0)
        rows.append(
            TableRow(
                metric=metric,
                means=tuple(_mean_cell(member.estimates[metric.key]) for member in report.members),
                differences=tuple(_difference_cell(d, metric, reach) for d in differences),
            )
        )
    estimates = [d.estimate for d in report.differences if d.estimate is not None]
    return Table(
        columns=tuple(Column(name=member.name, role=member.role) for member in report.members),
        matched=matched,
        groups=tuple((group, tuple(r for r in rows if r.metric.group == group)) for group in _groups()),
        method="; ".join(dict.fromkeys(e.method for e in estimates if e.low != e.high)) or "no interval",
        seed=estimates[0].seed if estimates else 0,
        counts=tuple(_common_count(member.estimates) for member in report.members),
    )


def _common_count(estimates: dict[str, Estimate | None]) -> str:
    counts = {count_text(estimate) for estimate in estimates.values() if estimate is not None}
    return counts.pop() if len(counts) == 1 else ""


def interval_bar(estimate: Estimate | None, reach: float) -> IntervalBar | None:
    """The bar of an estimate on a scale from -reach to +reach; None where there is no interval."""
    if estimate is None or estimate.low is None or estimate.high is None or reach <= 0:
        return None
    half = BAR_WIDTH / 2 - BAR_MARGIN

    def at(value: float) -> float:
        return round(BAR_WIDTH / 2 + value / reach * half, 2)

    return IntervalBar(low=at(estimate.low), high=at(estimate.high), value=at(estimate.value))


def _groups() -> list[str]:
    return list(dict.fromkeys(metric.group for metric in METRICS))


def _bounds(estimate: Estimate | None) -> tuple[float, ...]:
    if estimate is None:
        return ()
    return tuple(value for value in (estimate.value, estimate.low, estimate.high) if value is not None)


def _mean_cell(estimate: Estimate | None) -> MeanCell:
    if estimate is None:
        return MeanCell(value="", interval="", count="")
    return MeanCell(value=value_text(estimate), interval=interval_text(estimate), count=count_text(estimate))


def _difference_cell(difference: Difference, metric: Metric, reach: float) -> DifferenceCell:
    estimate = difference.estimate
    if estimate is None:
        return DifferenceCell(value="", interval="", count="", verdict="not computed", note="not computed", bar=None)
    return DifferenceCell(
        value=value_text(estimate, signed=True),
        interval=interval_text(estimate, signed=True),
        count=count_text(estimate),
        verdict=difference.verdict,
        note=_note(difference, metric, estimate),
        bar=interval_bar(estimate, reach),
    )


def _note(difference: Difference, metric: Metric, estimate: Estimate) -> str:
    match difference.verdict:
        case "not significant":
            return f"not significant at n={estimate.n}"
        case "less" | "more":
            return f"{difference.verdict} {metric.label.lower()}"
        case _:
            return difference.verdict
