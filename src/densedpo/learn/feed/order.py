"""Which pair is seen when, and at which t: pure functions of seeds, so that resuming needs no saved generator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

from densedpo.core.seeds import generator, logit_normal_quantile

if TYPE_CHECKING:
    from densedpo.learn.config import LearnConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Visit:
    """One visit of an item: its index, and which of its draws of (t, noise) it gets."""

    index: int
    draw: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeDensity:
    """A logit-normal density of t, cut to [t_min, t_max]."""

    t_min: float
    t_max: float
    mean: float
    std: float

    @classmethod
    def of(cls, config: LearnConfig) -> TimeDensity:
        """The density that a run is configured with."""
        return cls(t_min=config.t_min, t_max=config.t_max, mean=config.t_mean, std=config.t_std)

    def quantile(self, u: float) -> float:
        """t at a share u in (0, 1) of the density."""
        low, high = self._share_below(self.t_min), self._share_below(self.t_max)
        return logit_normal_quantile(low + (high - low) * u, self.mean, self.std)

    def _share_below(self, t: float) -> float:
        if t in (0.0, 1.0):
            return t
        return NormalDist(self.mean, self.std).cdf(math.log(t / (1 - t)))


def window_of(step: int, *, num_items: int, size: int, seed: int, draws: int | Literal["fresh"]) -> tuple[Visit, ...]:
    """The visits of a step (from 1): consecutive places of an endless sequence of shuffled epochs.

    An item is visited once per epoch, so its draw is the epoch, modulo the number of draws.
    """
    visits = []
    for place in range((step - 1) * size, step * size):
        epoch, position = divmod(place, num_items)
        draw = epoch if draws == "fresh" else epoch % draws
        visits.append(Visit(index=_epoch_order(seed, epoch, num_items)[position], draw=draw))
    return tuple(visits)


def num_draws_visited(*, num_steps: int, num_items: int, size: int, draws: int) -> int:
    """How many of the draws a run will use at all."""
    return min(draws, -(-num_steps * size // num_items))


def time_of(item_id: str, draw: int, *, noise_seed: int, draws: int | Literal["fresh"], density: TimeDensity) -> float:
    """t of a (item, draw): one per stratum of the density over `draws` draws; anywhere in it when they are fresh.

    Which stratum a draw falls in is shuffled per item: else one epoch would see only low and the next only high t.
    """
    u = float(generator(noise_seed, item_id, draw, "t").uniform(1e-6, 1 - 1e-6))
    if draws == "fresh":
        return density.quantile(u)
    strata = generator(noise_seed, item_id, draws, "strata").permutation(draws)
    return density.quantile((int(strata[draw]) + u) / draws)


@lru_cache(maxsize=8)
def _epoch_order(seed: int, epoch: int, num_items: int) -> Sequence[int]:
    return tuple(generator(seed, "order", epoch).permutation(num_items).tolist())
