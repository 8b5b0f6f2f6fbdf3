"""The table of metrics and runs, with paired differences as bars on one scale per row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from densedpo.measure.compare import Comparison, Declared, Role
from densedpo.measure.differences import Difference, no_loss
from densedpo.measure.numbers import AT_LEAST, count_text, interval_text, number, p_text, value_text
from densedpo.measure.score import METRICS, Metric
from densedpo.metrics.statistics import Estimate

BAR_WIDTH: Final = 120.0
BAR_MARGIN: Final = 6.0
LABEL_WIDTH, VALUE_WIDTH, INTERVAL_WIDTH = 22, 9, 22  # of the columns of the text


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
    """One paired difference; `bar` is None where there is no interval to draw.

    `margin` says whether a loss of the declared margin is excluded; empty where none was declared.
    """

    value: str
    interval: str
    count: str
    verdict: str
    note: str
    margin: str
    bar: IntervalBar | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """One metric: a mean for each run, then the differences. What is no claim is exploratory."""

    metric: Metric
    is_claim: bool
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
    declared: tuple[str, ...]  # what was settled before: claims, margins, and what was let pass
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
                is_claim=metric.key in report.declared.claims,
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
        declared=_declared(report.declared),
        counts=tuple(_common_count(member.estimates) for member in report.members),
    )


def text_table(table: Table) -> str:
    """The differences as plain text: one block for each two reports, one line for each metric."""
    lines = []
    for column, (base, other) in enumerate(table.matched):
        lines.append(f"{other} - {base}")
        for _, rows in table.groups:
            for row in rows:
                cell = row.differences[column]
                label = f"  {row.metric.label:<{LABEL_WIDTH}}"
                if not cell.value:
                    lines.append(f"{label}not computed")
                    continue
                notes = "; ".join(note for note in (cell.note, cell.margin) if note)
                lines.append(f"{label}{cell.value:>{VALUE_WIDTH}}  {cell.interval:<{INTERVAL_WIDTH}}  {notes}")
    return "\n".join([*lines, *table.declared])


def _declared(declared: Declared) -> tuple[str, ...]:
    labels = {metric.key: metric.label.lower() for metric in METRICS}
    lines = []
    if declared.claims:
        names = ", ".join(labels[key] for key in declared.claims)
        lines.append(f"Claims, corrected together by Holm in each comparison: {names}. Other rows are exploratory.")
    if declared.margins:
        names = ", ".join(f"{labels[key]} {margin:g}" for key, margin in declared.margins.items())
        lines.append(f"Margins declared in the settings: {names}. Tested at {declared.alpha:g} each way.")
    lines.append(
        f"Not significant: the smallest difference that would be seen is one that is found "
        f"{100 * declared.power:.0f} % of the time at {declared.alpha:g}."
    )
    lines += [f"Let pass although different: {entry}." for entry in declared.allowed]
    return tuple(lines)


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
        return DifferenceCell(
            value="", interval="", count="", verdict="not computed", note="not computed", margin="", bar=None
        )
    return DifferenceCell(
        value=value_text(estimate, signed=True),
        interval=interval_text(estimate, signed=True),
        count=count_text(estimate),
        verdict=difference.verdict,
        note=_note(difference, metric, estimate),
        margin=_margin_note(difference, metric),
        bar=interval_bar(estimate, reach),
    )


def _note(difference: Difference, metric: Metric, estimate: Estimate) -> str:
    claim, detectable = difference.claim, difference.detectable
    match difference.verdict:
        case "not significant":
            note = f"not significant at n={estimate.n}"
            if difference.lost_to_holm:
                assert claim is not None
                note += f" after Holm over {claim.num_claims} claims, p {p_text(claim.p_holm)}"
            if detectable is not None:
                note += f", would see {AT_LEAST} {number(detectable.value)}"
            return note
        case "less" | "more":
            note = f"{difference.verdict} {metric.label.lower()}"
        case _:
            note = difference.verdict
    return note + (f", Holm p {p_text(claim.p_holm)}" if claim is not None else ", exploratory")


def _margin_note(difference: Difference, metric: Metric) -> str:
    """What two one-sided tests say against the declared margin."""
    found = difference.equivalence
    if found is None:
        return ""
    margin = f"{found.margin:g}"
    if found.equivalent:
        return f"no change beyond {margin}: TOST p {p_text(found.p)}"
    if no_loss(found, metric.goal):
        p = found.p_gain if metric.goal == "lower" else found.p_loss
        return f"no loss beyond {margin}: one-sided p {p_text(p)}"
    return f"a loss of {margin} is not excluded"
