"""Curves: what is drawn, where, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from densedpo.core.errors import BadInput
from densedpo.core.workspace import init_project
from densedpo.measure.charts.panel import HEIGHT, WIDTH, nice_ticks
from densedpo.measure.charts.training import Run, panels, read_rows, read_run


def rows(split: str, key: str, values: list[float]) -> tuple[dict[str, object], ...]:
    return tuple({"step": i + 1, "split": split, key: value} for i, value in enumerate(values))


@pytest.mark.parametrize(
    ("low", "high", "count", "ticks"),
    [
        (0.0, 100.0, 4, [0, 50, 100]),
        (0.0, 1.0, 5, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-0.0011, 0.0009, 4, [-1e-3, -5e-4, 0, 5e-4]),
    ],
)
def test_ticks_are_round(low: float, high: float, count: int, ticks: list[float]) -> None:
    assert nice_ticks(low, high, count) == pytest.approx(ticks)


def test_points_lie_inside_the_panel_and_rise_to_the_right() -> None:
    run = Run(name="r", style=0, rows=rows("validation", "accuracy", [0.5, 0.6, 0.7]))
    (panel,) = panels([run])
    (line,) = panel.lines
    points = [tuple(map(float, point.split(","))) for point in line.points.split()]
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in points)
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)
    assert "r, validation ends at 0.700" in panel.alt


def test_smoothing_starts_at_the_first_value_and_stays_inside_the_data() -> None:
    run = Run(name="r", style=0, rows=rows("train", "accuracy", [1.0] + [0.0] * 200))
    (panel,) = panels([run])
    smoothed = next(line for line in panel.lines if line.kind == "train")
    heights = [float(point.split(",")[1]) for point in smoothed.points.split()]
    assert heights == sorted(heights)  # falls from the first value on, and never undershoots


def test_the_loss_of_a_run_without_pairs_has_a_panel_of_its_own() -> None:
    dpo = Run(name="dense", style=0, rows=(*rows("train", "loss", [0.69]), *rows("train", "accuracy", [0.5])))
    sft = Run(name="sft", style=1, rows=rows("train", "loss", [0.2]))
    titles = {panel.title: {line.label for line in panel.lines} for panel in panels([dpo, sft])}
    assert titles["Loss"] == {"dense, train"}
    assert titles["Loss without pairs"] == {"sft, train"}


def test_missing_values_are_left_out_and_no_panel_is_empty() -> None:
    run = Run(name="r", style=0, rows=({"step": 1, "split": "train", "loss": None, "accuracy": 0.5},))
    assert [panel.title for panel in panels([run])] == ["Implicit accuracy"]


def test_a_torn_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st')
    with pytest.raises(BadInput, match=r"metrics\.jsonl:2: not JSON"):
        read_rows(path)


def test_drift_is_drawn_and_what_a_run_noticed_is_read(tmp_path: Path) -> None:
    project = init_project(tmp_path / "p")
    folder = project.run("dense")
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"step": 10, "split": "validation", "drift": 0.25}\n')
    (folder / "run.json").write_text('{"alarms": [{"name": "too_easy", "step": 10, "message": "a shortcut"}]}')
    run = read_run(project, "dense", 0)
    assert [panel.title for panel in panels([run])] == ["Drift from the reference"]
    assert run.alarms == ("a shortcut",)
    (folder / "run.json").write_text("{")
    with pytest.raises(BadInput, match=r"run\.json: not JSON"):
        read_run(project, "dense", 0)


def test_what_the_guard_of_an_online_run_saw_has_panels_of_its_own() -> None:
    seen = (
        {"step": 0, "split": "guard", "motion": 2.0, "reward": 0.1, "saturation": 0.3},
        {"step": 9, "split": "guard", "motion": 1.0},
    )
    titles = {
        panel.title: {line.label for line in panel.lines} for panel in panels([Run(name="o", style=0, rows=seen)])
    }
    drawn = ("Motion while training", "Reward while training", "Saturation while training")
    assert titles == {title: {"o, guard"} for title in drawn}
