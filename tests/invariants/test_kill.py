"""A run killed without warning, several times, ends as the one that was left alone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from densedpo.core.workspace import Project

SETTINGS = ["num_steps=60", "batch_pairs=2", "eval_every=10", "eval_pairs=4", "lora_rank=4", "checkpoint_every=1"]


def command(planted: Project, model: Path, name: str) -> list[str]:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    names = ["--pairs", "toy", "--preferences", "toy", "--model", str(model), "--project", str(planted.root)]
    return [sys.executable, "-m", "densedpo.cli.main", "-q", "learn", "offline", name, *names, *settings]


def num_rows(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def rows(folder: Path) -> list[dict[str, object]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_is_left_alone_bit_for_bit(planted: Project, toy_model_dir: Path):
    subprocess.run(command(planted, toy_model_dir, "alone"), check=True, capture_output=True)
    folder = planted.run("killed")
    num_kills = 0
    for wanted in (1, 9, 30, 55):
        process = subprocess.Popen(command(planted, toy_model_dir, "killed"), stderr=subprocess.DEVNULL)
        while process.poll() is None and num_rows(folder) < wanted:
            time.sleep(0.001)
        num_kills += process.poll() is None
        process.kill()
        process.wait()
    assert num_kills >= 3
    subprocess.run(command(planted, toy_model_dir, "killed"), check=True, capture_output=True)
    ours, theirs = (load_file(planted.run(name) / "adapter.safetensors") for name in ("killed", "alone"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert rows(folder) == rows(planted.run("alone"))
