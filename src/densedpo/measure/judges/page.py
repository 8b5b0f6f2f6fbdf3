"""The page of `measure judge`, and the same as plain text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from densedpo.judge.probe.answers import Accuracy, Unit
from densedpo.measure.judges.records import JudgesReport
from densedpo.measure.numbers import interval_text, value_text
from densedpo.measure.table import BAR_MARGIN, BAR_WIDTH, IntervalBar
from densedpo.measure.templates import template
from densedpo.metrics.motion_bias import BiasCheck
from densedpo.metrics.statistics import Estimate

PAGE_FILE: Final = "index.html"
NO_BREAK: Final = "\u00a0"
_SIDES: Final = ("a", "tie", "b")


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberRow:
    """A number with what stands behind it; `value` is empty where it was not computed, and `note` says why."""

    name: str
    meaning: str
    value: str
    interval: str
    count: str
    note: str
    alarm: bool
    bar: IntervalBar | None


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerTable:
    """How often each answer met each of the other's: rows are one's, columns the other's, `a`, tie and `b`."""

    unit: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgesPage:
    """Everything that the template reads."""

    report: JudgesReport
    headline: str
    evidence: str
    agreement: tuple[NumberRow, ...]
    tables: tuple[AnswerTable, ...]
    bias: tuple[tuple[str, tuple[NumberRow, ...]], ...]


def render(report: JudgesReport) -> str:
    """The page as HTML."""
    return template("judges.html").render(page=build_page(report), bar_width=BAR_WIDTH)


def build_page(report: JudgesReport) -> JudgesPage:
    """What the page of a report says."""
    bias = [(each.annotator, tuple(_bias_row(check) for check in each.checks)) for each in report.bias]
    if report.alignment is not None:
        bias.append(("the pairs", (_bias_row(report.alignment),)))
    return JudgesPage(
        report=report,
        headline=_headline(report),
        evidence=_evidence(report),
        agreement=agreement_rows(report),
        tables=tuple(_answer_table(report, accuracy) for accuracy in report.accuracies if accuracy.confusion.num_units),
        bias=tuple(bias),
    )


def text(report: JudgesReport) -> str:
    """The report as plain text."""
    page = build_page(report)
    lines = [f"{page.headline}{f': {page.evidence}' if page.evidence else ''}"]
    for title, rows in (("agreement", page.agreement), *page.bias):
        lines.append(title)
        for row in rows:
            what = f"  {row.name:<34}"
            lines.append(f"{what}{row.value:<9} {row.interval:<20} {row.count}  {row.note}".rstrip())
    if report.excluded:
        lines.append(f"the motion of {len(report.excluded)} pairs is not known:")
        lines += [f"  {each.pairs} {each.pair_id}: {each.fault}" for each in report.excluded[:20]]
    for verdict in report.probes:
        said = "passed" if verdict.passed else f"FAILED ({'; '.join(verdict.reasons)})"
        lines.append(f"probe of {verdict.annotator} against {verdict.truth} on pairs/{verdict.pairs}: {said}")
    return "\n".join(lines)


def agreement_rows(report: JudgesReport) -> tuple[NumberRow, ...]:
    """Accuracy and the coefficients of agreement, by segment and by clip; a unit that nobody shares has no rows."""
    rows = []
    for accuracy in report.accuracies:
        if not accuracy.confusion.num_units:
            continue
        unit = accuracy.unit
        chosen = f"of those that {report.against} does not call a tie"
        rows += [
            _row(f"{unit}s: same answer", "of those that neither calls a tie", accuracy.decided, middle=0.5, width=1.0),
            _row(f"{unit}s: same, a tie is half", chosen, accuracy.chosen, middle=0.5, width=1.0),
        ]
        found = accuracy.coefficients
        if found is not None:
            named = (
                ("percent", "same answer, ties too", "what chance gives is not taken off", 0.5, 1.0),
                ("cohen", "Cohen's kappa", "beyond chance; falls where nearly all answers are alike", 0.0, 2.0),
                ("ac1", "Gwet's AC1", "beyond chance; holds where nearly all answers are alike", 0.0, 2.0),
                (
                    "alpha_ordinal",
                    "Krippendorff's alpha",
                    "beyond chance; a and b are further apart than a tie",
                    0.0,
                    2.0,
                ),
                ("tie_or_not", "same on tie or not", "of all, whichever side", 0.5, 1.0),
            )
            values = {
                "percent": found.percent, "cohen": found.cohen, "ac1": found.ac1,
                "alpha_ordinal": found.alpha_ordinal, "tie_or_not": found.tie_or_not,
            }  # fmt: skip
            rows += [
                _row(
                    f"{unit}s: {name}",
                    meaning,
                    values[key],
                    middle=middle,
                    width=width,
                    note=found.not_computed.get(key, ""),
                )
                for key, name, meaning, middle, width in named
            ]
    return tuple(rows)


