"""Motion bias found where it was planted, and not where it was not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from densedpo.core.errors import BadInput
from densedpo.metrics.motion_bias import (
    JudgedPairs,
    alignment_ratio,
    controlled_win_rate,
    low_motion_share,
    motion_drift,
    preference_slope,
)
from densedpo.metrics.statistics import Estimate


def annotators(
    gamma: float, rng: np.random.Generator, *, num_prompts: int = 80, per_prompt: int = 3, side: float = 0.4
) -> JudgedPairs:
    """Simulated answers with a known slope on standardised motion and a known liking for what is shown first.

    Answers to one prompt are correlated (0.3, by a Gaussian copula), and the odds of each alone follow the model
    exactly. The difference in motion has a standard deviation of exactly 2 before it is standardised.
    """
    shape = (num_prompts, per_prompt)
    difference = rng.standard_normal(shape) + 0.5 * rng.standard_normal((num_prompts, 1))
    difference *= 2 / difference.std()
    first = rng.random(shape) < 0.5
    uniform = stats.norm.cdf(0.3**0.5 * rng.standard_normal((num_prompts, 1)) + 0.7**0.5 * rng.standard_normal(shape))
    odds = gamma * difference / 2 + side * np.where(first, 1, -1)
    base = rng.uniform(3, 5, shape)
    return JudgedPairs(
        prompt=[f"p{i}" for i in range(num_prompts) for _ in range(per_prompt)],
        answer=np.where(uniform < 1 / (1 + np.exp(-odds)), 1, -1).ravel(),
        motion_a=(base + difference).ravel(),
        motion_b=base.ravel(),
        a_first=first.ravel(),
    )


def slope(pairs: JudgedPairs) -> Estimate:
    estimate = preference_slope(pairs).estimate
    assert estimate is not None and estimate.low is not None and estimate.high is not None
    return estimate


def covered(gamma: float, *, num_runs: int, num_prompts: int = 80) -> tuple[float, float, float]:
    """How often the interval holds the planted slope, the mean of the estimates, and how often the alarm fires."""
    rng = np.random.default_rng(17)
    hits, values, alarms = 0, [], 0
    for _ in range(num_runs):
        check = preference_slope(annotators(gamma, rng, num_prompts=num_prompts))
        assert check.estimate is not None and check.estimate.low is not None and check.estimate.high is not None
        hits += check.estimate.low <= gamma <= check.estimate.high
        values.append(check.estimate.value)
        alarms += check.alarm
    return hits / num_runs, float(np.mean(values)), alarms / num_runs


@pytest.mark.parametrize("gamma", [-0.8, 0.0])
def test_the_planted_slope_is_in_the_interval(gamma: float) -> None:
    """60 runs; at a true 95 % fewer than 52 hits happen once in 300 times."""
    coverage, mean, alarms = covered(gamma, num_runs=60)
    assert coverage >= 52 / 60
    assert mean == pytest.approx(gamma, abs=0.1)
    assert alarms > 0.95 if gamma else alarms <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize("gamma", [-0.8, 0.0, 0.5])
def test_the_planted_slope_is_covered_in_95_percent_of_500_runs(gamma: float) -> None:
    coverage, mean, alarms = covered(gamma, num_runs=500, num_prompts=120)
    assert 0.93 <= coverage <= 0.97
    assert mean == pytest.approx(gamma, abs=0.03)
    assert alarms > 0.99 if gamma < 0 else alarms <= 0.05


def test_which_clip_is_called_a_does_not_matter() -> None:
    pairs = annotators(-0.5, np.random.default_rng(0))
    assert pairs.a_first is not None
    swapped = replace(
        pairs, answer=-pairs.answer, motion_a=pairs.motion_b, motion_b=pairs.motion_a, a_first=~pairs.a_first
    )
    one, other = slope(pairs), slope(swapped)
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), abs=1e-9)


def test_ties_are_left_out_and_counted_and_the_unit_is_the_prompt() -> None:
    pairs = annotators(-0.5, np.random.default_rng(0))
    tied = replace(pairs, answer=np.where(np.arange(240) % 6 == 0, 0, pairs.answer))
    estimate = slope(tied)
    assert (estimate.n, estimate.num_values, estimate.num_excluded) == (80, 200, 40)
    assert "side" in estimate.method and "clustered by prompt" in estimate.method


def test_correlated_answers_widen_the_interval() -> None:
    """The same 80 answers given three times over are no more evidence than once."""
    once = annotators(-0.5, np.random.default_rng(3), per_prompt=1)
    assert once.a_first is not None
    thrice = JudgedPairs(
        prompt=list(once.prompt) * 3,
        answer=np.tile(once.answer, 3),
        motion_a=np.tile(once.motion_a, 3),
        motion_b=np.tile(once.motion_b, 3),
        a_first=np.tile(once.a_first, 3),
    )
    a, b = slope(once), slope(thrice)
    assert a.low is not None and a.high is not None and b.low is not None and b.high is not None
    assert b.high - b.low == pytest.approx(a.high - a.low, rel=0.02)


def test_a_judge_that_goes_by_motion_alone_has_no_finite_slope_but_a_low_motion_share() -> None:
    pairs = annotators(0.0, np.random.default_rng(1))
    stubborn = replace(pairs, answer=-np.sign(pairs.difference).astype(int), a_first=None)
    check = preference_slope(stubborn)
    assert check.estimate is None and not check.alarm
    assert check.reason == "the answers follow motion without exception, so that no finite coefficient fits best"
    assert low_motion_share(stubborn, threshold=0.1, seed=0).alarm


def test_what_the_pairs_cannot_tell_apart_is_said() -> None:
    pairs = annotators(-0.5, np.random.default_rng(1))
    fixed = replace(pairs, a_first=np.ones(240, bool), model_a=["new"] * 240, model_b=["old"] * 240)
    assert preference_slope(fixed).reason == "motion, side, model old cannot be told apart in these pairs"
    few = annotators(-0.5, np.random.default_rng(1), num_prompts=3)
    assert preference_slope(few).reason == "3 prompts with a decided pair are too few for 2 coefficients"


def test_low_motion_share_by_hand() -> None:
    """Of five pairs one is within the threshold and one is a tie; of the other three the slower clip wins two."""
    pairs = JudgedPairs(
        prompt=["p0", "p1", "p2", "p3", "p4"],
        answer=np.array([1, -1, 1, 0, 1]),
        motion_a=np.array([1.0, 5.0, 5.0, 1.0, 2.0]),
        motion_b=np.array([3.0, 2.0, 1.0, 9.0, 2.4]),
    )
    check = low_motion_share(pairs, threshold=0.5, seed=0)
    assert check.estimate is not None
    assert check.estimate.value == pytest.approx(2 / 3)
    assert not check.alarm  # three pairs prove nothing
    assert low_motion_share(pairs, threshold=20, seed=0).reason == ("no decided pair differs in motion by more than 20")


def contest(gamma: float, strength: float, *, num_prompts: int = 400, seed: int = 5) -> JudgedPairs:
    """New against old: new is stronger by a known log odds and moves less by a standard deviation and a half."""
    rng = np.random.default_rng(seed)
    new_is_a = rng.random(num_prompts) < 0.5
    sign = np.where(new_is_a, 1, -1)
    difference = sign * (rng.standard_normal(num_prompts) - 1.5)
    spread = difference.std()
    won = rng.random(num_prompts) < 1 / (1 + np.exp(-(gamma * difference / spread + strength * sign)))
    return JudgedPairs(
        prompt=[f"p{i}" for i in range(num_prompts)],
        answer=np.where(won, 1, -1),
        motion_a=4 + difference,
        motion_b=np.full(num_prompts, 4.0),
        model_a=np.where(new_is_a, "new", "old").tolist(),
        model_b=np.where(new_is_a, "old", "new").tolist(),
    )


def test_the_controlled_win_rate_is_what_is_left_at_equal_motion() -> None:
    """A judge that likes stillness (-1) gives the still model wins; at equal motion it wins sigma(0.3) = 57 %."""
    check = controlled_win_rate(contest(-1.0, 0.3), model="new", other="old", seed=0)
    assert check.estimate is not None and check.estimate.low is not None and check.estimate.high is not None
    assert check.estimate.low <= 1 / (1 + np.exp(-0.3)) <= check.estimate.high
    assert check.against > check.estimate.value + 0.05
    assert check.alarm
    turned = controlled_win_rate(contest(-1.0, 0.3), model="old", other="new", seed=0)
    assert turned.estimate is not None
    assert turned.estimate.value == pytest.approx(1 - check.estimate.value)
    assert turned.against == pytest.approx(1 - check.against)


def test_without_motion_bias_the_controlled_win_rate_is_the_counted_one() -> None:
    check = controlled_win_rate(contest(0.0, 0.5, num_prompts=1500), model="new", other="old", seed=0)
    assert check.estimate is not None
    assert check.estimate.value == pytest.approx(check.against, abs=0.05)
    assert not check.alarm


def test_models_that_never_met_are_refused() -> None:
    with pytest.raises(BadInput, match="no decided pair is of 'new' and 'third'"):
        controlled_win_rate(contest(0.0, 0.5, num_prompts=30), model="new", other="third", seed=0)
    with pytest.raises(BadInput, match="which model made each clip"):
        controlled_win_rate(annotators(0.0, np.random.default_rng(0)), model="a", other="b", seed=0)


def test_alignment_ratio_by_hand() -> None:
    """Aligned: prompt means 1 and 3, so 2. Independent: means 4 (of 2 and 6) and 6, so 5. The ratio is 0.4."""
    aligned = {("p0", 0): 1.0, ("p1", 0): 3.0, ("p2", 0): None}
    independent = {("p0", 0): 2.0, ("p0", 1): 6.0, ("p1", 0): 6.0}
    check = alignment_ratio(aligned, independent, seed=0)
    assert check.estimate is not None
    assert check.estimate.value == pytest.approx(0.4)
    assert (check.estimate.num_values, check.estimate.num_excluded) == (5, 1)
    assert not check.alarm
    assert alignment_ratio(independent, aligned, seed=0).alarm


def test_alignment_ratio_has_an_interval_and_needs_both_kinds() -> None:
    rng = np.random.default_rng(0)
    aligned = {(f"p{i}", 0): float(v) for i, v in enumerate(rng.gamma(4, 0.25, 60))}
    independent = {(f"q{i}", 0): float(v) for i, v in enumerate(rng.gamma(4, 1.0, 60))}
    check = alignment_ratio(aligned, independent, seed=0)
    assert check.estimate is not None and check.estimate.low is not None and check.estimate.high is not None
    assert check.estimate.low < 0.25 < check.estimate.high < 0.4
    assert alignment_ratio(aligned, {}, seed=0).estimate is None
    with pytest.raises(BadInput, match="distances are 0 or more"):
        alignment_ratio({("p", 0): -1.0}, independent, seed=0)


def test_motion_that_is_lost_on_the_same_prompts_is_an_alarm() -> None:
    rng = np.random.default_rng(0)
    before = {(f"p{i}", 0): float(v) for i, v in enumerate(rng.normal(10, 2, 40))}
    less = {key: value - 0.5 + 0.3 * float(rng.standard_normal()) for key, value in before.items()}
    assert motion_drift(before, less, seed=0).alarm
    assert not motion_drift(less, before, seed=0).alarm
    assert not motion_drift(before, before, seed=0).alarm
    with pytest.raises(BadInput, match="not the same prompts and seeds"):
        motion_drift(before, {}, seed=0)


def test_columns_that_do_not_fit_are_refused() -> None:
    one = np.array([1.0])
    with pytest.raises(BadInput, match="lengths"):
        JudgedPairs(prompt=["p", "q"], answer=np.array([1]), motion_a=one, motion_b=one)
    with pytest.raises(BadInput, match="an answer is"):
        JudgedPairs(prompt=["p"], answer=np.array([2]), motion_a=one, motion_b=one)
    with pytest.raises(BadInput, match="finite"):
        JudgedPairs(prompt=["p"], answer=np.array([1]), motion_a=one, motion_b=one * np.nan)
    with pytest.raises(BadInput, match="models of both sides"):
        JudgedPairs(prompt=["p"], answer=np.array([1]), motion_a=one, motion_b=one, model_a=["m"])
