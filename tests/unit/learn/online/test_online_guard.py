from __future__ import annotations

import json
from pathlib import Path

import pytest

from densedpo.adapters import load
from densedpo.core.workspace import Project, init_project
from densedpo.learn.online.guard.looks import GuardClip, Look, alarm_of, best_look, look_row, looks_since_best
from online_runs import online_config, rows, train_online
from toy import add_toy_clips


def look(number: int, *, num_prompts: int = 12, **means: float) -> Look:
    """A look whose measures vary a little from prompt to prompt around their means."""
    clips = [
        GuardClip(
            prompt_id=f"p{index}", seed=0, values={name: mean + 0.01 * (index % 3) for name, mean in means.items()}
        )
        for index in range(num_prompts)
    ]
    return Look(round=number, step=10 * number, policy="x", clips=tuple(clips))


BASE = {"reward": 0.0, "held_out": 0.5, "motion": 2.0, "diversity": 30.0, "saturation": 0.3}


def test_f21_a_reward_that_rises_while_motion_falls_raises_the_alarm_by_name():
    alarm = alarm_of(look(0, **BASE), look(5, **{**BASE, "reward": 1.0, "motion": 1.0}))
    assert alarm is not None
    assert list(alarm.worse) == ["motion"]
    assert alarm.text == "at round 5 the proxy is up by 1 while motion is down by 1"


def test_rising_saturation_is_a_loss_and_falling_saturation_is_not():
    base = look(0, **BASE)
    risen = alarm_of(base, look(5, **{**BASE, "reward": 1.0, "saturation": 0.5}))
    assert risen is not None
    assert risen.text == "at round 5 the proxy is up by 1 while saturation is up by 0.2"
    assert alarm_of(base, look(5, **{**BASE, "reward": 1.0, "saturation": 0.1})) is None


def test_what_falls_while_the_reward_does_not_rise_is_no_alarm():
    assert alarm_of(look(0, **BASE), look(5, **{**BASE, "reward": -0.1, "motion": 0.1})) is None


def test_the_best_look_is_the_one_with_the_highest_held_out_score_and_the_first_of_equals():
    looks = [
        look(number, **{**BASE, "held_out": score}) for number, score in ((0, 0.5), (5, 0.8), (10, 0.8), (15, 0.6))
    ]
    assert best_look(looks) == looks[1]
    assert looks_since_best(looks) == 2


def test_without_a_held_out_judge_no_look_is_the_best():
    looks = [Look(round=0, step=0, policy="x", clips=(GuardClip(prompt_id="p", seed=0, values={"held_out": None}),))]
    assert best_look(looks) is None
    assert looks_since_best(looks) == 0


def test_a_row_has_the_means_and_the_changes_since_the_base_with_their_intervals():
    """12 prompts with the same difference of 1 each: the mean is 1, and so are both ends of its interval."""
    row = look_row(look(0, **BASE), look(5, **{**BASE, "motion": 3.0}))
    assert (row["step"], row["split"], row["round"]) == (50, "guard", 5)
    assert row["motion"] == pytest.approx(3.01)
    assert [row[f"motion_change{end}"] for end in ("", "_low", "_high")] == pytest.approx([1.0] * 3)


def test_a_guarded_run_looks_at_the_same_noises_and_ends_with_the_best_look(prompted: Project, toy_model_dir: Path):
    """Looks after rounds 0, 2 and 3 of 3. The held-out judge wants the opposite of the reward, so the base is best."""
    guard = {
        "every": 2, "num_prompts": 3, "select": "best",
        "judge": {"judge": "online_judges:Darkness"},
    }  # fmt: skip
    folder = train_online(prompted, "guarded", toy_model_dir, online_config({"learning_rate": 1e-2}, guard=guard))
    looks = rows(folder, "guard")
    assert [(row["round"], row["step"]) for row in looks] == [(0, 0), (2, 4), (3, 6)]
    assert looks[0]["held_out"] == pytest.approx(-looks[0]["reward"])
    best = max(looks, key=lambda row: row["held_out"])
    kept = folder / "guards" / f"{best['round']:04d}" / "adapter.safetensors"
    assert (folder / "adapter.safetensors").read_bytes() == kept.read_bytes()


def test_a_run_stops_when_the_held_out_score_no_longer_rises(prompted: Project, toy_model_dir: Path):
    """Looks every round with a patience of 1. What is held out is the same for all clips, so no look is better."""
    guard = {"every": 1, "num_prompts": 2, "patience": 1, "judge": {"judge": "online_judges:Same"}}
    folder = train_online(prompted, "patient", toy_model_dir, online_config(guard=guard))
    assert [row["round"] for row in rows(folder, "guard")] == [0, 1]
    assert [row["round"] for row in rows(folder, "round")] == [0]


@pytest.fixture
def wide(toy_model_dir: Path, tmp_path: Path) -> Project:
    """A project with 12 training and 12 validation prompts."""
    project = init_project(tmp_path / "wide")
    add_toy_clips(project.root, load(toy_model_dir), 24, splits=("train", "validation"))
    return project


@pytest.mark.slow
def test_a_planted_reward_is_climbed(wide: Project, toy_model_dir: Path):
    """Brightness, for 8 rounds: clips of prompts and noises that were never trained on are brighter than the base's."""
    config = online_config(
        {"learning_rate": 1e-2, "batch_pairs": 4}, num_rounds=8, steps_per_round=5, prompts_per_round=4,
        refresh_every=20, guard={"every": 8, "num_prompts": 12},
    )  # fmt: skip
    folder = train_online(wide, "climb", toy_model_dir, config)
    first, last = rows(folder, "guard")
    assert last["reward_change_low"] > 0
    assert last["reward"] > first["reward"]


@pytest.mark.slow
def test_f21_a_reward_for_stillness_is_climbed_raises_the_alarm_and_stops_the_run(toy_model_dir: Path, tmp_path: Path):
    """The reward is minus the change from frame to frame; motion is measured by optical flow, which it never saw."""
    project = init_project(tmp_path / "project")
    add_toy_clips(project.root, load(toy_model_dir), 16, splits=("train", "validation"))
    guard = {"every": 4, "num_prompts": 8, "stop_on_alarm": True}
    config = online_config(
        {"learning_rate": 1e-2, "batch_pairs": 4}, num_rounds=12, steps_per_round=5, prompts_per_round=4,
        refresh_every=20, rewards=[{"judge": "online_judges:Stillness"}], guard=guard,
    )  # fmt: skip
    folder = train_online(project, "still", toy_model_dir, config)
    assert "alarm" in json.loads((folder / "summary.json").read_text())["stopped_early"]
    (alarm,) = json.loads((folder / "run.json").read_text())["alarms"]
    assert alarm["name"] == "goodhart"
    assert "motion is down" in alarm["message"]
    last = rows(folder, "guard")[-1]
    assert last["reward_change_low"] > 0
    assert last["motion_change_high"] < 0
