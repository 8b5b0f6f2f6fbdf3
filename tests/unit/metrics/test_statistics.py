"""Estimates against known values and known coverage."""

from __future__ import annotations

import numpy as np
import pytest

from densedpo.core.errors import BadInput
from densedpo.metrics.statistics import (
    Interval,
    Key,
    TrainedKey,
    beside_every_seed,
    cluster_mean,
    difference_p_value,
    paired_difference,
    percentile_bounds,
    resampled_bounds,
    two_way_difference,
)


def keyed(table: list[list[float | None]]) -> dict[Key, float | None]:
    """Rows are prompts, columns are seeds."""
    return {(f"p{i:03d}", j): value for i, row in enumerate(table) for j, value in enumerate(row)}


def test_mean_is_over_prompts_and_counts_what_it_left_out() -> None:
    """Prompt means 2 (of 1 and 3) and 8 (one value of two): their mean is 5, not (1 + 3 + 8) / 3."""
    estimate = cluster_mean(keyed([[1.0, 3.0], [8.0, None]]), seed=0)
    assert estimate is not None
    assert estimate.value == pytest.approx(5.0)
    assert (estimate.n, estimate.num_values, estimate.num_excluded) == (2, 3, 1)


def test_few_prompts_get_students_t() -> None:
    """1, 2, 3: mean 2, standard deviation 1, t(2) at 97.5 % = 4.3027, half a width of 4.3027 / sqrt(3) = 2.4842."""
    estimate = cluster_mean(keyed([[1.0], [2.0], [3.0]]), seed=0)
    assert estimate is not None
    assert estimate.low == pytest.approx(2 - 2.4842, abs=1e-4)
    assert estimate.high == pytest.approx(2 + 2.4842, abs=1e-4)
    assert "Student's t" in estimate.method


def test_nearly_equal_values_still_get_an_interval() -> None:
    estimate = cluster_mean(keyed([[0.0]] * 29 + [[1.0]]), seed=0)
    assert estimate is not None and estimate.low is not None and estimate.high is not None
    assert estimate.low <= 1 / 30 <= estimate.high


def test_paired_difference_by_hand() -> None:
    """Differences (0.1, 0.3) and (0.2, 0.2): prompt means 0.2 and 0.2, no spread, so the interval is the point."""
    base = keyed([[0.5, 0.5], [0.1, 0.6]])
    other = keyed([[0.6, 0.8], [0.3, 0.8]])
    estimate = paired_difference(base, other, seed=0)
    assert estimate is not None
    assert estimate.value == pytest.approx(0.2)
    assert estimate.low == pytest.approx(0.2)
    assert estimate.high == pytest.approx(0.2)
    assert estimate.excludes_zero


def test_a_pair_with_a_missing_half_is_excluded() -> None:
    estimate = paired_difference(keyed([[1.0], [2.0], [None]]), keyed([[2.0], [None], [3.0]]), seed=0)
    assert estimate is not None
    assert (estimate.value, estimate.n, estimate.num_excluded) == (1.0, 1, 2)
    assert estimate.low is None and not estimate.excludes_zero


def test_nothing_computed_is_none_and_not_zero() -> None:
    assert cluster_mean(keyed([[None], [None]]), seed=0) is None
    assert cluster_mean({}, seed=0) is None


@pytest.mark.parametrize("interval", ["bca", "percentile"])
def test_interval_of_a_large_sample_is_the_normal_one(interval: Interval) -> None:
    """400 prompts with standard deviation 1: half a width of 1.96 / 20 = 0.098."""
    values = np.random.default_rng(1).standard_normal(400)
    estimate = cluster_mean(keyed([[float(v)] for v in values]), seed=0, interval=interval)
    assert estimate is not None and estimate.low is not None and estimate.high is not None
    assert "bootstrap over prompts" in estimate.method
    half = 1.96 * values.std(ddof=1) / 20
    assert estimate.high - estimate.value == pytest.approx(half, rel=0.15)
    assert estimate.value - estimate.low == pytest.approx(half, rel=0.15)


