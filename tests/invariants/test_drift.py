"""The drift from the reference that a run logs: 0 before the first step, then as far as rate and beta let it go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from densedpo.core.workspace import Project
from densedpo.learn.config import LearnConfig
from densedpo.learn.run import learn_offline

SETTINGS = {
    "num_steps": 16,
    "batch_pairs": 4,
    "eval_every": 16,
    "eval_pairs": 6,
    "eval_draws": 2,
    "lora_rank": 4,
    "lora_alpha": 4.0,
    "warmup_steps": 1,
    "learning_rate": 1e-3,
    "beta": 50.0,
    "checkpoint_every": 0,
    "where_pairs": 0,
}


def evaluations(planted: Project, model: Path, name: str, **settings: object) -> list[dict[str, float]]:
    config = LearnConfig.model_validate(SETTINGS | settings)
    folder = learn_offline(planted, name, pairs="toy", preferences="toy", model=model, config=config)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["split"] == "validation"]


@pytest.fixture(scope="module")
def plain(planted: Project, toy_model_dir: Path) -> list[dict[str, float]]:
    return evaluations(planted, toy_model_dir, "drift-plain")


def test_a_fresh_adapter_has_not_drifted(plain: list[dict[str, float]]):
    assert (plain[0]["drift"], plain[0]["lora_norm"], plain[0]["tie_margin"]) == (0, 0, 0)
    assert plain[1]["lora_norm"] > 0
    assert plain[1]["tie_margin"] > 0
    assert sum(bucket["num_items"] for bucket in plain[1]["drift_by_t"]) == 6


def test_a_higher_rate_drifts_further(planted: Project, toy_model_dir: Path, plain: list[dict[str, float]]):
    slow = evaluations(planted, toy_model_dir, "drift-slow", learning_rate=2e-4)
    fast = evaluations(planted, toy_model_dir, "drift-fast", learning_rate=5e-3)
    assert 0 < 2 * slow[1]["drift"] < plain[1]["drift"] < 0.5 * fast[1]["drift"]
    assert slow[1]["lora_norm"] < plain[1]["lora_norm"] < fast[1]["lora_norm"]


def test_a_huge_beta_holds_the_policy_at_the_reference(
    planted: Project, toy_model_dir: Path, plain: list[dict[str, float]]
):
    """Every pair is then ranked by a hair's breadth, and nothing is left to gain by moving on."""
    held = evaluations(planted, toy_model_dir, "drift-held", beta=1e8)
    assert held[1]["drift"] < 0.2 * plain[1]["drift"]
