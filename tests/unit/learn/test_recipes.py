"""The published setups load, say what they claim, and run on toy weights."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import pytest

from densedpo.cli.main import run as densedpo
from densedpo.core.config import load_config
from densedpo.core.workspace import Project
from densedpo.learn.config import LearnConfig
from toy_pairs import read_only

PUBLISHED = ("densedpo_paper", "structural_dpo_paper", "flow_dpo", "df_dpo", "local_dpo")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_setup_runs_dry_on_toy_weights(labelled: Project, toy_model_dir: Path, capsys, name: str):
    """Its rank, loss, precision and evaluations are kept; one forward in a step in place of 64."""
    before = read_only(labelled.root)
    with as_file(files("densedpo.recipes") / f"{name}.toml") as path, pytest.raises(SystemExit) as leaving:
        densedpo([
            "learn", "offline", "dry", "--pairs", "toy", "--preferences", "toy", "--model", str(toy_model_dir),
            "--project", str(labelled.root), "--config", str(path), "--set", "accumulation=1", "--dry-run",
        ])  # fmt: skip
    assert leaving.value.code == 0
    assert "12 training and 6 validation pairs" in capsys.readouterr().out
    assert read_only(labelled.root) == before


def test_the_papers_clip_baseline_differs_from_densedpo_in_the_objective_only():
    found = []
    for name in ("densedpo_paper", "structural_dpo_paper"):
        with as_file(files("densedpo.recipes") / f"{name}.toml") as path:
            found.append(load_config(LearnConfig, path, []).model_dump())
    dense, clip = found
    assert {key for key in dense if dense[key] != clip[key]} == {"objective"}


def test_flow_dpo_has_the_released_beta():
    with as_file(files("densedpo.recipes") / "flow_dpo.toml") as path:
        config = load_config(LearnConfig, path, [])
    assert (config.objective, config.beta, config.t_mean, config.t_std) == ("dpo", 100.0, 0.0, 1.0)


def test_local_dpo_has_the_released_values():
    """Of the code for Wan 2.1: two logistics and a tenth of the winner's error in each, beta 5000, LoRA 64 and 128."""
    config = load_config(LearnConfig, Path("local_dpo.toml"), [])
    assert (config.objective, config.level_weights, config.winner_anchor) == ("dpo_levels", (1.0, 0.0, 1.0), 0.1)
    assert (config.beta, config.learning_rate, config.warmup_steps, config.accumulation) == (5000.0, 5e-6, 10, 4)
    assert (config.lora_rank, config.lora_alpha) == (64, 128.0)


@pytest.mark.parametrize("name", ["df_dpo.toml", "local_dpo.toml"])
def test_pairs_that_are_soon_told_apart_are_anchored_and_stop_the_run(name: str):
    config = load_config(LearnConfig, Path(name), [])
    assert config.winner_anchor > 0
    assert config.stop_on_alarm
    assert config.eval_every > 0
