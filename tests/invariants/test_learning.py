"""What must hold of every run, on a toy model: each test trains through the public function."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from densedpo.adapters import load
from densedpo.core.errors import BadInput, Interrupted
from densedpo.core.workspace import Project
from densedpo.learn.cache import CachedReference, first_logit
from densedpo.learn.config import LearnConfig
from densedpo.learn.errors import frame_errors
from densedpo.learn.feed.batch import Draws, PairBatch, Source
from densedpo.learn.feed.inputs import read_pairs
from densedpo.learn.feed.order import TimeDensity, Visit
from densedpo.learn.feed.splits import split_pairs
from densedpo.learn.reference import (
    AdapterOff,
    ReferenceWatch,
    adapters_off,
    attach_lora,
    live_reference,
    require_reference,
)
from densedpo.learn.run import learn_offline

QUICK = {
    "num_steps": 6,
    "batch_pairs": 4,
    "eval_every": 3,
    "eval_pairs": 4,
    "eval_draws": 2,
    "lora_rank": 4,
    "lora_alpha": 4.0,
    "warmup_steps": 2,
    "learning_rate": 1e-3,
    "checkpoint_every": 2,
}


def run(planted: Project, model: Path, name: str, **settings: object) -> Path:
    config = LearnConfig.model_validate(QUICK | settings)
    return learn_offline(planted, name, pairs="toy", preferences="toy", model=model, config=config)


def rows(folder: Path, split: str) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found if row["split"] == split]


def first_batch(planted: Project, model_dir: Path, num_pairs: int = 4) -> tuple[PairBatch, Source, tuple[Visit, ...]]:
    model = load(model_dir)
    pairs = read_pairs(planted.pairs("toy"), planted.preferences("toy"), model.geometry, model.fingerprint)
    source = Source(model)
    visits = tuple(Visit(index=index, draw=0) for index in range(num_pairs))
    return source.pairs(pairs, visits, draws(2)), source, visits


def draws(count: int) -> Draws:
    return Draws(noise_seed=0, count=count, density=TimeDensity(t_min=0, t_max=1, mean=0, std=1))


def perturb(parameters: dict[str, torch.nn.Parameter], scale: float) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            if "lora_B" in name:
                parameter.fill_(scale)


def test_f13_the_live_loss_before_the_first_step_is_log_2(planted: Project, toy_model_dir: Path):
    model, config = load(toy_model_dir), LearnConfig.model_validate(QUICK)
    batch, _, _ = first_batch(planted, toy_model_dir)
    parameters = attach_lora(model, config)
    assert abs(require_reference(model, batch, config) - math.log(2)) < 1e-6
    perturb(parameters, 1e-2)
    with pytest.raises(BadInput, match="not log 2"):
        require_reference(model, batch, config)


def test_f13_a_base_weight_that_was_trained_is_found_and_the_adapter_may_move(planted: Project, toy_model_dir: Path):
    model = load(toy_model_dir)
    batch, _, _ = first_batch(planted, toy_model_dir)
    parameters = attach_lora(model, LearnConfig.model_validate(QUICK))
    watch = ReferenceWatch(AdapterOff(model), batch)
    perturb(parameters, 0.1)
    watch.require_unmoved()
    with torch.no_grad():
        base = next(each for name, each in model.denoiser.named_parameters() if name.endswith("base_layer.weight"))
        base[0, 0] += 1e-2
    with pytest.raises(RuntimeError, match="a base weight was updated"):
        watch.require_unmoved()


def test_the_adapter_switched_off_is_the_base_model_bit_for_bit(planted: Project, toy_model_dir: Path):
    batch, _, _ = first_batch(planted, toy_model_dir)
    with torch.no_grad():
        base = frame_errors(load(toy_model_dir), batch.packed())
        model = load(toy_model_dir)
        parameters = attach_lora(model, LearnConfig.model_validate(QUICK))
        perturb(parameters, 0.1)
        assert not torch.equal(frame_errors(model, batch.packed()), base)
        with adapters_off(model.denoiser):
            assert torch.equal(frame_errors(model, batch.packed()), base)
        assert not torch.equal(frame_errors(model, batch.packed()), base)
    assert all(parameter.requires_grad for parameter in parameters.values())


def test_only_the_adapter_is_trained(toy_model_dir: Path):
    model = load(toy_model_dir)
    parameters = attach_lora(model, LearnConfig.model_validate(QUICK))
    trained = [name for name, parameter in model.denoiser.named_parameters() if parameter.requires_grad]
    assert trained == list(parameters)
    assert all("lora_" in name for name in trained)


def test_f14_targets_that_match_no_layer_are_refused(toy_model_dir: Path):
    config = LearnConfig.model_validate(QUICK | {"lora_targets": ["to_q", "no_such_layer"]})
    with pytest.raises(BadInput, match="no layer of the denoiser is called no_such_layer"):
        attach_lora(load(toy_model_dir), config)


def test_the_cached_reference_is_the_live_one(planted: Project, toy_model_dir: Path, tmp_path: Path):
    model = load(toy_model_dir)
    pairs = read_pairs(planted.pairs("toy"), planted.preferences("toy"), model.geometry, model.fingerprint)
    attach_lora(model, LearnConfig.model_validate(QUICK))
    source, fixed = Source(model), draws(2)
    cache = CachedReference(pairs, fixed, tmp_path)
    assert cache.fill(model, source, 2, poll=lambda: None) == 1
    visits = (Visit(index=11, draw=1), Visit(index=0, draw=0), Visit(index=7, draw=1))
    live = live_reference(model, source.pairs(pairs, visits, fixed))
    assert float((cache.of(visits) - live).abs().max()) < 1e-6
    config = LearnConfig.model_validate(QUICK)
    assert first_logit(model, source.pairs(pairs, visits, fixed), visits, cache, config) < 500 * 1e-6
    again = CachedReference(pairs, fixed, tmp_path)
    assert again.fill(model, source, 2, poll=lambda: None) == 0
    assert torch.equal(again.of(visits), cache.of(visits))
    wrong = (Visit(index=11, draw=0), Visit(index=0, draw=1), Visit(index=7, draw=0))
    with pytest.raises(BadInput, match="not this model's"):
        first_logit(model, source.pairs(pairs, wrong, fixed), visits, cache, config)


def test_four_pairs_once_are_one_pair_four_times(planted: Project, toy_model_dir: Path):
    whole = load_file(run(planted, toy_model_dir, "whole", batch_pairs=4, accumulation=1) / "adapter.safetensors")
    parts = load_file(run(planted, toy_model_dir, "parts", batch_pairs=1, accumulation=4) / "adapter.safetensors")
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-3, atol=1e-5)
    residual = torch.cat([(parts[name] - whole[name]).flatten() for name in whole])
    assert abs(residual.mean().item()) < 1e-6


def test_caching_the_reference_changes_no_step(planted: Project, toy_model_dir: Path):
    """12 pairs and 24 visits: with 2 draws each of them is visited once, so the draws are the cached ones."""
    cached = run(planted, toy_model_dir, "cached", draws=2)
    summary = json.loads((cached / "summary.json").read_text(encoding="utf-8"))
    assert summary["steps"] == 6
    files = list((planted.pairs("toy") / "reference_cache").glob("*/draw-*.safetensors"))
    assert len(files) >= 2
    first = rows(cached, "train")[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4)


@pytest.fixture(scope="module")
def uninterrupted(planted: Project, toy_model_dir: Path) -> Path:
    return run(planted, toy_model_dir, "uninterrupted", select="best_validation")


def stop_when(condition, number: signal.Signals) -> threading.Thread:
    """Sends this process a signal as soon as the condition holds, as a machine would."""

    def wait() -> None:
        deadline = time.monotonic() + 60
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def assert_same_bits(folder: Path, other: Path) -> None:
    """The adapters' tensors; the order of a safetensors header is not fixed."""
    ours, theirs = load_file(folder / "adapter.safetensors"), load_file(other / "adapter.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("num_rows", [0, 1, 4], ids=["at once", "after the first evaluation", "after a few steps"])
def test_a_run_that_is_stopped_and_resumed_is_the_uninterrupted_one(
    planted: Project, toy_model_dir: Path, uninterrupted: Path, num_rows: int
):
    name = f"stopped-{num_rows}"
    folder = planted.run(name)

    def reached() -> bool:
        listening = signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN
        return listening and num_lines(folder / "metrics.jsonl") >= num_rows

    # until the signal is sent, only the run's own handler may see it
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    thread = stop_when(reached, signal.SIGTERM)
    try:
        with pytest.raises(Interrupted, match="SIGTERM"):
            run(planted, toy_model_dir, name, select="best_validation")
    finally:
        thread.join()
        signal.signal(signal.SIGTERM, before)
    assert not (folder / "adapter.safetensors").exists()
    run(planted, toy_model_dir, name, select="best_validation")
    assert_same_bits(folder, uninterrupted)
    assert (folder / "where.jsonl").read_bytes() == (uninterrupted / "where.jsonl").read_bytes()
    for split in ("train", "validation"):
        assert rows(folder, split) == rows(uninterrupted, split)


def test_the_same_run_again_is_the_same_bits(planted: Project, toy_model_dir: Path, uninterrupted: Path):
    again = run(planted, toy_model_dir, "again", select="best_validation")
    assert_same_bits(again, uninterrupted)


LONGER = {"num_steps": 30, "learning_rate": 3e-3, "eval_every": 30, "eval_pairs": 6, "checkpoint_every": 0}


def test_f07_a_planted_preference_is_learned(planted: Project, toy_model_dir: Path):
    validation = rows(run(planted, toy_model_dir, "learned", **LONGER), "validation")
    assert validation[0]["margin"] == 0
    assert validation[0]["accuracy"] == 0.5
    assert validation[-1]["margin"] > 0.5
    assert validation[-1]["accuracy"] > 0.9
    assert validation[-1]["loss"] < math.log(2)
    where = (planted.run("learned") / "where.jsonl").read_text(encoding="utf-8").splitlines()
    for row in map(json.loads, where):
        pairs = zip(row["labels_per_latent_frame"], row["implicit_reward_per_latent_frame"], strict=True)
        assert sum(label * reward for label, reward in pairs) > 0


@pytest.mark.parametrize("objective", ["dense_dpo_summed", "dense_dpo_ties", "dpo"])
def test_the_other_objectives_learn_it_too(planted: Project, toy_model_dir: Path, objective: str):
    folder = run(planted, toy_model_dir, f"learned-{objective.replace('_', '-')}", objective=objective, **LONGER)
    assert rows(folder, "validation")[-1]["margin"] > 0.1


def test_shuffled_labels_teach_far_less(planted: Project, toy_model_dir: Path):
    """Not nothing: dealt out again among 12 pairs, some labels stay right, and the planted rule is a single bit."""
    true = rows(run(planted, toy_model_dir, "not-shuffled", **LONGER), "validation")[-1]
    shuffled = rows(run(planted, toy_model_dir, "shuffled", shuffle_labels=True, **LONGER), "validation")[-1]
    assert shuffled["margin"] < 0.5 * true["margin"]
    assert shuffled["loss"] > true["loss"]


def test_the_adapter_loads_into_the_pipeline_of_diffusers(planted: Project, toy_model_dir: Path, uninterrupted: Path):
    from diffusers import WanPipeline

    batch, _, _ = first_batch(planted, toy_model_dir)
    packed = batch.packed()
    ours = load(toy_model_dir)
    ours.load_adapter(uninterrupted / "adapter.safetensors")
    pipeline = WanPipeline.from_pretrained(toy_model_dir)
    pipeline.load_lora_weights(uninterrupted, weight_name="adapter.safetensors")
    pipeline.transformer.eval()
    with torch.no_grad():
        inputs = {"timestep": packed.t * 1000, "encoder_hidden_states": packed.text.embeds, "return_dict": False}
        theirs = pipeline.transformer(hidden_states=packed.latents, **inputs)[0]
        assert torch.equal(ours.predict(packed.latents, packed.t, packed.text), theirs)
        base = load(toy_model_dir).predict(packed.latents, packed.t, packed.text)
        assert not torch.equal(theirs, base)


def test_validation_pairs_are_never_trained_on(planted: Project, toy_model_dir: Path):
    model = load(toy_model_dir)
    pairs = read_pairs(planted.pairs("toy"), planted.preferences("toy"), model.geometry, model.fingerprint)
    splits = split_pairs(pairs, LearnConfig.model_validate(QUICK))
    assert {pair.split for pair in splits.train} == {"train"}
    assert {pair.split for pair in splits.validation} == {"validation"}
