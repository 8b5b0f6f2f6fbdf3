"""A run killed in each of its phases, and then left to end, is the run that was never killed."""

from __future__ import annotations

import signal
from pathlib import Path

import torch
from safetensors.torch import load_file

from densedpo.core.workspace import Project
from online_runs import DEATHS, killed_online, online_config, rounds, rows, train_online

GUARD = {"every": 2, "num_prompts": 2}


def test_killed_in_each_phase_and_resumed_is_left_alone_bit_for_bit(prompted: Project, toy_model_dir: Path):
    config = online_config({"checkpoint_every": 1}, guard=GUARD)
    codes = {death: killed_online(prompted, "killed", toy_model_dir, config, death) for death in DEATHS}
    assert codes == dict.fromkeys(DEATHS, -signal.SIGKILL)
    train_online(prompted, "killed", toy_model_dir, config)
    train_online(prompted, "alone", toy_model_dir, config)
    ours, theirs = (load_file(prompted.run(name) / "adapter.safetensors") for name in ("killed", "alone"))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    for split in ("train", "round", "guard"):
        assert rows(prompted.run("killed"), split) == rows(prompted.run("alone"), split)
    assert rounds(prompted.run("killed")) == rounds(prompted.run("alone"))
