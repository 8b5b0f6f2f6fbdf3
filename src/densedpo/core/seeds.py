"""All randomness of the package: named seeds, and noise that is the same bits wherever it is asked for.

A seed is derived from what it is for (`derive_seed(run_seed, "eta", prompt_id)`), so no order of calls, batch size or
number of processes changes it. Noise for training and for sampling comes from `numpy.random.Philox`, on CPU and in
float32, and is moved to the device afterwards.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def derive_seed(*parts: int | str) -> int:
    """A 64-bit seed from the parts that name what it is for, by blake2b; order matters."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def generator(*parts: int | str) -> np.random.Generator:
    """A numpy generator over Philox, keyed by `derive_seed(*parts)`."""
    return np.random.Generator(np.random.Philox(key=derive_seed(*parts)))


def noise(shape: tuple[int, ...], *parts: int | str) -> Float[Tensor, ...]:
    """Standard normal float32 noise of a shape, on CPU: the same bits for the same parts on every device."""
    import torch

    return torch.from_numpy(generator(*parts).standard_normal(shape, dtype=np.float32))


def logit_normal_quantile(u: float, mean: float = 0.0, std: float = 1.0) -> float:
    """The u-quantile of a logit-normal variable, in (0, 1): the density of t in rectified-flow training (SD3)."""
    from statistics import NormalDist

    return 1 / (1 + math.exp(-NormalDist(mean, std).inv_cdf(u)))


@contextmanager
def seeded_init(seed: int) -> Iterator[None]:
    """Seeds torch's global generator inside the block only, since model classes take no generator for their weights."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
