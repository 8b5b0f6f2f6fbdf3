"""Strengths against hand-worked fits, planted ones and comparisons that have none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from densedpo.core.errors import BadInput
from densedpo.metrics.ranking import Comparison, Ranking, TieModel, chances, rank


def match(first: str, second: str, *, wins: int = 0, ties: int = 0, losses: int = 0) -> list[Comparison]:
    outcomes = [1] * wins + [0] * ties + [-1] * losses
    return [
        Comparison(first=first, second=second, outcome=outcome, cluster=f"{first}-{second}-{i}")
        for i, outcome in enumerate(outcomes)
    ]


def strengths(found: Ranking) -> dict[str, float]:
    return {own.name: own.log_strength.value for own in found.strengths}


def planted(
    rng: np.random.Generator, log_strengths: dict[str, float], *, prompts: int, tie_model: TieModel, tie: float
) -> list[Comparison]:
    """Every pairing once a prompt, with outcomes of the model itself."""
    names = list(log_strengths)
    found = []
    for k in range(prompts):
        for i, first in enumerate(names):
            for second in names[i + 1 :]:
                own = chances(log_strengths[first] - log_strengths[second], tie_model=tie_model, tie_parameter=tie)
                outcome = int(rng.choice([1, 0, -1], p=[own.win, own.tie, own.loss]))
                found.append(Comparison(first=first, second=second, outcome=outcome, cluster=f"p{k:03d}"))
    return found


def test_two_models_without_ties_have_the_log_odds() -> None:
    """30 of 40 won: a difference of log 3, half of it on each side."""
    for tie_model in ("davidson", "rao_kupper"):
        found = rank(match("a", "b", wins=30, losses=10), seed=0, tie_model=tie_model, num_draws=50)
        assert strengths(found) == pytest.approx({"a": math.log(3) / 2, "b": -math.log(3) / 2}, abs=1e-5)
        assert found.tie_parameter.value == (0.0 if tie_model == "davidson" else 1.0)
        assert found.log_likelihood == pytest.approx(30 * math.log(0.75) + 10 * math.log(0.25), abs=1e-8)


def test_davidson_by_hand() -> None:
    """16 wins, 8 ties, 4 losses: pi_a / pi_b = 16 / 4, nu = 8 / sqrt(16 x 4) = 1."""
    found = rank(match("a", "b", wins=16, ties=8, losses=4), seed=0, num_draws=50)
    assert strengths(found)["a"] - strengths(found)["b"] == pytest.approx(math.log(4), abs=1e-5)
    assert found.tie_parameter.value == pytest.approx(1.0, abs=1e-5)


def test_rao_kupper_by_hand() -> None:
    """60 wins, 30 ties, 10 losses: logit 0.6 = d - log theta, logit 0.1 = -d - log theta.

    d = (log 1.5 + log 9) / 2 and theta = sqrt(9 / 1.5) = sqrt(6).
    """
    found = rank(match("a", "b", wins=60, ties=30, losses=10), seed=0, tie_model="rao_kupper", num_draws=50)
    assert strengths(found)["a"] - strengths(found)["b"] == pytest.approx(math.log(13.5) / 2, abs=1e-5)
    assert found.tie_parameter.value == pytest.approx(math.sqrt(6), abs=1e-4)


def test_chances_sum_to_one_and_match_their_equations() -> None:
    """Strengths 4 and 1: Davidson with nu = 1 gives 4 : 2 : 1, Rao-Kupper with theta = 2 gives 4/6 and 1/9."""
    own = chances(math.log(4), tie_model="davidson", tie_parameter=1.0)
    assert (own.win, own.tie, own.loss) == pytest.approx((4 / 7, 2 / 7, 1 / 7))
    own = chances(math.log(4), tie_model="rao_kupper", tie_parameter=2.0)
    assert (own.win, own.loss) == pytest.approx((4 / 6, 1 / 9))
    assert own.tie == pytest.approx((2**2 - 1) * 4 / ((4 + 2) * (1 + 2 * 4)))
    with pytest.raises(BadInput, match="at least 1"):
        chances(0.0, tie_model="rao_kupper", tie_parameter=0.5)


@pytest.mark.parametrize(("tie_model", "tie"), [("davidson", 0.8), ("rao_kupper", 1.8)])
def test_planted_strengths_lie_in_their_intervals(tie_model: TieModel, tie: float) -> None:
    truth = {"best": 0.9, "good": 0.3, "fair": -0.2, "poor": -1.0}
    matches = planted(np.random.default_rng(1), truth, prompts=150, tie_model=tie_model, tie=tie)
    found = rank(matches, seed=0, tie_model=tie_model, num_draws=120)
    assert [own.name for own in found.strengths] == ["best", "good", "fair", "poor"]
    for own in found.strengths:
        assert own.log_strength.low is not None and own.log_strength.high is not None
        assert own.log_strength.low <= truth[own.name] <= own.log_strength.high
        assert own.log_strength.high - own.log_strength.low < 0.8
        assert own.rank_low is not None and own.rank_high is not None
        assert own.rank_low <= own.rank <= own.rank_high
    assert found.tie_parameter.low is not None and found.tie_parameter.high is not None
    assert found.tie_parameter.low <= tie <= found.tie_parameter.high
    assert found.strengths[0].log_strength.n == 150 and found.strengths[0].log_strength.num_values == 900


@pytest.mark.slow
@pytest.mark.parametrize(("tie_model", "tie"), [("davidson", 0.8), ("rao_kupper", 1.8)])
def test_intervals_of_strengths_cover(tie_model: TieModel, tie: float) -> None:
    """150 studies of three models: 95 % of intervals hold the truth; four standard errors are 7 points."""
    truth = {"a": 0.5, "b": 0.0, "c": -0.5}
    rng = np.random.default_rng(2)
    held = 0
    for i in range(150):
        matches = planted(rng, truth, prompts=60, tie_model=tie_model, tie=tie)
        best = {
            own.name: own.log_strength for own in rank(matches, seed=i, tie_model=tie_model, num_draws=200).strengths
        }
        assert best["a"].low is not None and best["a"].high is not None
        held += best["a"].low <= 0.5 <= best["a"].high
    assert 0.88 <= held / 150 <= 0.995


def test_equal_models_share_their_ranks() -> None:
    matches = planted(np.random.default_rng(3), {"a": 0.0, "b": 0.0}, prompts=40, tie_model="davidson", tie=0.5)
    assert {(own.rank_low, own.rank_high) for own in rank(matches, seed=0, num_draws=100).strengths} == {(1, 2)}


def test_swapping_the_sides_changes_nothing() -> None:
    matches = planted(
        np.random.default_rng(4), {"a": 0.5, "b": 0.0, "c": -0.5}, prompts=30, tie_model="davidson", tie=0.5
    )
    swapped = [
        Comparison(
            first=own.second,
            second=own.first,
            outcome=None if own.outcome is None else -own.outcome,
            cluster=own.cluster,
        )
        for own in reversed(matches)
    ]
    assert rank(matches, seed=0, num_draws=20) == rank(swapped, seed=0, num_draws=20)


def test_groups_that_never_met_are_refused_by_name() -> None:
    apart = match("a", "b", wins=3, losses=2) + match("c", "d", wins=2, losses=3)
    with pytest.raises(BadInput, match=r"joins the groups \{a, b\} and \{c, d\}"):
        rank(apart, seed=0)
    with pytest.raises(BadInput, match=r"joins the groups \{a, b\} and \{c, d\}"):
        rank(apart, seed=0, ridge=1.0)


def test_a_group_that_never_lost_is_refused_by_name_and_a_ridge_helps() -> None:
    one_way = match("a", "b", wins=5, losses=5) + match("a", "c", wins=4) + match("b", "c", wins=3)
    with pytest.raises(BadInput, match=r"between the groups \{a, b\} and \{c\} one side never lost"):
        rank(one_way, seed=0)
    found = rank(one_way, seed=0, ridge=0.5, num_draws=20)
    assert found.strengths[-1].name == "c" and math.isfinite(found.strengths[-1].log_strength.value)
    assert "ridge 0.5" in found.strengths[0].log_strength.method


def test_a_tie_is_enough_to_connect() -> None:
    found = rank(match("a", "b", wins=6, ties=1), seed=0, num_draws=20)
    assert found.strengths[0].name == "a"
    assert math.isfinite(found.strengths[0].log_strength.value)
    assert found.strengths[0].log_strength.low is None  # a third of the draws hold no tie, and have no strengths
    assert "undefined in" in found.strengths[0].log_strength.method


def test_ridge_pulls_towards_equal() -> None:
    matches = match("a", "b", wins=30, losses=10)
    free, pulled = (strengths(rank(matches, seed=0, ridge=ridge, num_draws=10))["a"] for ridge in (0.0, 20.0))
    assert 0 < pulled < 0.7 * free


def test_missing_outcomes_are_counted_and_bad_ones_refused() -> None:
    matches = match("a", "b", wins=5, losses=5)
    nothing = Comparison(first="a", second="b", outcome=None, cluster="x")
    found = rank([*matches, nothing], seed=0, num_draws=10)
    assert found.strengths[0].log_strength.num_excluded == 1
    with pytest.raises(BadInput, match="all comparisons are ties"):
        rank(match("a", "b", ties=4), seed=0)
    with pytest.raises(BadInput, match="a is compared with itself"):
        rank([*matches, Comparison(first="a", second="a", outcome=1, cluster="x")], seed=0)
    with pytest.raises(BadInput, match="cluster x is 2"):
        rank([*matches, Comparison(first="a", second="b", outcome=2, cluster="x")], seed=0)
    with pytest.raises(BadInput, match="fewer than two models"):
        rank([], seed=0)
    with pytest.raises(BadInput, match=r"joins the groups \{a\} and \{b\}"):
        rank([nothing], seed=0)
