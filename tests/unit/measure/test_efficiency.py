"""The curve of what labels buy: where points lie, what is drawn, and what is refused."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from densedpo.core.errors import BadInput
from densedpo.measure.charts.efficiency import (
    EfficiencyCurve,
    efficiency_figure,
    efficiency_panel,
    needed_text,
)
from densedpo.measure.charts.panel import HEIGHT, WIDTH
from densedpo.metrics.label_efficiency import CurvePoint, Needed
from densedpo.metrics.statistics import Estimate


def point(budget: float, value: float, half: float | None = 0.01) -> CurvePoint:
    low, high = (None, None) if half is None else (value - half, value + half)
    score = Estimate(value=value, low=low, high=high, n=5, num_values=5, num_excluded=0, method="made up", seed=0)
    return CurvePoint(budget=budget, score=score, num_seeds=5)


DENSE = EfficiencyCurve(name="dense", points=(point(25, 0.1), point(50, 0.2), point(100, 0.3), point(200, 0.35)))
WHOLE = EfficiencyCurve(name="whole clip", points=(point(50, 0.1), point(200, 0.2)))


def coordinates(points: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (each.split(",") for each in points.split())]


def test_each_doubling_of_labels_is_as_wide_as_the_next() -> None:
    panel = efficiency_panel([DENSE], title="Gain", unit="pairs")
    places = [x for x, _ in coordinates(panel.lines[0].points)]
    steps = [after - before for before, after in itertools.pairwise(places)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.02)
    assert [tick.text for tick in panel.x_ticks] == ["25", "50", "100", "200"]


def test_bands_lie_around_their_lines_and_inside_the_panel() -> None:
    panel = efficiency_panel([DENSE, WHOLE], title="Gain", unit="pairs", baseline=(0.0, "base"))
    for line, band in zip(panel.lines, panel.bands, strict=True):
        upper, lower = coordinates(band.points)[: len(coordinates(line.points))], coordinates(band.points)[::-1]
        for (x, y), above, below in zip(coordinates(line.points), upper, lower, strict=False):
            assert above[0] == below[0] == x and above[1] < y < below[1]
            assert 0 < x < WIDTH and above[1] > 0 and below[1] < HEIGHT
    assert panel.baseline is not None and panel.baseline.text == "base"
    assert "dense: 25 pairs 0.100 (0.090 to 0.110)" in panel.alt


def test_points_without_an_interval_have_a_line_and_no_band() -> None:
    bare = EfficiencyCurve(name="one seed", points=(point(25, 0.1, None), point(50, 0.2, None)))
    panel = efficiency_panel([bare], title="Gain", unit="pairs")
    assert len(panel.lines) == 1 and panel.bands == ()
    assert "no interval" in panel.alt


def test_the_figure_is_one_svg_with_the_names_of_its_lines() -> None:
    figure = efficiency_figure([DENSE, WHOLE], title="Gain <b>", unit="pairs")
    assert figure.count('<svg viewBox="0 0 320') == 1 and figure.count("<polygon") == 2
    assert "whole clip" in figure and "Gain &lt;b&gt;" in figure


@pytest.mark.parametrize("budgets", [(), (0, 10), (20, 10), (10, 10)])
def test_budgets_have_to_rise_from_above_zero(budgets: tuple[float, ...]) -> None:
    curve = EfficiencyCurve(name="odd", points=tuple(point(budget, 0.1) for budget in budgets))
    with pytest.raises(BadInput, match="the budgets of 'odd' are"):
        efficiency_panel([curve], title="Gain", unit="pairs")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "dense reaches 0.300 with 84 pairs (60 to 120)."),
        ({"value": None}, "dense does not reach 0.300 within these budgets."),
        ({"at_most": True, "low": None}, "dense reaches 0.300 with at most 84 pairs (no interval)."),
        (
            {"high": None, "share_not_reached": 0.25},
            "dense reaches 0.300 with 84 pairs (60 to beyond the largest; 25 % of draws do not reach it).",
        ),
    ],
)
def test_what_a_target_needs_is_said_with_what_is_not_known(changes: dict[str, object], text: str) -> None:
    needed = Needed(
        target=0.3, value=84.0, low=60.0, high=120.0, at_most=False, share_not_reached=0.0, n=5, num_excluded=0,
        method="made up", seed=0,
    )  # fmt: skip
    assert needed_text("dense", replace(needed, **changes), "pairs") == text