@pytest.mark.parametrize("interval", ["bca", "percentile"])
def test_coverage_with_seeds_that_share_a_prompt(interval: Interval) -> None:
    """40 prompts with 4 correlated seeds and no difference: 5 % of intervals exclude 0; by clip it would be 30 %."""
    rng = np.random.default_rng(9)
    rejected = 0
    for i in range(300):
        table = rng.standard_normal((40, 1)) + 0.5 * rng.standard_normal((40, 4))
        estimate = cluster_mean(keyed(table.tolist()), seed=i, interval=interval, num_draws=400)
        assert estimate is not None
        rejected += estimate.excludes_zero
    assert 0.02 <= rejected / 300 <= 0.09


def test_same_seed_same_bits_and_order_does_not_matter() -> None:
    table = np.random.default_rng(2).standard_normal((30, 2)).tolist()
    values = keyed(table)
    backwards = dict(reversed(list(values.items())))
    assert cluster_mean(values, seed=3) == cluster_mean(backwards, seed=3)
    assert cluster_mean(values, seed=3) != cluster_mean(values, seed=4)


def test_mismatched_sets_are_refused_by_name() -> None:
    with pytest.raises(BadInput, match="prompt p001 seed 0 only in the first"):
        paired_difference(keyed([[1.0], [2.0]]), keyed([[1.0]]), seed=0)
    with pytest.raises(BadInput, match="prompt p000 seed 1 only in the second"):
        paired_difference(keyed([[1.0]]), keyed([[1.0, 2.0]]), seed=0)


def test_a_value_that_is_not_finite_is_refused() -> None:
    with pytest.raises(BadInput, match="prompt p000 seed 0 is nan"):
        cluster_mean(keyed([[float("nan")], [1.0]]), seed=0)


def test_a_lower_level_is_narrower_and_recorded() -> None:
    values = keyed([[float(v)] for v in np.random.default_rng(5).standard_normal(60)])
    wide, narrow = cluster_mean(values, seed=0), cluster_mean(values, seed=0, level=0.9)
    assert wide is not None and wide.low is not None and narrow is not None and narrow.low is not None
    assert wide.low < narrow.low
    assert (wide.level, narrow.level) == (0.95, 0.9)


def test_p_value_of_a_difference_by_hand() -> None:
    """Differences 1, 2, 3: t = 2 / (1 / sqrt(3)) = 3.4641 with 2 degrees of freedom, p = 1 - 3.4641 / sqrt(14)."""
    found = difference_p_value(keyed([[0.0], [0.0], [0.0], [None]]), keyed([[1.0], [2.0], [3.0], [4.0]]))
    assert found is not None
    assert found.p == pytest.approx(1 - 3.46410161514 / np.sqrt(14), abs=1e-9)
    assert (found.n, found.num_excluded) == (3, 1)
    assert difference_p_value(keyed([[1.0], [1.0]]), keyed([[2.0], [2.0]])) is None


def test_few_units_of_a_ratio_get_the_jackknife() -> None:
    """The mean of 1, 2, 3 as a statistic: the jackknife's error is that of the mean, so the interval is Student's t."""
    values = np.array([1.0, 2.0, 3.0])
    bounds = resampled_bounds(lambda w: w @ values / w.sum(axis=1), num_units=3, unit="prompts", seed=0)
    assert bounds.high == pytest.approx(2 + 2.4842, abs=1e-4)
    assert "jackknife" in bounds.method


def test_undefined_draws_are_told_and_many_leave_no_interval() -> None:
    draws = np.random.default_rng(0).standard_normal(1000)
    draws[:20] = np.nan
    bounds = percentile_bounds(draws, num_units=50, unit="prompts")
    assert bounds.low is not None and "20 undefined" in bounds.method
    draws[:100] = np.nan
    bounds = percentile_bounds(draws, num_units=50, unit="prompts")
    assert bounds.low is None and "100 of 1000" in bounds.method


