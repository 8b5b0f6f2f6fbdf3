"""Two small pictures of a study: every arm's differences with their intervals, and motion against quality.

Small gray marks are the training seeds, one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from table import Row

SHOWN: Final = ("visual_quality", "temporal_consistency", "text_alignment", "dynamic_degree", "object_motion")
_BLUE, _GRAY = "#1f5fa8", "#8a8f98"
# text stays text and ids are fixed, so that the same results give the same small file
_STYLE: Final = {"svg.fonttype": "none", "svg.hashsalt": "densedpo", "font.size": 8.0}


def draw_figures(report: Row, folder: Path) -> None:
    """differences.svg and motion_and_quality.svg beside the results; nothing where no arm is done."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if not report["against_base"]:
        return
    with rc_context(_STYLE):
        arms = report["against_base"]
        height = 0.9 + 0.22 * len(arms)
        figure = Figure(figsize=(2.1 * len(SHOWN), height), layout="constrained")
        panels = figure.subplots(1, len(SHOWN), sharey=True)
        for axes, metric in zip(panels, SHOWN, strict=True):
            _forest(axes, metric, {arm: row.get(metric) for arm, row in arms.items()})
        _save(figure, report, folder / "differences.svg")
        figure = Figure(figsize=(4.2, 3.2), layout="constrained")
        _plane(figure.subplots(), arms)
        _save(figure, report, folder / "motion_and_quality.svg")


def _forest(axes: Axes, metric: str, cells: dict[str, Row | None]) -> None:
    axes.axvline(0, color=_GRAY, linewidth=0.8)
    for place, cell in enumerate(cells.values()):
        if cell is None:
            continue
        shown = cell["goes"] != "not shown"
        _interval(axes, cell, place, color=_BLUE if shown else _GRAY)
    axes.set_yticks(range(len(cells)), list(cells))
    axes.invert_yaxis()
    axes.set_title(metric.replace("_", " "), fontsize=8)
    axes.locator_params(axis="x", nbins=4)


def _interval(axes: Axes, cell: Row, place: float, *, color: str) -> None:
    if cell["low"] is not None:
        axes.plot([cell["low"], cell["high"]], [place, place], color=color, linewidth=1.4)
    axes.plot([cell["value"]], [place], marker="o", markersize=3.5, color=color)
    seeds = list(cell["by_seed"].values())
    axes.plot(seeds, [place + 0.25] * len(seeds), linestyle="", marker="|", markersize=4, color=_GRAY)


def _plane(axes: Axes, arms: dict[str, dict[str, Row | None]]) -> None:
    """Upwards is better drawn, to the left is stiller: what VanillaDPO is said to trade."""
    axes.axhline(0, color=_GRAY, linewidth=0.8)
    axes.axvline(0, color=_GRAY, linewidth=0.8)
    for arm, row in arms.items():
        motion, quality = row.get("object_motion"), row.get("visual_quality")
        if motion is None or quality is None:
            continue
        x, y = motion["value"], quality["value"]
        if motion["low"] is not None and quality["low"] is not None:
            axes.plot([motion["low"], motion["high"]], [y, y], color=_BLUE, linewidth=0.8)
            axes.plot([x, x], [quality["low"], quality["high"]], color=_BLUE, linewidth=0.8)
        axes.plot([x], [y], marker="o", markersize=3.5, color=_BLUE)
        seeds = sorted(motion["by_seed"].keys() & quality["by_seed"].keys())
        at = [[row["by_seed"][seed] for seed in seeds] for row in (motion, quality)]
        axes.plot(*at, linestyle="", marker="x", markersize=3, color=_GRAY)
        axes.annotate(arm, (x, y), xytext=(4, 4), textcoords="offset points")
    axes.locator_params(axis="x", nbins=6)  # more of them run into each other
    axes.set_xlabel("object motion less the base's, px/frame")
    axes.set_ylabel("visual quality less the base's")


def _save(figure: Figure, report: Row, path: Path) -> None:
    if report["reduced"].get("quick"):
        figure.suptitle("machinery only: these numbers mean nothing", fontsize=8)
    figure.savefig(path, metadata={"Date": None, "Title": f"{report['study']}: 95 % intervals over seeds and prompts"})
