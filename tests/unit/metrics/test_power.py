"""Sample sizes against the published table and statsmodels, and clustering against a hand-worked table."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from densedpo.core.errors import BadInput
from densedpo.metrics.power import (
    clustering,
    detectable_difference,
    detectable_win_rate,
    num_judgements,
    num_prompts,
    observed_detectable_difference,
    observed_detectable_win_rate,
)
from densedpo.metrics.rates import win_rate
from densedpo.metrics.statistics import Key


def keyed(table: list[list[float]]) -> dict[Key, float | None]:
    return {(f"p{i:04d}", j): value for i, row in enumerate(table) for j, value in enumerate(row)}


@pytest.mark.parametrize(
    ("rate", "at_80", "at_90"),
    [(0.52, 4904, 6563), (0.55, 783, 1047), (0.57, 399, 532), (0.60, 194, 259), (0.65, 85, 113), (0.70, 47, 62)],
)
def test_judgements_for_a_win_rate(rate: float, at_80: int, at_90: int) -> None:
    assert num_judgements(rate) == pytest.approx(at_80, abs=1)
    assert num_judgements(rate, power=0.9) == pytest.approx(at_90, abs=1)
    assert num_judgements(1 - rate) == num_judgements(rate)


def test_clustering_and_ties_cost_judgements() -> None:
    """193.2 decided judgements at 60 %; twice the design effect and half of them ties: four times as many."""
    assert num_judgements(0.6, deff=2.0, tie_rate=0.5) == pytest.approx(4 * 194, abs=4)


@pytest.mark.parametrize("rate", [0.52, 0.6, 0.8])
def test_detectable_rate_inverts_the_number(rate: float) -> None:
    found = detectable_win_rate(num_judgements(rate, deff=1.7, tie_rate=0.3), deff=1.7, tie_rate=0.3)
    assert found is not None
    assert found.value == pytest.approx(rate, abs=1e-3)


def test_three_judgements_detect_nothing() -> None:
    assert detectable_win_rate(3) is None


def test_the_power_is_what_a_study_of_that_size_has() -> None:
    """194 judgements of a 60 % winner find it in 80 % of 400 studies, which four standard errors put at +-8 points."""
    rng = np.random.default_rng(0)
    z = np.abs(rng.binomial(194, 0.6, size=400) - 97) / np.sqrt(194 / 4)
    assert (z > 1.96).mean() == pytest.approx(0.8, abs=0.08)


@pytest.mark.parametrize("n", [3, 20, 128, 2000])
def test_detectable_difference_is_that_of_statsmodels(n: int) -> None:
    expected = float(TTestPower().solve_power(None, n, 0.05, 0.8))
    assert detectable_difference(n, sd=2.0).value == pytest.approx(2 * expected, rel=1e-3)


def test_seeds_help_only_as_far_as_they_differ() -> None:
    """Four seeds halve the spread where they are independent, and do nothing where they are the same."""
    one = detectable_difference(50, sd=1.0).value
    assert detectable_difference(50, sd=1.0, seeds_per_prompt=4, icc=0.0).value == pytest.approx(one / 2)
    assert detectable_difference(50, sd=1.0, seeds_per_prompt=4, icc=1.0).value == pytest.approx(one)


@pytest.mark.parametrize("difference", [2.0, 0.5, 0.1])
def test_prompts_for_a_difference_are_the_fewest(difference: float) -> None:
    n = num_prompts(difference, sd=1.0)
    assert detectable_difference(n, sd=1.0).value <= difference
    assert n == 2 or detectable_difference(n - 1, sd=1.0).value > difference


def test_observed_difference_uses_the_spread_and_not_the_effect() -> None:
    """Prompt means 1, 2, 3 more than 0: standard deviation 1 over 3 prompts; adding 100 to all changes nothing."""
    base = keyed([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    other, far = keyed([[0.5, 1.5], [2.0, 2.0], [2.0, 4.0]]), keyed([[100.5, 101.5], [102.0, 102.0], [102.0, 104.0]])
    found, shifted = observed_detectable_difference(base, other), observed_detectable_difference(base, far)
    assert found is not None and shifted is not None
    assert found.value == pytest.approx(detectable_difference(3, sd=1.0).value)
    assert shifted.value == pytest.approx(found.value)
    assert observed_detectable_difference(base, base) is None


def test_observed_win_rate_counts_ties_and_repeats() -> None:
    """Five equal judgements of each of 40 prompts are worth one each: the rate that 40 judgements detect."""
    outcomes: dict[Key, int | None] = {(f"p{i}", j): 1 if i % 2 else -1 for i in range(40) for j in range(5)}
    found, worth = observed_detectable_win_rate(outcomes, seed=0), detectable_win_rate(40)
    assert found is not None and worth is not None
    assert found.value == pytest.approx(worth.value, abs=1e-6)
    assert observed_detectable_win_rate({("p", 0): 0}, seed=0) is None


def test_clustering_by_hand() -> None:
    """Prompts (1, 3), (5, 7), (9, 11): means 2, 6, 10; mean squares 2 x 32 / 2 = 32 between and 6 / 3 = 2 within.

    ICC = (32 - 2) / (32 + 2) = 15 / 17; deff = 1 + 15 / 17 = 32 / 17; n_eff = 6 x 17 / 32.
    """
    found = clustering(keyed([[1.0, 3.0], [5.0, 7.0], [9.0, 11.0]]), seed=0)
    assert found is not None
    assert found.icc.value == pytest.approx(15 / 17)
    assert found.deff == pytest.approx(32 / 17)
    assert found.n_eff == pytest.approx(6 * 17 / 32)


def test_clustering_recovers_a_planted_correlation() -> None:
    """Prompt variance 1 and seed variance 1: ICC 0.5, inside its interval; prompts have 2 to 6 seeds."""
    rng = np.random.default_rng(3)
    table = [(rng.standard_normal() + rng.standard_normal(2 + i % 5)).tolist() for i in range(300)]
    found = clustering(keyed(table), seed=0)
    assert found is not None and found.icc.low is not None and found.icc.high is not None
    assert found.icc.low < 0.5 < found.icc.high
    assert found.icc.value == pytest.approx(0.5, abs=0.08)


def test_values_that_repel_each_other_are_not_counted_twice() -> None:
    """Every prompt holds one 0 and one 1: a negative ICC, a design effect of 1."""
    found = clustering(keyed([[0.0, 1.0]] * 20), seed=0)
    assert found is not None
    assert found.icc.value == pytest.approx(-1.0)
    assert (found.deff, found.n_eff) == (1.0, 40.0)


def test_clustering_needs_repeats_that_differ() -> None:
    assert clustering(keyed([[1.0], [2.0]]), seed=0) is None
    assert clustering(keyed([[1.0, 1.0], [1.0, 1.0]]), seed=0) is None
    assert clustering({}, seed=0) is None


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(BadInput, match=r"win rate is 0\.5"):
        num_judgements(0.5)
    with pytest.raises(BadInput, match="tie rate is 1"):
        num_judgements(0.6, tie_rate=1.0)
    with pytest.raises(BadInput, match=r"power is 0\.2"):
        detectable_win_rate(100, power=0.2)
    with pytest.raises(BadInput, match="at least 2"):
        detectable_difference(1, sd=1.0)
    with pytest.raises(BadInput, match="standard deviation is 0"):
        num_prompts(0.1, sd=0.0)


def logistic_study(rng: np.random.Generator, *, prompts: int, seeds: int, shift: float) -> dict[Key, int | None]:
    """A model whose odds of winning are e^shift on a prompt of no leaning; prompts lean by a standard normal."""
    rates = 1 / (1 + np.exp(-(rng.standard_normal(prompts) + shift)))
    won = rng.random((prompts, seeds)) < rates[:, None]
    return {(f"p{i:04d}", j): int(won[i, j]) * 2 - 1 for i in range(prompts) for j in range(seeds)}


@pytest.mark.slow
@pytest.mark.parametrize(("prompts", "seeds", "shift", "expected"), [(128, 5, 0.25, 0.53), (128, 1, 0.5, 0.64)])
def test_power_of_published_designs(prompts: int, seeds: int, shift: float, expected: float) -> None:
    rng = np.random.default_rng(6)
    found = 0
    for i in range(500):
        rate = win_rate(logistic_study(rng, prompts=prompts, seeds=seeds, shift=shift), seed=i, num_draws=400)
        assert rate is not None and rate.decided is not None and rate.decided.low is not None
        found += rate.decided.low > 0.5
    assert found / 500 == pytest.approx(expected, abs=0.08)
