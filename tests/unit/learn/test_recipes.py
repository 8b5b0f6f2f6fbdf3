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
