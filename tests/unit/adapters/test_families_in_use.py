"""Every family through the verbs: guided pairs of real clips, then a LoRA learned from labelled pairs."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from command_line import densedpo, settings
from densedpo.adapters import catalogue, load
from densedpo.core.errors import BadInput
from densedpo.core.records import Pair, read_jsonl
from densedpo.core.workspace import Project, init_project
from toy import add_toy_clips
from toy_families import FAMILIES
from toy_pairs import add_toy_pairs

LEARN = settings(num_steps=2, batch_pairs=2, eval_every=2, eval_pairs=2, eval_draws=2, lora_rank=2, learning_rate=1e-2)
# TI2V-5B's toy clips are of another size than the toy pairs; all families but one are left to the slow tests
NAMES = [
    pytest.param(name, marks=() if name == "CogVideoX" else pytest.mark.slow) for name in FAMILIES if "TI2V" not in name
]


def loads(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The components that were loaded since the last call, each as often as it was."""
    found = [record.args[0] for record in caplog.records if record.msg == "loading %s"]
    caplog.clear()
    return sorted(found)


@pytest.mark.parametrize("name", NAMES)
def test_pairs_are_made_and_learned_from(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once its captions are kept no text encoder is loaded again, and learning loads no autoencoder."""
    folder = FAMILIES[name].save(tmp_path / "model")
    project = Project(root=tmp_path / "project")
    init_project(project.root)
    model = load(folder)
    add_toy_clips(project.root, model, 2)
    common = ("--project", project.root, "--model", folder)

    # of two experts that of low noise: eta and every t of training lie below their boundary
    denoiser = catalogue.denoisers(folder)[-1]
    encoders = sorted(path.name for path in folder.glob("text_encoder*"))
    caplog.set_level(logging.DEBUG, logger="densedpo")
    caplog.clear()
    made = densedpo("-v", "generate", "guided", "g", *common, *settings(num_pairs=2, num_steps=3))
    assert made.code == 0, made.err
    assert loads(caplog) == sorted([denoiser, *encoders, "vae"])
    assert densedpo("-v", "generate", "guided", "g", *common, *settings(num_pairs=2, num_steps=3)).code == 0
    assert loads(caplog) == []
    assert densedpo("-v", "generate", "guided", "h", *common, *settings(num_pairs=2, num_steps=2, seed=1)).code == 0
    assert loads(caplog) == [denoiser, "vae"]
    pair = read_jsonl(project.pairs("g") / "pairs.jsonl", Pair)[0]
    halves = load_file(project.pairs("g") / pair.latents)
    assert halves["a"].shape == model.geometry.latent_shape
    assert not torch.equal(halves["a"], halves["b"])
    assert all(bool(half.isfinite().all()) for half in halves.values())

    add_toy_pairs(project, model, num_train=4, num_validation=2)
    inputs = ("--pairs", "toy", "--preferences", "toy", *common)
    learned = densedpo("-v", "learn", "offline", "first", *inputs, *LEARN)
    assert learned.code == 0, learned.err
    assert loads(caplog) == sorted([denoiser, *encoders])
    assert densedpo("-v", "learn", "offline", "second", *inputs, *LEARN, *settings(seed=1)).code == 0
    assert loads(caplog) == [denoiser]
    rows = [json.loads(line) for line in (project.run("first") / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["split"] == "train"]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)  # policy = reference before the first update: log 2
    assert losses[1] != pytest.approx(losses[0], abs=1e-6)
    model.load_adapter(project.run("first") / "adapter.safetensors")
    trained = [p for n, p in model.denoiser.named_parameters() if "lora_B" in n]
    assert any(bool(p.abs().max() > 0) for p in trained)


def test_one_step_is_refused_where_the_schedule_needs_two_levels(tmp_path: Path) -> None:
    model = load(FAMILIES["LTX-Video"].save(tmp_path / "model"))
    with pytest.raises(BadInput, match="num_steps = 1: LTX-Video's schedule"):
        model.sigmas(1)
    assert bool(model.sigmas(2).isfinite().all())
