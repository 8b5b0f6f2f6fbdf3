from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import pytest

from command_line import densedpo
from densedpo.core.config import load_config
from densedpo.core.workspace import Project
from densedpo.learn.online.config import OnlineConfig
from toy_pairs import read_only

RECIPES = ("onlinevpo_paper", "onlinevpo_tiny", "onlinevpo_dense")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_dry_and_leaves_the_project_as_it_was(prompted: Project, toy_model_dir: Path, name: str):
    """But for embeddings of captions, which any later stage would keep too."""
    before = read_only(prompted.root)
    with as_file(files("densedpo.recipes") / f"{name}.toml") as path:
        done = densedpo(
            "learn", "online", "dry", "--model", toy_model_dir, "--project", prompted.root, "--config", path,
            "--dry-run",
        )  # fmt: skip
        config = load_config(OnlineConfig, path, [])
    assert done.code == 0, done.err
    clips = config.num_rounds * config.prompts_per_round * config.rollouts
    assert f"{clips} clips of 6 prompts, {config.training.num_steps} steps" in done.out
    after = {path: data for path, data in read_only(prompted.root).items() if not path.startswith("clips/captions/")}
    assert after == before


def test_the_papers_recipe_refreshes_every_200_steps():
    with as_file(files("densedpo.recipes") / "onlinevpo_paper.toml") as path:
        assert load_config(OnlineConfig, path, []).refresh_every == 200


def test_the_verb_trains_and_says_what_comes_next(prompted: Project, toy_model_dir: Path):
    settings = [
        "num_rounds=1", "prompts_per_round=1", "rollouts=2", "sampler_steps=1", "steps_per_round=1", "guard.every=0",
        "learn.batch_pairs=1", 'rewards=[{judge = "online_judges:Brightness"}]',
    ]  # fmt: skip
    words = [word for setting in settings for word in ("--set", setting)]
    done = densedpo("learn", "online", "first", "--model", toy_model_dir, "--project", prompted.root, *words)
    assert done.code == 0, done.err
    said = f"next: densedpo measure run first --run first --model {toy_model_dir}"
    assert done.out == f"runs/first/adapter.safetensors; {said}\n"


def test_a_judge_that_is_not_known_is_one_line(prompted: Project, toy_model_dir: Path):
    done = densedpo(
        "learn", "online", "x", "--model", toy_model_dir, "--project", prompted.root, "--set", "guard.every=0",
        "--set", 'rewards=[{judge = "nobody"}]',
    )  # fmt: skip
    assert (done.code, done.err) == (
        2, "densedpo: judge = 'nobody': it is one of reward, oracle, http, or module:Class\n",
    )  # fmt: skip
