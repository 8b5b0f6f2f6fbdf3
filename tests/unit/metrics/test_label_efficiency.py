"""Curves over budgets by hand, and planted curves recovered with their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from densedpo.core.errors import BadInput
from densedpo.metrics.label_efficiency import RunKey, compare_efficiency, label_efficiency


def flat(heights: dict[float, float], *, seeds: int = 3, prompts: int = 12) -> dict[RunKey, float | None]:
    """The same score for every training seed and prompt of a budget."""
    return {
        (budget, number, f"p{j:02d}"): height
        for budget, height in heights.items()
        for number in range(seeds)
        for j in range(prompts)
    }


def planted(rng: np.random.Generator, *, labels_for_unit: float, prompts: int = 60) -> dict[RunKey, float | None]:
    """A score that grows by 1 for each tenfold of labels and is 1 at `labels_for_unit`; 4 budgets, 3 seeds."""
    of_prompt = 0.5 * rng.standard_normal(prompts)
    found: dict[RunKey, float | None] = {}
    for budget in (30.0, 100.0, 300.0, 1000.0):
        for number in range(3):
            of_seed = 0.03 * rng.standard_normal()
            for j in range(prompts):
                noise = 0.3 * rng.standard_normal()
                height = 1 + math.log10(budget / labels_for_unit)
                found[budget, number, f"p{j:02d}"] = float(height + of_prompt[j] + of_seed + noise)
    return found


def test_a_curve_by_hand() -> None:
    """Scores 0, 1, 2 at 10, 100, 1000: the mean over the logarithm is 1; 1.5 is reached half way to 1000 in it."""
    found = label_efficiency(flat({10: 0.0, 100: 1.0, 1000: 2.0}), target=1.5, seed=0, num_draws=50)
    assert [point.budget for point in found.points] == [10, 100, 1000]
    assert [point.score.value for point in found.points] == pytest.approx([0, 1, 2])
    assert found.points[0].num_seeds == 3
    assert found.height.value == pytest.approx(1.0)
    assert found.needed.value == pytest.approx(10**2.5)
    assert (found.needed.low, found.needed.high) == pytest.approx((10**2.5, 10**2.5))
    assert not found.needed.at_most and found.needed.share_not_reached == 0


def test_a_lucky_budget_has_not_arrived() -> None:
    """3 at 100 and 1 at 1000 are fitted by 2 at both: 2.5 is never reached, and 1 is half way between 10 and 100."""
    scores = flat({10: 0.0, 100: 3.0, 1000: 1.0})
    never = label_efficiency(scores, target=2.5, seed=0, num_draws=20).needed
    assert never.value is None and never.high is None and never.share_not_reached == 1
    assert label_efficiency(scores, target=1.0, seed=0, num_draws=20).needed.value == pytest.approx(10**1.5)


def test_the_smallest_budget_may_be_more_than_needed() -> None:
    needed = label_efficiency(flat({10: 1.0, 100: 2.0}), target=0.5, seed=0, num_draws=20).needed
    assert needed.at_most and needed.value == 10


def test_planted_budgets_lie_in_their_intervals() -> None:
    found = label_efficiency(planted(np.random.default_rng(0), labels_for_unit=200), target=1.0, seed=0, num_draws=300)
    assert found.needed.low is not None and found.needed.high is not None
    assert found.needed.low < 200 < found.needed.high
    assert found.points[0].score.low is not None and found.points[-1].score.high is not None
    assert found.points[0].score.low < 1 + math.log10(30 / 200) < found.points[-1].score.high


def test_a_third_of_the_labels_is_found() -> None:
    """The second method is where the first is with three times the labels: a ratio of 1/3, a height of log10 3 more."""
    rng = np.random.default_rng(1)
    base, other = planted(rng, labels_for_unit=300), planted(rng, labels_for_unit=100)
    found = compare_efficiency(base, other, target=0.8, seed=0, num_draws=300)
    assert found.needed.value == pytest.approx(1 / 3, abs=0.2)
    assert found.needed.low is not None and found.needed.high is not None
    assert found.needed.low < 1 / 3 < found.needed.high < 1
    assert found.height.excludes_zero
    assert found.height.value == pytest.approx(math.log10(3), abs=0.25)


def test_a_method_that_never_arrives_leaves_the_ratio_open() -> None:
    low, high = flat({10: 0.0, 100: 0.5}), flat({10: 0.0, 100: 2.0})
    slower = compare_efficiency(high, low, target=1.0, seed=0, num_draws=20).needed
    assert slower.value is None and slower.high is None and slower.share_not_reached == 1
    faster = compare_efficiency(low, high, target=1.0, seed=0, num_draws=20).needed
    assert (faster.value, faster.low, faster.high) == (0.0, 0.0, 0.0)
    neither = compare_efficiency(low, low, target=1.0, seed=0, num_draws=20).needed
    assert neither.value is None and neither.low is None and "20 undefined" in neither.method


def test_missing_scores_are_counted() -> None:
    scores = flat({10: 0.0, 100: 1.0}) | {(10.0, 0, "p00"): None}
    found = label_efficiency(scores, target=0.5, seed=0, num_draws=20)
    assert (found.height.num_values, found.height.num_excluded) == (71, 1)


def test_curves_that_do_not_compare_are_refused() -> None:
    with pytest.raises(BadInput, match="1 budgets"):
        label_efficiency(flat({10: 0.0}), target=1.0, seed=0)
    with pytest.raises(BadInput, match="a budget is 0"):
        label_efficiency(flat({0: 0.0, 10: 1.0}), target=1.0, seed=0)
    with pytest.raises(BadInput, match="budget 10 has no score"):
        label_efficiency(flat({100: 1.0}) | {(10.0, 0, "p00"): None}, target=1.0, seed=0)
    with pytest.raises(BadInput, match="score of budget 10 seed 0 prompt p00 is nan"):
        label_efficiency(flat({10: math.nan, 100: 1.0}), target=1.0, seed=0)
    with pytest.raises(BadInput, match="same budgets"):
        compare_efficiency(flat({10: 0.0, 100: 1.0}), flat({10: 0.0, 200: 1.0}), target=1.0, seed=0)
