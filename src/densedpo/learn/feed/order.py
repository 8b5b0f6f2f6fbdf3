"""Which pair is seen when, and at which t: pure functions of seeds, so that resuming needs no saved generator."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, islice
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


class Order:
    """Which items each forward visits: an endless sequence of shuffled epochs, cut into forwards of one bucket each.

    The items of one bucket have latents of one size and can stand in one batch. The sequence is walked from its start;
    each visit waits in its bucket, and a bucket that holds enough is the next forward. So every forward is full, every
    item is visited once per epoch whatever its bucket, what is left of a bucket waits for the next epoch, and with one
    bucket the forwards are consecutive places of the sequence. An item's draw is the epoch of its visit, modulo the
    number of draws.
    """

    def __init__(self, buckets: Sequence[Hashable], *, size: int, seed: int, draws: int | Literal["fresh"]) -> None:
        """Nothing is walked yet.

        Args:
            buckets: of each item.
            size: visits in a forward.
        """
        self._buckets, self._size, self._seed, self._draws = tuple(buckets), size, seed, draws
        self._walk, self._walked = self._forwards(), 0
        self._last: tuple[tuple[int, int], tuple[tuple[Visit, ...], ...]] | None = None

    def window(self, step: int, *, accumulation: int) -> tuple[tuple[Visit, ...], ...]:
        """The forwards of a step (from 1)."""
        if self._last is None or self._last[0] != (step, accumulation):
            first = (step - 1) * accumulation
            if first < self._walked:
                self._walk, self._walked = self._forwards(), 0
            found = tuple(islice(self._walk, first - self._walked, first - self._walked + accumulation))
            self._walked = first + accumulation
            self._last = ((step, accumulation), found)
        return self._last[1]

    def num_draws(self, num_steps: int, *, accumulation: int) -> int:
        """How many of the draws so many steps will use at all."""
        forwards = islice(self._forwards(), num_steps * accumulation)
        return 1 + max(visit.draw for forward in forwards for visit in forward)

    def largest(self, volume: Callable[[int], int]) -> tuple[Visit, ...]:
        """A forward of the bucket whose items are largest, for what must fit every forward.

        Args:
            volume: of an item.
        """
        largest = max(range(len(self._buckets)), key=volume)
        same = [index for index, bucket in enumerate(self._buckets) if bucket == self._buckets[largest]]
        return tuple(Visit(index=same[place % len(same)], draw=0) for place in range(self._size))

    def _forwards(self) -> Iterator[tuple[Visit, ...]]:
        waiting: dict[Hashable, list[Visit]] = {}
        for epoch in count():
            draw = epoch if self._draws == "fresh" else epoch % self._draws
            for index in _epoch_order(self._seed, epoch, len(self._buckets)):
                held = waiting.setdefault(self._buckets[index], [])
                held.append(Visit(index=index, draw=draw))
                if len(held) == self._size:
                    yield tuple(held)
                    held.clear()


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
