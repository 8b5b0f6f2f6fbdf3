"""Two processes over gloo train what one does, also with ties on one side, a NaN, a signal or a kill on one of them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from densedpo.core.errors import BadInput
from densedpo.core.records import Preference, read_jsonl, write_jsonl
from densedpo.core.workspace import Project
from densedpo.learn.config import LearnConfig
from densedpo.learn.processes.launch import World, require_strategy
from densedpo.learn.processes.team import Team
from densedpo.learn.run import learn_offline
from processes import (
    hang_on_the_second,
    nan_on_the_second,
    other_weights_on_the_second,
    signal_to_the_second,
    train_together,
)

QUICK = {
    "num_steps": 4, "batch_pairs": 3, "accumulation": 2, "eval_every": 4, "eval_pairs": 3, "eval_draws": 1,
    "lora_rank": 2, "lora_alpha": 2.0, "checkpoint_every": 2, "learning_rate": 1e-3, "warmup_steps": 1,
}  # fmt: skip


def config(**settings: object) -> LearnConfig:
    return LearnConfig.model_validate(QUICK | settings)


def train(project: Project, model: Path, name: str, settings: LearnConfig) -> Path:
    return learn_offline(project, name, pairs="toy", preferences="toy", model=model, config=settings)


def rows(folder: Path) -> list[dict[str, object]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def assert_same_run(ours: Path, theirs: Path) -> None:
    """Weights and every logged number, to float tolerance, and the mean difference of the weights near 0."""
    mine, other = (load_file(folder / "adapter.safetensors") for folder in (ours, theirs))
    assert mine.keys() == other.keys()
    for name, tensor in other.items():
        torch.testing.assert_close(mine[name], tensor, rtol=1e-3, atol=1e-5)
    residual = torch.cat([(mine[name] - other[name]).flatten() for name in other])
    assert abs(residual.mean().item()) < 1e-6
    for row, wanted in zip(rows(ours), rows(theirs), strict=True):
        # before the first update u is 0 but for rounding, and so is its sign
        left_out = {"seconds", "accuracy", "loser_dominant"} if wanted["step"] == 1 else {"seconds"}
        numbers = {key: value for key, value in wanted.items() if isinstance(value, float) and key not in left_out}
        # beta times what is left of nearly equal errors: rounding differs between kinds of CPU
        margins = {key: numbers.pop(key) for key in ("margin", "tie_margin") if key in numbers}
        assert {key: row[key] for key in margins} == pytest.approx(margins, rel=2e-2, abs=3e-4)
        assert {key: row[key] for key in numbers} == pytest.approx(numbers, rel=2e-2, abs=1e-4)


def tie_every_second_pair(project: Project) -> None:
    """Pairs 1, 3, 5 ... keep a label in one latent frame of three only: the parts of a window weigh unequally."""
    path = project.preferences("toy")
    found = read_jsonl(path, Preference)
    tied = [replace(row, labels=(0, row.labels[1] or 1)) if i % 2 else row for i, row in enumerate(found)]
    write_jsonl(path, tied)


def test_f02_two_processes_are_one_to_float_tolerance_with_unequal_ties(labelled: Project, toy_model_dir: Path):
    tie_every_second_pair(labelled)
    settings = config(draws=2, objective="dense_dpo")
    one = train(labelled, toy_model_dir, "one", settings)
    for file in labelled.pairs("toy").glob("reference_cache/*/*"):
        file.unlink()
    assert train_together(2, labelled, "two", toy_model_dir, settings) == [0, 0]
    assert_same_run(labelled.run("two"), one)
    summary = json.loads((labelled.run("two") / "summary.json").read_text(encoding="utf-8"))
    assert summary["strategy"] == "data parallel over 2 processes, gloo, cpu"
    manifest = json.loads((labelled.run("two") / "checkpoints" / "step-000004" / "manifest.json").read_text())
    assert manifest["world_size"] == 2


def test_sharded_processes_stop_go_on_and_are_one_to_float_tolerance(labelled: Project, toy_model_dir: Path):
    """Cut in step 3 and resumed: parameters, both moments and the average are put together and cut up again."""
    settings = config(strategy="fully_shard", draws=2, ema_decay=0.9, memory="apart", checkpoint_activations=True)
    assert 0 not in train_together(2, labelled, "cut", toy_model_dir, settings, signal_to_the_second)
    assert train_together(2, labelled, "cut", toy_model_dir, settings) == [0, 0]
    summary = json.loads((labelled.run("cut") / "summary.json").read_text(encoding="utf-8"))
    assert summary["strategy"] == "fully sharded over 2 processes, gloo, cpu"
    one = train(labelled, toy_model_dir, "one", settings.model_copy(update={"strategy": "auto"}))
    assert_same_run(labelled.run("cut"), one)


def test_f05_a_nan_on_one_process_is_skipped_on_both(labelled: Project, toy_model_dir: Path):
    """Step 2 (its third forward) is left out on both; the check of equal weights at each checkpoint would stop them."""
    settings = config(num_steps=3, eval_every=0, accumulation=2)
    assert train_together(2, labelled, "nan", toy_model_dir, settings, nan_on_the_second) == [0, 0]
    found = rows(labelled.run("nan"))
    assert [row["updated"] for row in found] == [True, False, True]
    assert found[1]["loss"] is not None
    assert found[1]["grad_norm"] is None
    quarantine = (labelled.run("nan") / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(json.loads(quarantine[0])["ids"]) == 6
    assert len(quarantine) == 1


def test_f34_a_signal_to_one_process_stops_both_and_one_process_goes_on(labelled: Project, toy_model_dir: Path):
    settings = config()
    codes = train_together(2, labelled, "told", toy_model_dir, settings, signal_to_the_second)
    assert 0 not in codes
    assert max(path.name for path in (labelled.run("told") / "checkpoints").iterdir()) == "step-000002"
    assert_same_run(train(labelled, toy_model_dir, "told", settings), train(labelled, toy_model_dir, "alone", settings))


def test_processes_that_hold_different_weights_are_refused(labelled: Project, toy_model_dir: Path):
    codes = train_together(2, labelled, "apart", toy_model_dir, config(num_steps=1), other_weights_on_the_second)
    assert codes == [1, 1]
    assert not (labelled.run("apart") / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("settings", "size", "message"),
    [
        ({"strategy": "data_parallel"}, 1, "one process: start several by `torchrun"),
        ({"strategy": "single"}, 2, "start densedpo without torchrun"),
        ({"device": "cuda:1"}, 2, "device = 'cuda:1' and 2 processes: set device = 'cuda'"),
        ({"batch_pairs": 3}, 4, "batch_pairs = 3 cannot be shared out to 4 processes"),
    ],
)
def test_a_strategy_that_cannot_be_is_refused_and_not_replaced(settings, size: int, message: str):
    with pytest.raises(BadInput, match=message):
        require_strategy(config(**settings), World(size=size))
    require_strategy(config(), World(size=size if size < 4 else 3))


@pytest.mark.parametrize("length", [3, 4, 7, 16])
def test_parts_make_the_whole_and_shares_are_equally_long(length: int):
    teams = [Team(World(rank=rank, size=3), "cpu", "") for rank in range(3)]
    assert [item for team in teams for item in team.part(range(length))] == list(range(length))
    shares = [team.share(range(length)) for team in teams]
    assert len({len(share) for share in shares}) == 1
    assert {item for share in shares for item in share} == set(range(length))
    assert teams[0].share([]) == ()


@pytest.mark.alone
@pytest.mark.slow
def test_f18_a_process_that_hangs_is_given_up_and_the_run_goes_on(labelled: Project, toy_model_dir: Path):
    """The second waits for 10 minutes in its third step; the first gives up after 15 seconds."""
    settings = config(process_timeout_min=0.25, eval_every=0)
    assert train_together(2, labelled, "hung", toy_model_dir, settings, hang_on_the_second, wait_for=0)[0] != 0
    assert max(path.name for path in (labelled.run("hung") / "checkpoints").iterdir()) == "step-000002"
    assert_same_run(train(labelled, toy_model_dir, "hung", settings), train(labelled, toy_model_dir, "alone", settings))


@pytest.mark.slow
def test_torchrun_starts_it(labelled: Project, toy_model_dir: Path):
    settings = [part for key, value in QUICK.items() for part in ("--set", f"{key}={value}")]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "densedpo.cli.main", "learn",
        "offline", "started", "--pairs", "toy", "--preferences", "toy", "--model", str(toy_model_dir),
        "--project", str(labelled.root), "--set", "strategy=data_parallel", *settings,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = json.loads((labelled.run("started") / "run.json").read_text(encoding="utf-8"))
    assert made["strategy"] == "data parallel over 2 processes, gloo, cpu"
    assert_same_run(labelled.run("started"), train(labelled, toy_model_dir, "alone", config(strategy="auto")))