def _headline(report: JudgesReport) -> str:
    first = _first_decided(report)
    if first is None:
        return f"Nothing is known of {report.annotator} against {report.against}: nothing is decided by both"
    unit, estimate = first
    share = f"{100 * estimate.value:.1f}{NO_BREAK}%"
    if not _differs(estimate, 0.5):
        more = f"{share} of the {unit}s that neither calls a tie"
        return f"{report.annotator} is not shown to agree with {report.against} more than chance does, at {more}"
    if estimate.value < 0.5:
        return (
            f"{report.annotator} contradicts {report.against}: it gives the same answer on {share} of decided {unit}s"
        )
    return f"{report.annotator} gives the answer of {report.against} on {share} of the {unit}s that neither calls a tie"


def _evidence(report: JudgesReport) -> str:
    first = _first_decided(report)
    if first is None:
        return ""
    unit, estimate = first
    interval = "no interval"
    if estimate.low is not None and estimate.high is not None:
        interval = f"{100 * estimate.level:g} % interval {100 * estimate.low:.1f} to {100 * estimate.high:.1f} %"
    return f"{interval}, {_count(estimate, unit + 's')}"


def _first_decided(report: JudgesReport) -> tuple[Unit, Estimate] | None:
    return next(((each.unit, each.decided) for each in report.accuracies if each.decided is not None), None)


def _differs(estimate: Estimate, value: float) -> bool:
    return estimate.low is not None and estimate.high is not None and not estimate.low <= value <= estimate.high


def _count(estimate: Estimate, units: str) -> str:
    drawn = "pair" if "over pairs" in estimate.method else "prompt"
    text = f"n = {estimate.n} {drawn}{'s' if estimate.n != 1 else ''}, {estimate.num_values} {units}"
    return text + (f", {estimate.num_excluded} excluded" if estimate.num_excluded else "")


def _answer_table(report: JudgesReport, accuracy: Accuracy) -> AnswerTable:
    counts = accuracy.confusion.counts
    return AnswerTable(
        unit=accuracy.unit,
        head=tuple(f"{report.against}: {side}" for side in _SIDES),
        rows=tuple((f"{report.annotator}: {side}", tuple(counts[side][other] for other in _SIDES)) for side in _SIDES),
    )


def _bias_row(check: BiasCheck) -> NumberRow:
    estimate = check.estimate
    width = 1.0
    if estimate is not None:
        ends = [value for value in (estimate.value, estimate.low, estimate.high) if value is not None]
        width = 2 * max(abs(value - check.against) for value in ends)
    note = check.reason
    if estimate is not None:
        note = "alarm" if check.alarm else "no alarm"
        if not check.alarm and not _differs(estimate, check.against):
            note = f"not significant at n={estimate.n}"
    return _row(check.name, check.meaning, estimate, middle=check.against, width=width, note=note, alarm=check.alarm)


def _row(
    name: str,
    meaning: str,
    estimate: Estimate | None,
    *,
    middle: float,
    width: float,
    note: str = "",
    alarm: bool = False,
) -> NumberRow:
    """A row whose bar has one value in the middle and is as wide as another."""
    if estimate is None:
        return NumberRow(
            name=name,
            meaning=meaning,
            value="",
            interval="",
            count="",
            note=note or "not computed",
            alarm=False,
            bar=None,
        )
    bar = None
    if estimate.low is not None and estimate.high is not None and width > 0:

        def at(value: float) -> float:
            return round(BAR_WIDTH / 2 + (value - middle) / width * (BAR_WIDTH - 2 * BAR_MARGIN), 2)

        bar = IntervalBar(low=at(estimate.low), high=at(estimate.high), value=at(estimate.value))
    return NumberRow(
        name=name,
        meaning=meaning,
        value=value_text(estimate),
        interval=interval_text(estimate),
        count=_count(estimate, "answers"),
        note=note,
        alarm=alarm,
        bar=bar,
    )
