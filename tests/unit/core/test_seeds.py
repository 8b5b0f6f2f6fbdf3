"""Named randomness: the same name gives the same bits, another name others."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from densedpo.core.seeds import derive_seed, generator, logit_normal_quantile, noise, seeded_init


def test_a_seed_depends_on_every_part_its_order_and_its_type() -> None:
    seeds = {derive_seed(*parts) for parts in ((1, "a"), ("a", 1), ("1", "a"), (1, "a", ""), (1, "b"), ("1a",))}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**64 for seed in seeds)


def test_noise_is_the_same_in_another_process() -> None:
    code = "from densedpo.core.seeds import noise; print(noise((3,), 7, 'pair', 'a').numpy().tobytes().hex())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == noise((3,), 7, "pair", "a").numpy().tobytes().hex()


def test_noise_is_standard_normal_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    sample = noise((200_000,), 0, "statistics")
    assert torch.equal(torch.get_rng_state(), before)
    assert sample.dtype == torch.float32
    assert abs(sample.mean().item()) < 0.01
    assert abs(sample.std().item() - 1) < 0.01


def test_logit_normal_quantiles_are_those_of_its_samples() -> None:
    sample = torch.sigmoid(torch.from_numpy(generator(0, "t").standard_normal(100_000)))
    for u in (0.1, 0.5, 0.9):
        assert logit_normal_quantile(u) == pytest.approx(float(torch.quantile(sample, u)), abs=0.01)
    assert logit_normal_quantile(0.5) == 0.5


def test_seeded_init_seeds_inside_only() -> None:
    before = torch.get_rng_state()
    with seeded_init(3):
        first = torch.nn.Linear(4, 4).weight.clone()
    with seeded_init(3):
        second = torch.nn.Linear(4, 4).weight.clone()
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
