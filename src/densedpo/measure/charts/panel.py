"""The geometry of a small chart: a range, ticks at round values, lines and bands."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from densedpo.measure.numbers import decimals, number

WIDTH: Final = 320.0
HEIGHT: Final = 190.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 10.0, 12.0, 26.0

Kind = Literal["raw", "train", "validation", "dashed"]


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
    kind: Kind
    points: str
    end: tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """The intervals along a line, as the points of a polygon."""

    style: int
    points: str


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
    bands: tuple[Band, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One line before it is drawn: x and y of its points, in order."""

    label: str
    style: int
    kind: Kind
    points: list[tuple[float, float]]


def draw_panel(title: str, caption: str, series: list[Series], baseline: tuple[float, str] | None) -> Panel | None:
    """A chart over training steps; None where there is nothing to draw.

    Args:
        baseline: a height and its name.
    """
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
    scale = Scale(first=first, last=max(last, 1.0), low=low, high=high)
    ends = "; ".join(f"{s.label} ends at {number(s.points[-1][1])}" for s in series if s.kind != "raw")
    return Panel(
        title=title,
        caption=caption,
        alt=f"{title} by training step: {ends}.",
        lines=tuple(scale.line(each) for each in series),
        x_ticks=tuple(Tick(at=scale.x(x), text=number(x, 0)) for x in nice_ticks(first, scale.last, 4)),
        y_ticks=height_ticks(scale),
        baseline=Tick(at=scale.y(baseline[0]), text=baseline[1]) if baseline else None,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """From values to the panel's coordinates; what leaves the range of heights is drawn at its edge."""

    first: float
    last: float
    low: float
    high: float

    def x(self, value: float) -> float:
        """The horizontal place of a value."""
        return round(LEFT + (value - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT), 2)

    def y(self, value: float) -> float:
        """The vertical place of a value; 0 is the top."""
        inside = min(max(value, self.low), self.high)
        return round(TOP + (self.high - inside) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM), 2)

    def line(self, series: Series) -> Line:
        """A line, thinned to what can be seen."""
        step = max(1, len(series.points) // 300)
        thinned = series.points[::step] if step > 1 else series.points
        if thinned[-1] != series.points[-1]:
            thinned = [*thinned, series.points[-1]]
        points = " ".join(f"{self.x(x):g},{self.y(y):g}" for x, y in thinned)
        x, y = series.points[-1]
        return Line(label=series.label, style=series.style, kind=series.kind, points=points, end=(self.x(x), self.y(y)))


def height_ticks(scale: Scale) -> tuple[Tick, ...]:
    """Ticks of the vertical axis, at round values."""
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
