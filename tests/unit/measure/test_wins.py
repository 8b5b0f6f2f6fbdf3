"""Wins prompt by prompt: who wins, what is a tie, and when the page calls nobody the winner."""

from __future__ import annotations

import pytest

from densedpo.core.errors import BadInput
from densedpo.measure.numbers import AT_LEAST
from densedpo.measure.wins import Wins, outcomes, win_bar
from densedpo.metrics.power import Detectable
from densedpo.metrics.rates import win_rate

BASE = {("a", 0): 0.50, ("b", 0): 0.50, ("c", 0): 0.50, ("d", 0): None}
OTHER = {("a", 0): 0.53, ("b", 0): 0.51, ("c", 0): 0.40, ("d", 0): 0.9}


def test_scores_closer_than_the_margin_tie_and_missing_ones_are_neither() -> None:
    found = outcomes(BASE, OTHER, margin=0.02, goal="higher")
    assert found == {("a", 0): 1, ("b", 0): 0, ("c", 0): -1, ("d", 0): None}


def test_where_lower_is_better_the_lower_wins() -> None:
    found = outcomes(BASE, OTHER, margin=0.02, goal="lower")
    assert found == {("a", 0): -1, ("b", 0): 0, ("c", 0): 1, ("d", 0): None}


def test_a_difference_of_exactly_the_margin_is_a_tie() -> None:
    assert outcomes({("a", 0): 0.0}, {("a", 0): 0.25}, margin=0.25, goal="higher") == {("a", 0): 0}


def test_other_prompts_are_refused() -> None:
    with pytest.raises(BadInput, match="not the same prompts and seeds"):
        outcomes(BASE, {("a", 0): 0.5}, margin=0.02, goal="higher")


def wins(signs: list[int]) -> Wins:
    rate = win_rate({(f"p{i}", 0): sign for i, sign in enumerate(signs)}, seed=0, num_draws=500)
    seen = Detectable(value=0.66, n=len(signs), num_excluded=0, power=0.8, alpha=0.05, method="made up")
    return Wins(base="base", other="dense", metric="visual_quality", margin=0.02, rate=rate, detectable=seen)


def test_nobody_wins_where_the_interval_holds_one_half() -> None:
    """12 wins, 4 ties and 10 losses: (12 + 2) / 26 = 53.8 %."""
    bar = win_bar(wins([1] * 12 + [0] * 4 + [-1] * 10))
    assert bar is not None and bar.is_even
    assert (bar.wins, bar.ties, bar.losses, bar.score) == (12, 4, 10, "53.8 %")
    assert bar.note == f"not significant at n=26, would see {AT_LEAST} 66 % of decided clips"
    assert bar.win_share + bar.tie_share + bar.loss_share == pytest.approx(100)


def test_a_clear_win_is_counted_with_its_ties() -> None:
    bar = win_bar(wins([1] * 20 + [0] * 4 + [-1] * 2))
    assert bar is not None and not bar.is_even
    assert bar.note == "n = 26 prompts"
    assert bar.alt == "Visual quality: dense wins 20, ties 4 and loses 2 against base"


def test_a_score_that_nobody_has_makes_no_bar() -> None:
    nothing = Wins(base="base", other="dense", metric="visual_quality", margin=0.02, rate=None, detectable=None)
    assert win_bar(nothing) is None
