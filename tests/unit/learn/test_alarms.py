"""When a run warns that it learns something else, and that it does so once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from densedpo.learn.watch.alarms import Alarm, find_alarms, raise_alarms


def train(accuracy: float, num_rows: int = 10) -> list[dict[str, object]]:
    return [{"step": step, "accuracy": accuracy} for step in range(1, num_rows + 1)]


def evaluation(step: int, *, accuracy: float = 0.6, error: float = 0.02, margin: float = 0.0, win_gap: float = 0.0):
    return {
        "step": step, "frame_accuracy": accuracy, "frame_accuracy_se": error, "margin": margin, "win_gap": win_gap
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fitted", "rows", "step", "accuracy", "alarms"),
    [
        (0.97, 10, 200, 0.53, ["shortcut"]),  # 0.53 - 2 * 0.02 is below chance
        (0.97, 10, 200, 0.55, []),  # the validation pairs follow
        (0.94, 10, 200, 0.53, []),
        (0.97, 9, 200, 0.53, []),  # too few steps to tell
        (0.97, 10, 501, 0.53, []),  # no longer early
        (0.97, 10, 200, 0.98, ["too_easy"]),
    ],
)
def test_pairs_told_apart_by_a_shortcut(fitted: float, rows: int, step: int, accuracy: float, alarms: list[str]):
    found = find_alarms(train(fitted, rows), [evaluation(step, accuracy=accuracy)])
    assert [alarm.name for alarm in found] == alarms
    assert all(alarm.step == step for alarm in found)


@pytest.mark.parametrize(
    ("gaps", "margins", "is_unlearning"),
    [
        ((0.0, 0.01, 0.02), (0.0, 0.1, 0.2), True),
        ((0.0, 0.01, 0.01), (0.0, 0.1, 0.2), False),  # it has stopped rising
        ((0.0, 0.01, 0.02), (0.0, 0.1, 0.05), False),  # the margin does not rise with it
        ((-0.03, -0.02, -0.01), (0.0, 0.1, 0.2), False),  # still better than the reference
        ((0.01, 0.02), (0.1, 0.2), False),
    ],
)
def test_a_winner_that_gets_worse_as_the_margin_grows(gaps, margins, is_unlearning: bool):
    rows = [evaluation(20 * n, win_gap=g, margin=m) for n, (g, m) in enumerate(zip(gaps, margins, strict=True))]
    assert [alarm.name for alarm in find_alarms(train(0.8), rows)] == ["unlearning"] * is_unlearning
    assert find_alarms([{"step": 1, "loss": 0.2}], rows) == []  # sft has no loser


@pytest.mark.parametrize(
    ("shares", "is_by_loser"),
    [
        ((0.8, 0.7, 0.9), True),
        ((0.8, 0.6, 0.9), False),
        ((0.8, 0.9), False),  # too few evaluations to tell
        ((None, 0.8, 0.9), False),  # nothing was ranked right in the first
    ],
)
def test_pairs_that_are_won_only_through_the_loser(shares, is_by_loser: bool):
    rows = [evaluation(20 * n) | {"loser_dominant": share} for n, share in enumerate(shares, start=1)]
    found = find_alarms(train(0.8), rows)
    assert [alarm.name for alarm in found] == ["loser_dominant"] * is_by_loser
    assert all("90 % of what is ranked right is so only because the loser got worse" in each.message for each in found)
    assert find_alarms([{"step": 1, "loss": 0.2}], rows) == []  # sft has no loser


@pytest.mark.parametrize(
    ("loss", "drift", "alarms"),
    [
        (1.4, 1e-3, ["runaway"]),  # above 2 * 0.69
        (1.3, 1e-3, []),
        (0.5, 0.2, ["runaway"]),
        (0.5, 0.05, []),
        (None, 0.2, ["runaway"]),  # a loss that is not finite is written as None
    ],
)
def test_f06_a_policy_that_runs_away(loss: float | None, drift: float, alarms: list[str]):
    rows = [evaluation(0) | {"loss": 0.69, "drift": 0.0}, evaluation(20) | {"loss": loss, "drift": drift}]
    found = find_alarms(train(0.8), rows)
    assert [alarm.name for alarm in found] == alarms
    loss_said = "unknown" if loss is None else loss
    said = f"(loss {loss_said}, 0.69 at the start; its predictions have moved by {drift} in the mean square)"
    assert all(said in alarm.message for alarm in found)
    assert find_alarms([{"step": 1, "loss": 0.2}], rows) == []  # sft is not held to the reference


def test_f15_accuracy_near_1_within_500_steps_of_a_run_is_called_a_shortcut():
    (alarm,) = find_alarms(train(0.99), [evaluation(100, accuracy=0.51)])
    assert alarm.name == "shortcut"
    assert "learns the pairs by heart, or a shortcut" in alarm.message


def test_an_alarm_is_marked_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "run.json").write_text('{"name": "r"}\n', encoding="utf-8")
    alarm = Alarm(name="shortcut", step=20, message="by heart")
    raise_alarms(tmp_path, [])
    assert "alarms" not in json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    for step in (20, 40):
        raise_alarms(tmp_path, [Alarm(name="shortcut", step=step, message="by heart")])
    row = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert row == {"name": "r", "alarms": [{"name": "shortcut", "step": 20, "message": "by heart"}]}
    assert caplog.messages == [alarm.message]
