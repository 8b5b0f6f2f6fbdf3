"""What labels buy: a score over the number of labels, one line with its band for each method."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from densedpo.core.errors import BadInput
from densedpo.measure.charts.panel import Band, Panel, Scale, Series, Tick, height_ticks
from densedpo.measure.numbers import interval_text, number, value_text
from densedpo.measure.templates import TEMPLATES, template
from densedpo.metrics.label_efficiency import CurvePoint, Needed
from densedpo.metrics.statistics import Estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class EfficiencyCurve:
    """One method: its points by rising budget of labels (pairs, segments or seconds), and what its target needs."""

    name: str
    points: tuple[CurvePoint, ...]
    needed: Needed | None = None


def efficiency_panel(
    curves: Sequence[EfficiencyCurve], *, title: str, unit: str, baseline: tuple[float, str] | None = None
) -> Panel:
    """A chart of scores with their intervals over budgets, the budgets on a scale of doublings.

    Args:
        unit: what a budget counts, such as `pairs`.
        baseline: a height to compare with and its name, such as (0.0, "base").

    Raises:
        BadInput: there is no point, a budget is not above 0, or budgets do not rise.
    """
    for curve in curves:
        budgets = [point.budget for point in curve.points]
        rises = all(before < after for before, after in itertools.pairwise(budgets))
        if not budgets or budgets[0] <= 0 or not rises:
            raise BadInput(f"the budgets of {curve.name!r} are {budgets}; give at least one, rising, above 0")
    points = [point for curve in curves for point in curve.points]
    if not points:
        raise BadInput("a label-efficiency curve needs at least one method with a point")
    heights = [value for point in points for value in _heights(point.score)] + ([baseline[0]] if baseline else [])
    margin = 0.06 * (max(heights) - min(heights)) or 0.5
    places = sorted({point.budget for point in points})
    first, last = math.log2(places[0]), math.log2(places[-1])
    room = 0.05 * (last - first) or 0.5
    scale = Scale(first=first - room, last=last + room, low=min(heights) - margin, high=max(heights) + margin)
    return Panel(
        title=title,
        caption=f"by {unit}, with {100 * points[0].score.level:.0f} % intervals",
        alt=f"{title} by {unit}. " + " ".join(_said(curve, unit) for curve in curves),
        lines=tuple(scale.line(_series(curve, style)) for style, curve in enumerate(curves)),
        x_ticks=tuple(Tick(at=scale.x(math.log2(budget)), text=number(budget, 0)) for budget in places),
        y_ticks=height_ticks(scale),
        baseline=Tick(at=scale.y(baseline[0]), text=baseline[1]) if baseline else None,
        bands=tuple(band for style, curve in enumerate(curves) if (band := _band(curve, style, scale)) is not None),
    )


def efficiency_figure(
    curves: Sequence[EfficiencyCurve], *, title: str, unit: str, baseline: tuple[float, str] | None = None
) -> str:
    """The chart as HTML with inline SVG, the names of its lines and what each needs, for a page with `style_sheet`.

    Raises:
        BadInput: as `efficiency_panel`.
    """
    panel = efficiency_panel(curves, title=title, unit=unit, baseline=baseline)
    return template("efficiency.html").render(
        panel=panel,
        names=[curve.name for curve in curves],
        needed=[needed_text(curve.name, curve.needed, unit) for curve in curves if curve.needed is not None],
    )


def needed_text(name: str, needed: Needed, unit: str) -> str:
    """What a method needs to reach its target, in one sentence."""
    target = number(needed.target)
    if needed.value is None:
        return f"{name} does not reach {target} within these budgets."
    within = "at most " if needed.at_most else ""
    ends = "no interval"
    if needed.low is not None:
        ends = f"{number(needed.low, 0)} to " + (
            number(needed.high, 0) if needed.high is not None else "beyond the largest"
        )
    missed = f"; {100 * needed.share_not_reached:.0f} % of draws do not reach it" if needed.share_not_reached else ""
    return f"{name} reaches {target} with {within}{number(needed.value, 0)} {unit} ({ends}{missed})."


def style_sheet() -> str:
    """The reports' style sheet, for a page of another maker."""
    return (TEMPLATES / "style.css").read_text(encoding="utf-8")


def _heights(score: Estimate) -> list[float]:
    return [value for value in (score.value, score.low, score.high) if value is not None]


def _series(curve: EfficiencyCurve, style: int) -> Series:
    points = [(math.log2(point.budget), point.score.value) for point in curve.points]
    return Series(label=curve.name, style=style, kind="train", points=points)


def _band(curve: EfficiencyCurve, style: int, scale: Scale) -> Band | None:
    """The polygon of the intervals; None where fewer than two points have one."""
    low = [(math.log2(p.budget), p.score.low) for p in curve.points if p.score.low is not None]
    high = [(math.log2(p.budget), p.score.high) for p in curve.points if p.score.high is not None]
    if len(low) < 2:
        return None
    corners = [*high, *reversed(low)]
    return Band(style=style, points=" ".join(f"{scale.x(x):g},{scale.y(y):g}" for x, y in corners))


def _said(curve: EfficiencyCurve, unit: str) -> str:
    points = (f"{number(p.budget, 0)} {unit} {value_text(p.score)} ({interval_text(p.score)})" for p in curve.points)
    return f"{curve.name}: {', '.join(points)}."
