"""Checkpoints of cut parameters: each process writes its own pieces, and another number of processes goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from densedpo.core.errors import BadInput
from densedpo.core.workspace import Project
from densedpo.learn.config import LearnConfig
from densedpo.learn.processes.launch import World
from densedpo.learn.processes.pieces import pattern_of, read_pieces, write_pieces
from densedpo.learn.processes.team import Team
from densedpo.learn.run import learn_offline
from processes import signal_in_the_third_step, signal_to_the_second, train_together

# all weights move, and the average and the best are kept too: all that a checkpoint can hold
FULL = {
    "train": "full", "strategy": "fully_shard", "num_steps": 4, "batch_pairs": 2, "eval_every": 2, "eval_pairs": 2,
    "eval_draws": 1, "checkpoint_every": 2, "learning_rate": 1e-4, "warmup_steps": 1, "draws": 2, "ema_decay": 0.9,
}  # fmt: skip


def config(**settings: object) -> LearnConfig:
    return LearnConfig.model_validate(FULL | settings)


def train(project: Project, model: Path, name: str, settings: LearnConfig) -> Path:
    return learn_offline(project, name, pairs="toy", preferences="toy", model=model, config=settings)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")


def assert_close(folder: Path, wanted: Path) -> None:
    """To a hundredth of what a step of 1e-4 moves, on average.

    Forwards of other sizes differ in the last bits, and where a gradient is about 0 Adam's first steps have no sign.
    """
    ours, theirs = weights(folder), weights(wanted)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-4)
        assert (ours[name] - tensor).abs().mean() < 1e-6


def test_f29_two_processes_go_on_as_one_and_one_as_two(labelled: Project, toy_model_dir: Path):
    alone = config(strategy="auto")
    whole = train(labelled, toy_model_dir, "whole", alone)
    assert 0 not in train_together(2, labelled, "fewer", toy_model_dir, config(), signal_to_the_second)
    step = labelled.run("fewer") / "checkpoints" / "step-000002"
    pieces = sorted(path.name for path in (step / "pieces").iterdir())
    assert len(pieces) == 2
    assert all(name.endswith(".safetensors") for name in pieces)
    manifest = json.loads((step / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["world_size"] == 2
    assert {f"pieces/{name}" for name in pieces} < set(manifest["files"])
    with safe_open(step / "pieces" / pieces[0], framework="pt") as file:
        shape = file.get_slice("adapter/blocks.0.ffn.net.0.proj.weight").get_shape()
    assert shape == [32, 48]  # half of the 64 rows
    assert_close(train(labelled, toy_model_dir, "fewer", alone), whole)
    assert train_together(1, labelled, "more", toy_model_dir, alone, signal_in_the_third_step) != [0]
    assert train_together(2, labelled, "more", toy_model_dir, config()) == [0, 0]
    assert_close(labelled.run("more"), whole)


def test_a_float32_adapter_on_cut_bfloat16_weights_is_one_process_to_float_tolerance(
    labelled: Project, toy_model_dir: Path
):
    """bfloat16 rounds the products of the two runs alike; only the order of sums differs."""
    lora = {"train": "lora", "precision": "bfloat16", "lora_rank": 2, "lora_alpha": 2.0, "beta": 5.0, "ema_decay": None}
    settings = config(**lora, draws="fresh", eval_every=0, learning_rate=1e-3)
    assert train_together(2, labelled, "two", toy_model_dir, settings) == [0, 0]
    one = train(labelled, toy_model_dir, "one", settings.model_copy(update={"strategy": "auto"}))
    ours, theirs = (load_file(folder / "adapter.safetensors") for folder in (labelled.run("two"), one))
    assert {tensor.dtype for tensor in ours.values()} == {torch.float32}
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=5e-2, atol=2e-4)


def test_f25_a_damaged_piece_is_named_and_the_checkpoint_before_it_is_taken(
    labelled: Project, toy_model_dir: Path, caplog
):
    assert 0 not in train_together(2, labelled, "cut", toy_model_dir, config(checkpoint_every=1), signal_to_the_second)
    step = labelled.run("cut") / "checkpoints" / "step-000002"
    damaged = max((step / "pieces").iterdir())
    data = bytearray(damaged.read_bytes())
    data[-3] ^= 1
    damaged.write_bytes(bytes(data))
    train(labelled, toy_model_dir, "cut", config(strategy="auto", checkpoint_every=1))
    assert f"step-000002 is not used: pieces/{damaged.name} is damaged" in caplog.text


def test_one_process_reads_pieces_alone(tmp_path: Path):
    """Whole tensors are pieces too: one of them each."""
    tensors = {"adapter/a.weight": torch.arange(6.0).view(2, 3), "optimizer/a.weight|exp_avg": torch.ones(2, 3)}
    write_pieces(tmp_path / "pieces", tensors)
    found = read_pieces(tmp_path / "pieces", {"a.weight": torch.zeros(2, 3)})
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert pattern_of("optimizer/a.weight|exp_avg") == "a.weight"


def test_pieces_that_cannot_be_written_are_one_clear_line(tmp_path: Path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(BadInput, match=r"cannot write .*nothing was lost"):
        write_pieces(tmp_path / "file" / "pieces", {"adapter/a": torch.ones(2)})


def test_what_the_first_process_cannot_do_stops_it_with_its_own_words():
    def full() -> None:
        raise BadInput("disk full")

    with pytest.raises(BadInput, match="disk full"):
        Team(World(), "cpu", "").first_does(full)
