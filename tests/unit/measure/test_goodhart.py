"""The alarm on the page: the proxy of a run against the motion of its clips. All numbers are made up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from densedpo.core.errors import BadInput
from densedpo.core.workspace import Project, init_project
from densedpo.measure.compare import compare
from densedpo.measure.config import CompareConfig
from densedpo.measure.goodhart import alarm_text, proxy_gain
from measured_scores import write_scores

N = 30
CONFIG = CompareConfig(num_draws=200)
BASE = np.linspace(1.0, 2.0, N)


def add_run(project: Project, name: str, *, accuracy: float, error: float = 0.02) -> Path:
    folder = project.run(name)
    folder.mkdir(parents=True)
    rows = [
        {"step": step, "split": "validation", "frame_accuracy": value, "frame_accuracy_se": error, "num_items": 80}
        for step, value in ((10, 0.5), (20, accuracy), (30, 0.99))
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.toml").write_text("eval_draws = 4\n")
    (folder / "summary.json").write_text('{"selected_step": 20}')
    return folder


def test_the_proxy_is_the_accuracy_of_the_selected_step_above_chance(tmp_path: Path) -> None:
    """80 items in 4 draws are 20 pairs; t of 19 degrees of freedom is 2.093, times 0.02 is 0.0419."""
    gain = proxy_gain(add_run(init_project(tmp_path / "p"), "dense", accuracy=0.7))
    assert gain is not None
    assert gain.value == pytest.approx(0.2)
    assert (gain.low, gain.high) == (pytest.approx(0.2 - 0.0419, abs=1e-4), pytest.approx(0.2 + 0.0419, abs=1e-4))
    assert (gain.n, gain.num_values) == (20, 80)


@pytest.mark.parametrize(
    ("accuracy", "lost", "alarms"),
    [(0.7, 0.3, ["dense"]), (0.7, -0.3, []), (0.51, 0.3, []), (0.7, 0.0, [])],
    ids=["proxy up, motion down", "both up", "proxy not shown to be up", "motion the same"],
)
def test_the_alarm_rises_only_where_the_proxy_is_up_and_a_guard_down(
    tmp_path: Path, accuracy: float, lost: float, alarms: list[str]
) -> None:
    project = init_project(tmp_path / "p")
    add_run(project, "dense", accuracy=accuracy)
    wobble = 0.05 * np.where(np.arange(N) % 2 == 0, 1.0, -1.0)
    write_scores(project, "base", {"object_motion": BASE.tolist()})
    write_scores(project, "dense", {"object_motion": (BASE - lost + wobble).tolist()}, run="dense")
    found = compare(project, "cmp", ["base", "dense"], command="", config=CONFIG).report.alarms
    assert [alarm.checkpoint for alarm in found] == alarms
    for alarm in found:
        assert "more often than chance, by +0.200 (+0.158 to +0.242, n = 20 pairs)" in alarm_text(alarm, "base")
        assert "against base object motion fell by 0.300" in alarm_text(alarm, "base")


def test_runs_that_say_nothing_have_no_proxy_and_damaged_ones_are_named(tmp_path: Path) -> None:
    project = init_project(tmp_path / "p")
    assert proxy_gain(project.run("nothing")) is None
    folder = add_run(project, "sft", accuracy=0.7)
    (folder / "metrics.jsonl").write_text('{"step": 20, "split": "validation", "loss": 0.2}\n')
    assert proxy_gain(folder) is None
    (folder / "metrics.jsonl").write_text('{"step": 20, "split": "validation", "frame_accuracy": 0.7}\n')
    (folder / "summary.json").write_text("{")
    with pytest.raises(BadInput, match=r"summary\.json: not JSON"):
        proxy_gain(folder)
