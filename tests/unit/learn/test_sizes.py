"""Pairs of several lengths and sizes in one run: one size in a forward, every pair counted by its labels alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from densedpo.adapters import VideoModel, load
from densedpo.core import seeds
from densedpo.core.errors import BadInput
from densedpo.core.records import Pair, Preference, read_jsonl, write_jsonl
from densedpo.core.workspace import Project
from densedpo.learn.config import LearnConfig
from densedpo.learn.feed.batch import Source
from densedpo.learn.feed.inputs import read_pairs
from densedpo.learn.feed.order import Visit
from densedpo.learn.run import learn_offline
from learn_bench import FRESH, Bench
from toy_families import FAMILIES

# frames, height, width: 3, 2 and 3 latent frames
SIZES = ((9, 32, 32), (5, 32, 32), (9, 32, 64))
RANGES = {9: ((0, 5), (5, 9)), 5: ((0, 1), (1, 5))}
QUICK = {
    "num_steps": 4, "batch_pairs": 2, "accumulation": 2, "eval_every": 4, "eval_pairs": 6, "eval_draws": 1,
    "lora_rank": 2, "lora_alpha": 2.0, "checkpoint_every": 2, "learning_rate": 1e-3, "warmup_steps": 1, "draws": 2,
}  # fmt: skip


@pytest.fixture
def mixed(labelled: Project, toy_model: VideoModel) -> Project:
    """The toy set with every third pair of another length and every third of another size."""
    folder, preferences = labelled.pairs("toy"), labelled.preferences("toy")
    pairs, labels = read_jsonl(folder / "pairs.jsonl", Pair), read_jsonl(preferences, Preference)
    for index, pair in enumerate(pairs):
        frames, height, width = SIZES[index % 3]
        pairs[index] = replace(pair, num_frames=frames, height=height, width=width)
        labels[index] = replace(labels[index], ranges=RANGES[frames])
        shape = (toy_model.geometry.latent_channels, (frames - 1) // 4 + 1, height // 8, width // 8)
        clips = {side: seeds.noise(shape, "mixed", index, side) for side in ("a", "b")}
        save_file(clips, folder / pair.latents)
    write_jsonl(folder / "pairs.jsonl", pairs)
    write_jsonl(preferences, labels)
    return labelled


def train(project: Project, model: Path, name: str, **settings: object) -> Path:
    config = LearnConfig.model_validate(QUICK | settings)
    return learn_offline(project, name, pairs="toy", preferences="toy", model=model, config=config)


def test_a_run_over_several_sizes_is_cut_and_resumed_to_the_same_bits(mixed: Project, toy_model_dir: Path, stop_before):
    whole = train(mixed, toy_model_dir, "whole")
    with stop_before(4):
        train(mixed, toy_model_dir, "cut")
    train(mixed, toy_model_dir, "cut")
    ours, theirs = (load_file(mixed.run(name) / "adapter.safetensors") for name in ("cut", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    where = [json.loads(line) for line in (whole / "where.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {len(row["implicit_reward_per_latent_frame"]) for row in where} == {2, 3}


def test_a_step_over_several_sizes_is_the_sum_over_its_pairs(
    mixed: Project, toy_model: VideoModel, toy_model_dir: Path
):
    """The gradient of a window of forwards of unlike sizes, against one pair at a time over the same total weight."""
    pairs = read_pairs(mixed.pairs("toy"), mixed.preferences("toy"), toy_model.geometry, toy_model.fingerprint)[:6]
    bench = Bench(toy_model_dir, pairs, beta=5.0)
    with torch.no_grad():
        for name, parameter in bench.parameters.items():
            if "lora_B" in name:
                parameter.copy_(0.02 * seeds.noise(tuple(parameter.shape), "moved", name))

    def gradient(forwards: list[tuple[Visit, ...]]) -> torch.Tensor:
        for parameter in bench.parameters.values():
            parameter.grad = None
        total = sum(bench.task.weight(visits) for visits in forwards)
        for visits in forwards:
            bench.task.backward(visits, total)
        return torch.cat([p.grad.flatten() for p in bench.parameters.values() if p.grad is not None])

    together = [tuple(Visit(index=i, draw=0) for i in same) for same in ((0, 3), (1, 4), (2, 5))]
    apart = [(Visit(index=i, draw=0),) for i in (5, 0, 4, 1, 3, 2)]
    torch.testing.assert_close(gradient(together), gradient(apart), rtol=1e-3, atol=1e-6)


def test_noise_and_latents_are_of_the_pairs_own_size(mixed: Project, toy_model: VideoModel):
    pairs = read_pairs(mixed.pairs("toy"), mixed.preferences("toy"), toy_model.geometry, toy_model.fingerprint)
    batch = Source(toy_model).pairs(pairs, [Visit(index=2, draw=0), Visit(index=5, draw=0)], FRESH)
    assert batch.latents_a.shape == batch.noise_a.shape == (2, 16, 3, 4, 8)


def test_f10_clips_of_a_pair_that_differ_in_length_are_refused(mixed: Project, toy_model: VideoModel):
    pairs = read_pairs(mixed.pairs("toy"), mixed.preferences("toy"), toy_model.geometry, toy_model.fingerprint)
    clips = load_file(pairs[0].latents)
    save_file({"a": clips["a"], "b": clips["b"][:, :2].contiguous()}, pairs[0].latents)
    with pytest.raises(BadInput, match=r"b has shape \(16, 2, 4, 4\), not \(16, 3, 4, 4\) as its clip says"):
        Source(toy_model).pairs(pairs, [Visit(index=0, draw=0)], FRESH)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_every_family_predicts_other_sizes_than_its_own(family, tmp_path: Path):
    model = load(family.save(tmp_path))
    channels, frames, rows, columns = model.geometry.latent_shape
    text, t = model.encode_text(["a red ball"]), torch.tensor([0.5])
    for shape in (
        (1, channels, frames + 2, rows, columns),
        (1, channels, frames, rows + model.geometry.patch, columns),
    ):
        with torch.no_grad():
            assert model.predict(seeds.noise(shape, "size"), t, text).shape == shape
