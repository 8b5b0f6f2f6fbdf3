"""How far the policy is from the reference, in predictions and in weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from densedpo.adapters import VideoModel
from densedpo.core import seeds
from densedpo.core.workspace import Project
from densedpo.learn.feed.batch import Source
from densedpo.learn.feed.inputs import read_pairs
from densedpo.learn.feed.order import Visit
from densedpo.learn.reference import adapters_off
from densedpo.learn.watch.drift import drift_row, lora_norm
from learn_bench import FRESH, Bench


def test_drift_by_hand():
    """t = .1, .2 and 1 with drifts 1, 2 and 6: all 3; the first bucket 1.5, the last 6, the others hold none."""
    row = drift_row([0.1, 0.2, 1.0], [1.0, 2.0, 6.0])
    assert row["drift"] == 3.0
    assert row["drift_by_t"] == [
        {"t_min": 0.0, "t_max": 0.25, "num_items": 2, "drift": 1.5},
        {"t_min": 0.75, "t_max": 1.0, "num_items": 1, "drift": 6.0},
    ]


def test_the_norm_is_that_of_the_product():
    down = {f"layer{n}.lora_A.default.weight": seeds.noise((2, 5), "down", n) for n in range(2)}
    up = {f"layer{n}.lora_B.default.weight": seeds.noise((3, 2), "up", n) for n in range(2)}
    products = [up[f"layer{n}.lora_B.default.weight"] @ down[f"layer{n}.lora_A.default.weight"] for n in range(2)]
    expected = 0.5 * float(torch.cat(products).norm())
    assert lora_norm(down | up, scale=0.5) == pytest.approx(expected, rel=1e-5)
    fresh = {name: torch.zeros_like(weight) for name, weight in up.items()}
    assert lora_norm(down | fresh, scale=0.5) == 0


def test_drift_is_the_squared_distance_of_predictions(labelled: Project, toy_model: VideoModel, toy_model_dir: Path):
    toy = (labelled.pairs("toy"), labelled.preferences("toy"))
    pairs = read_pairs(*toy, toy_model.geometry, toy_model.fingerprint)[:2]
    bench = Bench(toy_model_dir, pairs)
    visits = [Visit(index=index, draw=0) for index in range(2)]
    batch = Source(bench.model).pairs(pairs, visits, FRESH)
    with torch.no_grad():
        errors, drift = bench.task.errors_and_drift(batch, visits)
        assert torch.equal(drift, torch.zeros(2))
        assert torch.equal(errors.policy_a, errors.reference_a)
        for name, parameter in bench.parameters.items():
            if "lora_B" in name:
                parameter.fill_(0.02)
        errors, drift = bench.task.errors_and_drift(batch, visits)
        assert torch.equal(errors.policy_b, bench.task.errors(batch, visits).policy_b)
        text = batch.text.__class__(embeds=batch.text.embeds[1:])
        expected = []
        for clip in (batch.latents_a, batch.latents_b):
            x_t = (1 - batch.t[1]) * clip[1:] + batch.t[1] * batch.noise_a[1:]
            policy = bench.model.predict(x_t, batch.t[1:], text)
            with adapters_off(bench.model.denoiser):
                expected.append((policy - bench.model.predict(x_t, batch.t[1:], text)).square().mean())
    assert drift[1].item() > 0
    assert drift[1].item() == pytest.approx(float(sum(expected)) / 2, rel=1e-3)
