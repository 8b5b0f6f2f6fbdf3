"""Order, draws and t are pure functions of seeds."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from densedpo.learn.feed.order import Order, TimeDensity, Visit, time_of

WHOLE = TimeDensity(t_min=0.0, t_max=1.0, mean=0.0, std=1.0)


def all_visits(
    num_steps: int, size: int, *, num_items: int = 10, seed: int = 0, draws: int | str = "fresh"
) -> list[Visit]:
    order = Order(["one size"] * num_items, size=size, seed=seed, draws=draws)
    windows = (order.window(step, accumulation=1) for step in range(1, num_steps + 1))
    return [visit for window in windows for visits in window for visit in visits]


def test_f31_every_item_is_visited_once_per_epoch():
    visits = all_visits(15, 4)
    for epoch in range(6):
        assert sorted(visit.index for visit in visits[10 * epoch : 10 * (epoch + 1)]) == list(range(10))
        assert {visit.draw for visit in visits[10 * epoch : 10 * (epoch + 1)]} == {epoch}


def test_the_order_does_not_depend_on_the_size_of_a_step():
    assert all_visits(12, 5) == all_visits(60, 1) == all_visits(3, 20)


def test_epochs_and_seeds_differ():
    visits = [visit.index for visit in all_visits(20, 1)]
    assert visits[:10] != visits[10:]
    assert visits[:10] != [visit.index for visit in all_visits(10, 1, seed=1)]


def test_draws_come_round_again():
    assert [visit.draw for visit in all_visits(50, 1, draws=3)][::10] == [0, 1, 2, 0, 1]
    order = Order([None] * 10, size=4, seed=0, draws=3)
    assert order.num_draws(5, accumulation=1) == 2
    assert order.num_draws(25, accumulation=2) == 3


def test_an_item_gets_one_t_in_each_stratum():
    """Eight draws of a logit-normal: exactly one between each pair of its octiles."""
    for item in ("a", "b", "c"):
        times = [time_of(item, draw, noise_seed=0, draws=8, density=WHOLE) for draw in range(8)]
        edges = [WHOLE.quantile(share / 8) for share in range(1, 8)]
        assert sorted(np.searchsorted(edges, times).tolist()) == list(range(8))


def test_one_epoch_sees_all_of_t():
    strata = Counter(int(time_of(f"{i}", 0, noise_seed=0, draws=2, density=WHOLE) > 0.5) for i in range(200))
    assert 70 < strata[0] < 130


def test_fresh_draws_follow_the_density():
    """Of a logit-normal(0, 1), 68.3 % lie within one standard deviation: in (1/(1+e), e/(1+e))."""
    times = np.array([time_of("item", draw, noise_seed=0, draws="fresh", density=WHOLE) for draw in range(3000)])
    assert ((times > 1 / (1 + math.e)) & (times < math.e / (1 + math.e))).mean() == pytest.approx(0.683, abs=0.03)


def test_t_stays_in_its_range():
    narrow = TimeDensity(t_min=0.3, t_max=0.6, mean=0.5, std=2.0)
    times = [time_of("item", draw, noise_seed=0, draws="fresh", density=narrow) for draw in range(300)]
    assert min(times) >= 0.3
    assert max(times) <= 0.6
    assert np.std(times) > 0.05


def test_t_depends_on_the_noise_seed_the_item_and_the_draw_only():
    def t(item: str = "x", draw: int = 1, seed: int = 0) -> float:
        return time_of(item, draw, noise_seed=seed, draws="fresh", density=WHOLE)

    assert t() == t()
    assert len({t(), t(item="y"), t(draw=2), t(seed=1)}) == 4


MIXED = ["short"] * 5 + ["long"] * 3 + ["wide"]


def mixed(seed: int = 0) -> Order:
    return Order(MIXED, size=2, seed=seed, draws="fresh")


def test_a_forward_holds_items_of_one_bucket_and_is_full():
    order = mixed()
    for step in range(1, 30):
        for visits in order.window(step, accumulation=3):
            assert len(visits) == 2
            assert len({MIXED[visit.index] for visit in visits}) == 1


def test_every_item_is_visited_once_per_epoch_whatever_its_bucket():
    """Up to what waits: a bucket of one item holds back every second of its visits."""
    order = mixed()
    visits = Counter(
        visit for step in range(1, 91) for forward in order.window(step, accumulation=1) for visit in forward
    )
    assert max(visits.values()) == 1
    times = Counter(visit.index for visit in visits)
    assert set(times) == set(range(9))
    assert max(times.values()) - min(times.values()) <= 2
    assert min(times.values()) >= 18
    for index in range(9):
        assert sorted(visit.draw for visit in visits if visit.index == index) == list(range(times[index]))


def test_f32_f33_a_window_is_the_same_whichever_was_asked_for_before():
    """As on resuming, and where a step is asked for twice."""
    through, jumping = mixed(), mixed()
    windows = {step: through.window(step, accumulation=2) for step in range(1, 12)}
    for step in (11, 3, 3, 4, 1, 9):
        assert jumping.window(step, accumulation=2) == windows[step]
    assert mixed(seed=1).window(1, accumulation=4) != mixed().window(1, accumulation=4)


def test_the_largest_forward_is_of_the_largest_bucket_alone():
    volume = {"short": 1, "long": 5, "wide": 2}
    assert [visit.index for visit in mixed().largest(lambda index: volume[MIXED[index]])] == [5, 6]
    assert [visit.index for visit in mixed().largest(lambda index: MIXED[index] == "wide")] == [8, 8]


def test_f22_fewer_items_than_a_forward_holds_come_round_again():
    """One item in forwards of 3: each holds it under three draws of its own."""
    order = Order(["alone"], size=3, seed=0, draws="fresh")
    assert [visit.draw for visit in order.window(2, accumulation=1)[0]] == [3, 4, 5]
    assert {visit.index for visit in order.window(2, accumulation=1)[0]} == {0}
