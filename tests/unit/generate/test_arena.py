"""Pairs of two models: same prompt and noise, `a` by the first and `b` by the second."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file

from densedpo.adapters import load
from densedpo.core.errors import BadInput
from densedpo.core.records import Pair, read_jsonl
from densedpo.core.workspace import Project, read_stamp
from densedpo.generate import estimate
from densedpo.generate.arena import ArenaPlan, generate_arena, plan_arena
from densedpo.generate.config import ArenaConfig
from toy import add_toy_clips


@pytest.fixture
def filled(project: Path, toy_model_dir: Path) -> Project:
    """Three held-out prompts, and a run whose adapter is not the identity."""
    model = load(toy_model_dir)
    add_toy_clips(project, model, 3, splits=("held_out",) * 3)
    found = Project(root=project)
    model.denoiser.add_adapter(LoraConfig(r=2, target_modules=list(model.lora_targets), init_lora_weights=False))
    found.run("tuned").mkdir(parents=True)
    model.save_adapter(found.run("tuned") / "adapter.safetensors")
    return found


def arena(project: Project, model: Path, first: str, second: str, name: str = "arena", **settings: object) -> ArenaPlan:
    config = ArenaConfig.model_validate({"num_pairs": 3, "num_steps": 2, "pairs_per_batch": 2} | settings)
    return plan_arena(project, name, first, second, model=model, config=config)


def test_each_side_is_what_its_model_makes_of_the_same_noise(filled: Project, toy_model_dir: Path) -> None:
    """base against tuned, and the other way round: exchanging the models exchanges the clips, bit for bit."""
    one, other = arena(filled, toy_model_dir, "base", "tuned"), arena(filled, toy_model_dir, "tuned", "base", "back")
    assert generate_arena(one) == generate_arena(other) == 3
    pairs = read_jsonl(filled.pairs("arena") / "pairs.jsonl", Pair)
    back = {pair.prompt_id: pair for pair in read_jsonl(filled.pairs("back") / "pairs.jsonl", Pair)}
    for pair in pairs:
        assert (pair.kind, pair.noise_key_a) == ("arena", pair.noise_key_b)
        here = load_file(filled.pairs("arena") / pair.latents)
        there = load_file(filled.pairs("back") / back[pair.prompt_id].latents)
        assert torch.equal(here["a"], there["b"])
        assert torch.equal(here["b"], there["a"])
        assert not torch.equal(here["a"], here["b"])
        assert (filled.pairs("arena") / pair.video).is_file()
    stamp = read_stamp(filled.pairs("arena"))
    assert stamp is not None
    assert set(stamp.inputs) == {"clips", "runs/tuned"}


def test_an_arena_that_was_cut_short_goes_on(filled: Project, toy_model_dir: Path) -> None:
    plan = arena(filled, toy_model_dir, "base", "tuned")
    assert generate_arena(plan) == 3
    rows = (filled.pairs("arena") / "pairs.jsonl").read_text().splitlines(keepends=True)
    (filled.pairs("arena") / "pairs.jsonl").write_text("".join(rows[:1]))
    assert generate_arena(plan) == 2
    assert (filled.pairs("arena") / "pairs.jsonl").read_text() == "".join(rows)
    assert generate_arena(plan) == 0


def test_a_dry_run_holds_both_models_and_writes_nothing(
    filled: Project, toy_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Path] = []
    monkeypatch.setattr("densedpo.generate.arena.load_trained", lambda model, adapter: loaded.append(adapter))
    plan = arena(filled, toy_model_dir, "base", "tuned")
    found = estimate.estimate_arena(plan, plan.pairs.pairs[:2])
    assert (found.num_pairs, found.num_done) == (2, 1)
    assert 0 < found.time_s < 60
    assert loaded == [plan.second.adapter]
    assert not plan.pairs.folder.exists()


def test_learning_refuses_pairs_that_no_policy_made(filled: Project, toy_model_dir: Path) -> None:
    """A pair's model is neither of the two."""
    plan = arena(filled, toy_model_dir, "base", "tuned")
    assert {each.pair.model for each in plan.pairs.pairs}.isdisjoint({load(toy_model_dir).fingerprint})


@pytest.mark.parametrize(
    ("first", "second", "settings", "message"),
    [
        ("base", "base", {}, "between two models"),
        ("base", "missing", {}, r"runs/missing does not exist"),
        ("base", "tuned", {"num_pairs": 4}, "num_pairs = 4, but these splits hold 3 prompts"),
        ("base", "tuned", {"splits": ("train",)}, "no prompts in train"),
    ],
)
def test_what_is_no_arena_is_refused(
    filled: Project, toy_model_dir: Path, first: str, second: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        arena(filled, toy_model_dir, first, second, **settings)
