"""Random errors and labels for the tests of the objectives."""

from __future__ import annotations

import math

import numpy as np
import torch

from densedpo.learn.objectives import PairErrors

SHAPE = (5, 7, 1, 1)
SPACE = (3, 4, 2, 3)
NAMES = ("policy_a", "policy_b", "reference_a", "reference_b")


def log1p_exp(u: float) -> float:
    """-log sigmoid(u)."""
    return math.log1p(math.exp(-u))


def random_errors(shape=SHAPE, seed=0, dtype=torch.float64, valid=None) -> PairErrors:
    rng = np.random.default_rng(seed)
    tensors = {name: torch.from_numpy(rng.uniform(0.5, 1.5, shape)).to(dtype) for name in NAMES}
    return PairErrors(**tensors, valid=torch.ones(shape, dtype=torch.bool) if valid is None else valid)


def random_field(shape=SHAPE, seed=1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(-1, 2, shape).astype(np.int8))


def cells(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(1, -1, 1, 1)


def by_hand() -> tuple[PairErrors, torch.Tensor]:
    """Three frames: d_a = (-.2, .1, .3), d_b = (.2, -.1, -.4), so d_a - d_b = (-.4, .2, .7); labels +1, -1, tie.

    At beta 10, u = 2 and 1.
    """
    errors = PairErrors(
        policy_a=cells([0.8, 1.1, 1.3]),
        policy_b=cells([1.2, 0.9, 0.6]),
        reference_a=cells([1.0, 1.0, 1.0]),
        reference_b=cells([1.0, 1.0, 1.0]),
        valid=torch.ones(1, 3, 1, 1, dtype=torch.bool),
    )
    return errors, torch.tensor([1, -1, 0]).reshape(1, 3, 1, 1)


def swapped(errors: PairErrors) -> PairErrors:
    return PairErrors(
        policy_a=errors.policy_b,
        policy_b=errors.policy_a,
        reference_a=errors.reference_b,
        reference_b=errors.reference_a,
        valid=errors.valid,
    )
