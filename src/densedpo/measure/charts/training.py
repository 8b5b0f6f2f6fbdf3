"""Training curves of runs, as points in the coordinates of small panels."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from densedpo.core.errors import BadInput
from densedpo.core.workspace import Project
from densedpo.measure.charts.panel import Panel, Series, draw_panel

SMOOTHING_SHARE: Final = 0.05  # of the run's steps: how far back the smoothed line remembers
LOG_2: Final = math.log(2)

Split = Literal["train", "validation", "guard"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """The logged rows of a run; `style` is the number of its colour, `alarms` what the run itself noticed."""

    name: str
    style: int
    rows: tuple[dict[str, object], ...]
    alarms: tuple[str, ...] = ()

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


def read_run(project: Project, name: str, style: int) -> Run:
    """The logged rows of a run.

    Raises:
        BadInput: the run has no metrics, or a row of them or its run.json is not JSON.
    """
    path = project.run(name) / "metrics.jsonl"
    if not path.is_file():
        raise BadInput(f"run {name!r} has no metrics.jsonl; it did not start, or another tool made it")
    return Run(name=name, style=style, rows=tuple(read_rows(path)), alarms=_alarms(project.run(name) / "run.json"))


def _alarms(path: Path) -> tuple[str, ...]:
    """The messages of a run's alarms; none where another tool made the run."""
    if not path.is_file():
        return ()
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not JSON ({error})") from None
    found = row.get("alarms", []) if isinstance(row, dict) else []
    return tuple(str(alarm["message"]) for alarm in found if isinstance(alarm, dict) and "message" in alarm)


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
        draw_panel("Loss", "log 2 is where it starts", _both(from_pairs, "loss"), (LOG_2, "log 2")),
        draw_panel("Implicit accuracy", "share ranked as labelled", _both(from_pairs, "accuracy"), (0.5, "chance")),
        draw_panel("Gap of the winner", "error minus the reference's; below 0 the winner became likelier",
                   _both(from_pairs, "win_gap"), (0.0, "reference")),
        draw_panel("Gap of the loser", "error minus the reference's; above 0 the loser became less likely",
                   _both(from_pairs, "lose_gap"), (0.0, "reference")),
        draw_panel("Loss without pairs", "error on real clips", _both(others, "loss"), None),
        draw_panel("Drift from the reference", "mean squared difference of the predictions",
                   _both(runs, "drift"), None),
        draw_panel("Size of the adapter", "norm of what the LoRA adds to the weights", _both(runs, "lora_norm"), None),
        draw_panel("Motion while training", "mean flow", [*_both(runs, "motion"), *_guard(runs, "motion")], None),
        draw_panel("Reward while training", "what an online run climbs, on the guard's prompts",
                   _guard(runs, "reward"), None),
        draw_panel("Held-out judge", "the same clips by a judge that training never saw", _guard(runs, "held_out"),
                   None),
        draw_panel("Diversity while training", "distance between the guard's clips of a prompt",
                   _guard(runs, "diversity"), None),
        draw_panel("Saturation while training", "mean saturation of the guard's clips; a reward that is hacked often "
                   "raises it", _guard(runs, "saturation"), None),
    ]  # fmt: skip
    return tuple(panel for panel in drawn if panel is not None)


def _both(runs: Sequence[Run], key: str) -> list[Series]:
    """Training as a faint line under its smoothed one, validation as a line with a mark at its end."""
    series = []
    for run in runs:
        train, validation = run.points("train", key), run.points("validation", key)
        if train:
            series.append(Series(label=f"{run.name}, train", style=run.style, kind="raw", points=train))
            series.append(Series(label=f"{run.name}, train", style=run.style, kind="train", points=_smooth(train)))
        if validation:
            series.append(
                Series(label=f"{run.name}, validation", style=run.style, kind="validation", points=validation)
            )
    return series


def _guard(runs: Sequence[Run], key: str) -> list[Series]:
    """What the guard of online runs saw of the same prompts, look by look."""
    return [
        Series(label=f"{run.name}, guard", style=run.style, kind="validation", points=points)
        for run in runs
        if (points := run.points("guard", key))
    ]


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
