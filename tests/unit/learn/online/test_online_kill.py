"""A run killed in each of its phases, and then left to end, is the run that was never killed."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from densedpo.core.workspace import Project
from online_runs import DEATHS, killed_online, online_config, rounds, rows, train_online

GUARD = {"every": 2, "num_prompts": 2}
QUICK = ("between two rollouts", "in the middle of a chosen pair", "right after a refresh")


def kill_and_compare(prompted: Project, model: Path, deaths: Sequence[str]) -> None:
    """Kills one run at each of these moments, one after the other, lets it end, and compares it with one left alone."""
    config = online_config({"checkpoint_every": 1}, guard=GUARD)
    codes = {death: killed_online(prompted, "killed", model, config, DEATHS[death]) for death in deaths}
    assert codes == dict.fromkeys(deaths, -signal.SIGKILL)
    train_online(prompted, "killed", model, config)
    train_online(prompted, "alone", model, config)
    ours, theirs = (load_file(prompted.run(name) / "adapter.safetensors") for name in ("killed", "alone"))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    for split in ("train", "round", "guard"):
        assert rows(prompted.run("killed"), split) == rows(prompted.run("alone"), split)
    assert rounds(prompted.run("killed")) == rounds(prompted.run("alone"))


def test_killed_and_resumed_is_left_alone_bit_for_bit(prompted: Project, toy_model_dir: Path):
    kill_and_compare(prompted, toy_model_dir, QUICK)


@pytest.mark.slow
def test_killed_in_each_phase_and_resumed_is_left_alone_bit_for_bit(prompted: Project, toy_model_dir: Path):
    kill_and_compare(prompted, toy_model_dir, list(DEATHS))
