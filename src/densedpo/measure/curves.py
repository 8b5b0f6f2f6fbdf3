"""Training curves of runs, as points in the coordinates of small panels."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from densedpo.core.errors import BadInput
from densedpo.core.workspace import Project
from densedpo.measure.numbers import decimals, number

WIDTH: Final = 320.0
HEIGHT: Final = 190.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 10.0, 12.0, 26.0
SMOOTHING_SHARE: Final = 0.05  # of the run's steps: how far back the smoothed line remembers
LOG_2: Final = math.log(2)

Split = Literal["train", "validation"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """The logged rows of a run; `style` is the number of its colour."""

    name: str
    style: int
    rows: tuple[dict[str, object], ...]

    def points(self, split: Split, key: str) -> list[tuple[float, float]]:
        """Step and value of each row of a split that has the value."""
        found = []
        for row in self.rows:
            step, value = row.get("step"), row.get(key)
            if row.get("split") == split and isinstance(step, int | float) and isinstance(value, int | float):
                found.append((float(step), float(value)))
        return found

    @property
    def has_preferences(self) -> bool:
        """Whether the run learned from pairs; the loss of one that did not is on another scale."""
        return any("accuracy" in row for row in self.rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tick:
    """A mark on an axis, in the panel's coordinates."""

    at: float
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of a panel: `points` as SVG wants them; `kind` is a class of the style sheet."""

    label: str
    style: int
    kind: Literal["raw", "train", "validation", "dashed"]
    points: str
    end: tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One small chart. `baseline` is a height to compare with (chance, no change), if there is one."""

    title: str
    caption: str
    alt: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    baseline: Tick | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Series:
    label: str
    style: int
    kind: Literal["raw", "train", "validation", "dashed"]
    points: list[tuple[float, float]]


def read_run(project: Project, name: str, style: int) -> Run:
    """The logged rows of a run.

    Raises:
        BadInput: the run has no metrics, or a row of them is not JSON.
    """
    path = project.run(name) / "metrics.jsonl"
    if not path.is_file():
        raise BadInput(f"run {name!r} has no metrics.jsonl; it did not start, or another tool made it")
    return Run(name=name, style=style, rows=tuple(read_rows(path)))


def read_rows(path: Path) -> list[dict[str, object]]:
    """The JSON objects of a file of rows.

    Raises:
        BadInput: names the file and the row that is no JSON object.
    """
    rows: list[dict[str, object]] = []
    for index, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadInput(f"{path}:{index}: not JSON ({error.msg})") from None
        if not isinstance(row, dict):
            raise BadInput(f"{path}:{index}: not a JSON object")
        rows.append(row)
    return rows


def panels(runs: Sequence[Run]) -> tuple[Panel, ...]:
    """The panels for which at least one run has logged values."""
    from_pairs = [run for run in runs if run.has_preferences]
    others = [run for run in runs if not run.has_preferences]
    drawn = [
        _panel("Loss", "log 2 is where it starts", _both(from_pairs, "loss"), (LOG_2, "log 2")),
        _panel("Implicit accuracy", "share ranked as labelled", _both(from_pairs, "accuracy"), (0.5, "chance")),
        _panel("Gap of the winner", "error minus the reference's; below 0 the winner became likelier",
               _both(from_pairs, "win_gap"), (0.0, "reference")),
        _panel("Gap of the loser", "error minus the reference's; above 0 the loser became less likely",
               _both(from_pairs, "lose_gap"), (0.0, "reference")),
        _panel("Loss without pairs", "error on real clips", _both(others, "loss"), None),
        _panel("Motion while training", "mean flow", _both(runs, "motion"), None),
    ]  # fmt: skip
    return tuple(panel for panel in drawn if panel is not None)


def _both(runs: Sequence[Run], key: str) -> list[_Series]:
    """Training as a faint line under its smoothed one, validation as a line with a mark at its end."""
    series = []
    for run in runs:
        train, validation = run.points("train", key), run.points("validation", key)
        if train:
            series.append(_Series(label=f"{run.name}, train", style=run.style, kind="raw", points=train))
            series.append(_Series(label=f"{run.name}, train", style=run.style, kind="train", points=_smooth(train)))
        if validation:
            series.append(
                _Series(label=f"{run.name}, validation", style=run.style, kind="validation", points=validation)
            )
    return series


def _smooth(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """An exponential mean over steps, corrected for its start."""
    memory = max(1.0, SMOOTHING_SHARE * (points[-1][0] - points[0][0] + 1))
    total = weight = 0.0
    smoothed, before = [], points[0][0]
    for step, value in points:
        decay = math.exp(-(step - before) / memory)
        total, weight, before = total * decay + value, weight * decay + 1, step
        smoothed.append((step, total / weight))
    return smoothed


def _panel(title: str, caption: str, series: list[_Series], baseline: tuple[float, str] | None) -> Panel | None:
    if not series:
        return None
    # single steps swing widely; the range is that of what is read, and the faint line may leave it
    read = [point for each in series if each.kind != "raw" for point in each.points]
    raw = np.array([y for each in series if each.kind == "raw" for _, y in each.points] or [read[0][1]])
    heights = [y for _, y in read] + list(np.percentile(raw, [10, 90])) + ([baseline[0]] if baseline else [])
    low, high = min(heights), max(heights)
    margin = 0.06 * (high - low) or 0.5
    low, high = low - margin, high + margin
    first, last = 0.0, max(x for x, _ in read)
    scale = _Scale(first=first, last=max(last, 1.0), low=low, high=high)
    ends = "; ".join(f"{s.label} ends at {number(s.points[-1][1])}" for s in series if s.kind != "raw")
    return Panel(
        title=title,
        caption=caption,
        alt=f"{title} by training step: {ends}.",
        lines=tuple(scale.line(each) for each in series),
        x_ticks=tuple(Tick(at=scale.x(x), text=number(x, 0)) for x in nice_ticks(first, scale.last, 4)),
        y_ticks=_y_ticks(scale),
        baseline=Tick(at=scale.y(baseline[0]), text=baseline[1]) if baseline else None,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scale:
    first: float
    last: float
    low: float
    high: float

    def x(self, value: float) -> float:
        return round(LEFT + (value - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT), 2)

    def y(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        return round(TOP + (self.high - inside) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM), 2)

    def line(self, series: _Series) -> Line:
        step = max(1, len(series.points) // 300)
        thinned = series.points[::step] if step > 1 else series.points
        if thinned[-1] != series.points[-1]:
            thinned = [*thinned, series.points[-1]]
        points = " ".join(f"{self.x(x):g},{self.y(y):g}" for x, y in thinned)
        x, y = series.points[-1]
        return Line(label=series.label, style=series.style, kind=series.kind, points=points, end=(self.x(x), self.y(y)))


def _y_ticks(scale: _Scale) -> tuple[Tick, ...]:
    values = nice_ticks(scale.low, scale.high, 5)
    step = values[1] - values[0] if len(values) > 1 else 1.0  # one digit times a power of ten
    places = max(0, decimals(step) - 2)
    return tuple(Tick(at=scale.y(value), text=number(value, places) if value else "0") for value in values)


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round values inside a range: multiples of 1, 2 or 5 times a power of ten."""
    if high <= low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    start = math.ceil(low / step - 1e-9)
    stop = math.floor(high / step + 1e-9)
    return [index * step for index in range(start, stop + 1)]
