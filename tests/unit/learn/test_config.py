"""Settings that contradict each other or take no effect are refused; the recipes load."""

from __future__ import annotations

from importlib.resources import as_file, files

import pytest

from densedpo.core.config import load_config
from densedpo.core.errors import BadInput
from densedpo.learn.config import LearnConfig


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["beta=0"], "beta"),
        (["no_such=1"], "unknown key; the keys are objective, beta"),
        (["objective=grpo"], "objective"),
        (["t_min=0.6", "t_max=0.5"], "t_min = 0.6 is not below t_max = 0.5"),
        (["use_confidence=true", "objective=dpo"], "use_confidence has no effect with dpo"),
        (["objective=sft", "shuffle_labels=true"], "shuffle_labels has no effect with sft"),
        (["objective=sft", "select=best_validation"], "no preference loss to select by"),
        (["objective=sft", "draws=4"], "draws are cached for the reference"),
        (["eval_every=0", "patience=3"], "need evaluations"),
        (["draws=0"], "draws"),
        (["nu=2.0"], "nu has no effect with dense_dpo"),
        (["nu=1.0", "objective=dense_dpo_ties"], "nu"),
        (["cell_weight=difference", "objective=dpo"], "cell_weight has no effect with dpo"),
        (["loser_safeguard=0.9", "objective=sft"], "loser_safeguard has no effect with sft"),
        (["loser_safeguard=1.5"], "loser_safeguard"),
        (["noise=own", "objective=sft"], "noise has no effect with sft"),
        (["fold=[0, 5]", "objective=sft"], "fold has no effect with sft"),
        (["fold=[5, 5]"], r"fold = \[5, 5\]: the parts of 5 are 0 to 4"),
        (["fold=[0, 1]"], "fold"),
        (["objective=dense_robust"], "dense_robust without a flip_rate is dense_dpo"),
        (["flip_rate=0.1"], "flip_rate has no effect with dense_dpo"),
        (["objective=dense_robust", "flip_rate=0.5"], "flip_rate"),
        (["winner_anchor=0.1", "objective=sft"], "winner_anchor has no effect with sft"),
        (["memory=apart", "objective=sft"], "memory has no effect with sft"),
        (["keep_checkpoints=1"], "keep_checkpoints"),
    ],
)
def test_what_cannot_be_meant_is_refused(overrides: list[str], message: str):
    with pytest.raises(BadInput, match=message):
        load_config(LearnConfig, None, overrides)


def test_overrides_are_typed():
    config = load_config(LearnConfig, None, ["draws=4", 'lora_targets=["to_q"]', "learning_rate=5e-5"])
    assert (config.draws, config.lora_targets, config.learning_rate) == (4, ("to_q",), 5e-5)
    assert load_config(LearnConfig, None, ["draws=fresh"]).draws == "fresh"
    assert load_config(LearnConfig, None, ["fold=[1, 5]"]).fold == (1, 5)


def test_the_paper_recipe_has_the_papers_values():
    with as_file(files("densedpo.recipes") / "densedpo_paper.toml") as path:
        config = load_config(LearnConfig, path, [])
    assert (config.objective, config.beta, config.learning_rate) == ("dense_dpo", 500.0, 1e-5)
    assert (config.window_pairs, config.num_steps, config.warmup_steps) == (256, 1000, 250)
    assert (config.lora_rank, config.clip_norm, config.min_non_tie_share) == (128, 1.0, 0.2)


def test_the_tiny_recipe_loads():
    with as_file(files("densedpo.recipes") / "tiny.toml") as path:
        assert load_config(LearnConfig, path, []).device == "cpu"
