"""Checkpoints survive a cut, and a damaged one is named, never loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from densedpo.core.errors import BadInput
from densedpo.learn.checkpoint import (
    Checkpoint,
    TrainState,
    load_latest,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(
        state=TrainState(step=step, updates=step, best_step=2, best_loss=0.5),
        adapter={"layer.lora_A.weight": torch.full((2, 3), float(step))},
        optimizer={"layer.lora_A.weight|exp_avg": torch.ones(2, 3)},
        best={"layer.lora_A.weight": torch.zeros(2, 3)},
    )


def save(folder: Path, *steps: int, keep: int = 5) -> None:
    for step in steps:
        save_checkpoint(folder, checkpoint(step), identity="run", keep=keep)


def test_what_is_saved_comes_back(tmp_path: Path):
    save(tmp_path, 5, 10)
    found = load_latest(tmp_path, identity="run")
    assert found is not None
    assert found.state == checkpoint(10).state
    for part in ("adapter", "optimizer", "best"):
        ours, theirs = getattr(checkpoint(10), part), getattr(found, part)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_nothing_saved_is_nothing_found(tmp_path: Path):
    assert load_latest(tmp_path / "none", identity="run") is None


def test_old_ones_are_removed(tmp_path: Path):
    save(tmp_path, 1, 2, 3, 4, keep=2)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-000003", "step-000004"]


DAMAGES = {
    "flipped byte": lambda folder: flip(folder / "state.safetensors"),
    "cut short": lambda folder: (folder / "state.safetensors").write_bytes(b"half"),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "half a manifest": lambda folder: (folder / "manifest.json").write_text('{"schema": 1, "fil', encoding="utf-8"),
    "lost file": lambda folder: (folder / "state.json").unlink(),
    "newer schema": lambda folder: edit_manifest(folder, schema=99),
    "other run": lambda folder: edit_manifest(folder, identity="another"),
    "nothing listed": lambda folder: edit_manifest(folder, files={}),
}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))


def edit_manifest(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


@pytest.mark.parametrize("damage", DAMAGES)
def test_f25_f26_a_damaged_one_is_named_and_the_one_before_is_taken(tmp_path: Path, damage: str, caplog):
    save(tmp_path, 5, 10)
    DAMAGES[damage](tmp_path / "step-000010")
    found = load_latest(tmp_path, identity="run")
    assert found is not None
    assert found.state.step == 5
    assert "step-000010 is not used" in caplog.text


def test_f25_f26_a_damaged_one_stops_a_run_that_is_told_not_to_go_back(tmp_path: Path):
    save(tmp_path, 5, 10)
    assert load_latest(tmp_path, identity="run", goes_back=False).state.step == 10
    flip(tmp_path / "step-000010" / "state.safetensors")
    with pytest.raises(BadInput, match=r"step-000010 is not used: state.safetensors is damaged; damaged_checkpoint = "):
        load_latest(tmp_path, identity="run", goes_back=False)


def test_a_run_with_only_damaged_ones_does_not_start_from_nothing(tmp_path: Path):
    save(tmp_path, 5)
    flip(tmp_path / "step-000005" / "state.safetensors")
    with pytest.raises(BadInput, match="no valid checkpoint"):
        load_latest(tmp_path, identity="run")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_written_again(tmp_path: Path, damage: str):
    """The run has gone back to step 5 and comes to step 10 once more."""
    save(tmp_path, 5, 10)
    DAMAGES[damage](tmp_path / "step-000010")
    save(tmp_path, 10)
    found = load_latest(tmp_path, identity="run")
    assert found is not None
    assert found.state.step == 10


def test_a_cut_in_mid_write_leaves_only_a_temporary_folder(tmp_path: Path):
    save(tmp_path, 5)
    (tmp_path / ".tmp-000010-abc").mkdir()
    (tmp_path / ".tmp-000010-abc" / "state.safetensors").write_bytes(b"half")
    found = load_latest(tmp_path, identity="run")
    assert found is not None
    assert found.state.step == 5


def test_the_optimizer_goes_on_as_if_nothing_had_happened():
    def build() -> tuple[dict[str, torch.nn.Parameter], torch.optim.AdamW]:
        parameters = {"x": torch.nn.Parameter(torch.ones(3)), "y": torch.nn.Parameter(torch.ones(2))}
        return parameters, torch.optim.AdamW(list(parameters.values()), lr=0.1)

    def step(parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.AdamW, scale: float) -> None:
        sum((scale * parameter.square()).sum() for parameter in parameters.values()).backward()
        optimizer.step()
        optimizer.zero_grad()

    parameters, optimizer = build()
    for scale in (1.0, 3.0):
        step(parameters, optimizer, scale)
    resumed, other = build()
    for name, parameter in resumed.items():
        parameter.data.copy_(parameters[name].data)
    restore_optimizer(other, list(resumed), optimizer_tensors(optimizer, list(parameters)))
    step(parameters, optimizer, 2.0)
    step(resumed, other, 2.0)
    assert all(torch.equal(parameters[name], resumed[name]) for name in parameters)