def trained(table: list[list[float | None]]) -> dict[TrainedKey, float | None]:
    """Rows are training seeds, columns are prompts."""
    return {(i, f"p{j:03d}"): value for i, row in enumerate(table) for j, value in enumerate(row)}


def test_two_way_difference_by_hand() -> None:
    """Seed means of (1, 3), (2, 4), (3, 5) are 2, 3, 4; over them t(2) has half a width of 4.3027 / sqrt(3) = 2.4842.

    Prompt means are 2 and 4, over which t(1) has 12.7062 x sqrt(2) / sqrt(2): the widest, and so the one quoted.
    """
    found = two_way_difference(trained([[0.0, 0.0]] * 3), trained([[1.0, 3.0], [2.0, 4.0], [3.0, 5.0]]), seed=0)
    assert found is not None and found.over_seeds is not None
    assert found.by_seed == {0: 2.0, 1: 3.0, 2: 4.0}
    assert found.num_seeds_above == 3
    assert found.over_seeds.high == pytest.approx(3 + 2.4842, abs=1e-4)
    assert found.over_prompts.high == pytest.approx(3 + 12.7062, abs=1e-4)
    assert (found.estimate.value, found.estimate.high) == pytest.approx((3.0, 3 + 12.7062), abs=1e-4)


def test_one_training_seed_is_told_apart_from_many() -> None:
    base = trained([[0.0, 0.0, 0.0]])
    found = two_way_difference(base, trained([[1.0, 2.0, 3.0]]), seed=0)
    assert found is not None and found.over_seeds is None
    assert "training seeds as they are" in found.estimate.method
    assert two_way_difference(base, trained([[None, None, None]]), seed=0) is None


def test_a_base_trained_once_stands_beside_every_seed() -> None:
    other = trained([[1.0, 2.0], [3.0, None]])
    found = two_way_difference(beside_every_seed({"p000": 1.0, "p001": 1.0}, [0, 1]), other, seed=0)
    assert found is not None
    assert found.by_seed == {0: 0.5, 1: 2.0}
    assert found.estimate.num_excluded == 1
    with pytest.raises(BadInput, match="prompt p001 seed 1"):
        two_way_difference(trained([[1.0, 2.0], [3.0]]), other, seed=0)


def test_many_seeds_and_prompts_get_the_two_way_bootstrap() -> None:
    """30 seeds of variance 1 and 40 prompts of variance 1: an error of sqrt(1 / 30 + 1 / 40) = 0.2415."""
    rng = np.random.default_rng(8)
    table = rng.standard_normal((30, 1)) + rng.standard_normal((1, 40))
    found = two_way_difference(trained([[0.0] * 40] * 30), trained(table.tolist()), seed=0)
    assert found is not None and found.estimate.low is not None and found.estimate.high is not None
    assert "bootstrap over training seeds and prompts" in found.estimate.method
    error = np.sqrt(table.mean(axis=1).var(ddof=1) / 30 + table.mean(axis=0).var(ddof=1) / 40)
    assert found.estimate.high - found.estimate.low == pytest.approx(2 * 2.0 * error, rel=0.15)


@pytest.mark.parametrize(("of_seeds", "of_prompts"), [(0.3, 1.0), (1.0, 0.0)])
def test_five_training_seeds_are_not_taken_for_certain(of_seeds: float, of_prompts: float) -> None:
    """No difference on average: the quoted interval excludes 0 in about 5 % of runs; prompts alone in 22 % and more."""
    rng = np.random.default_rng(10)
    quoted = prompts_alone = 0
    for i in range(60):
        table = of_seeds * rng.standard_normal((5, 1)) + of_prompts * rng.standard_normal((1, 60))
        table = table + rng.standard_normal((5, 60))
        found = two_way_difference(trained([[0.0] * 60] * 5), trained(table.tolist()), seed=i, num_draws=200)
        assert found is not None
        quoted += found.estimate.excludes_zero
        prompts_alone += found.over_prompts.excludes_zero
    assert quoted / 60 <= 0.15
    assert prompts_alone > quoted
