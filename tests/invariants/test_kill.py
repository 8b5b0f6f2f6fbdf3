"""A run killed without warning, any number of times, ends as the one that was left alone (row F23 of the faults)."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from densedpo.core.seeds import generator
from densedpo.core.workspace import Project
from densedpo.learn.config import LearnConfig
from densedpo.learn.run import learn_offline
from processes import SERVER

SMALL = {"batch_pairs": 2, "eval_every": 10, "eval_pairs": 4, "lora_rank": 4, "checkpoint_every": 1}


def start(planted: Project, model: Path, name: str, config: LearnConfig):
    process = SERVER.Process(
        target=learn_offline,
        args=(planted, name),
        kwargs={"pairs": "toy", "preferences": "toy", "model": model, "config": config},
    )
    process.start()
    return process


def num_rows(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def rows(folder: Path) -> list[dict[str, object]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def kill_and_compare(planted: Project, model: Path, config: LearnConfig, name: str, delays: Sequence[float]) -> int:
    """Kills a run once for each delay (s after its next row), lets it end, and returns how many kills found it alive.

    Every third kill comes before the first row, while the run loads and reads its checkpoint.
    """
    folder, num_kills = planted.run(name), 0
    for number, delay in enumerate(delays):
        process, before = start(planted, model, name, config), num_rows(folder)
        while process.is_alive() and number % 3 != 2 and num_rows(folder) == before:
            time.sleep(0.0005)
        process.join(delay)
        num_kills += process.is_alive()
        process.kill()
        process.join()
    for run in (name, f"{name}-alone"):
        process = start(planted, model, run, config)
        process.join()
        assert process.exitcode == 0
    ours, theirs = (load_file(planted.run(run) / "adapter.safetensors") for run in (name, f"{name}-alone"))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert rows(folder) == rows(planted.run(f"{name}-alone"))
    return num_kills


def test_f23_killed_twice_and_resumed_is_left_alone_bit_for_bit(planted: Project, toy_model_dir: Path):
    config = LearnConfig.model_validate(SMALL | {"num_steps": 8, "eval_every": 4})
    assert kill_and_compare(planted, toy_model_dir, config, "twice", delays=(0.02, 0.05)) == 2


@pytest.mark.slow
def test_f23_killed_20_times_at_random_moments_is_left_alone_bit_for_bit(planted: Project, toy_model_dir: Path):
    config = LearnConfig.model_validate(SMALL | {"num_steps": 60})
    delays = generator("kill", 20).uniform(0.0, 0.25, 20).tolist()
    assert kill_and_compare(planted, toy_model_dir, config, "often", delays) >= 15
