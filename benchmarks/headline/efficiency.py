"""What labels buy: how much more an arm gains over the base, the more of its pairs are labelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from densedpo.core.records import from_row, to_row
from densedpo.measure.charts.efficiency import EfficiencyCurve, efficiency_figure, style_sheet
from densedpo.metrics.label_efficiency import LabelEfficiency, label_efficiency

if TYPE_CHECKING:
    from study import Study
    from table import Row, Scores

    from densedpo.metrics.label_efficiency import RunKey


def efficiency(study: Study, scores: Scores) -> Row | None:
    """The study's curve as results.json holds it; None where it declares none, or fewer than two arms are measured."""
    wanted = study.efficiency
    if wanted is None or len(arms := [arm for arm in wanted.arms if arm in scores.arms]) < 2:
        return None
    gains: dict[RunKey, float | None] = {}
    for arm in arms:
        base, budget = scores.beside(arm, wanted.metric), study.num_labelled(arm)
        assert budget is not None
        for (seed, prompt), value in scores.arms[arm][wanted.metric].items():
            level = base[seed, prompt]
            gains[budget, seed, prompt] = None if value is None or level is None else value - level
    found = label_efficiency(gains, target=wanted.target, seed=0)
    return {"name": wanted.name, "metric": wanted.metric, "arms": list(arms), "curve": to_row(found)}


def efficiency_page(report: Row) -> str:
    """The curve of results as a page of its own."""
    row = report["efficiency"]
    curve = from_row(LabelEfficiency, row["curve"], "efficiency")
    title = f"{row['metric'].replace('_', ' ')} less the base's"
    figure = efficiency_figure(
        [EfficiencyCurve(name=row["name"], points=curve.points, needed=curve.needed)],
        title=f"{title[0].upper()}{title[1:]}",
        unit="labelled pairs",
        baseline=(0.0, "base"),
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{report["study"]}: what labels buy</title>'
        f"<style>{style_sheet()} main {{ max-width: 34rem; margin: 2rem auto }}</style><main>{figure}</main></html>\n"
    )
