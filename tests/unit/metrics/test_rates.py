"""Win rates, paired tests and multiplicity against worked examples, and the coverage of their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from densedpo.core.errors import BadInput
from densedpo.metrics.rates import holm, mcnemar, wilson, win_rate
from densedpo.metrics.statistics import Key


def outcomes(*, wins: int, ties: int, losses: int) -> dict[Key, int | None]:
    """One judgement a prompt."""
    signs = [1] * wins + [0] * ties + [-1] * losses
    return {(f"p{i:04d}", 0): sign for i, sign in enumerate(signs)}


def null_outcomes(rng: np.random.Generator, *, prompts: int, judgements: int, sd: float) -> dict[Key, int | None]:
    """No difference on average; a prompt's own leaning is logit-normal."""
    rates = 1 / (1 + np.exp(-sd * rng.standard_normal(prompts)))
    won = rng.random((prompts, judgements)) < rates[:, None]
    return {(f"p{i:04d}", j): int(won[i, j]) * 2 - 1 for i in range(prompts) for j in range(judgements)}


def share_of_false_claims(*, runs: int, prompts: int, judgements: int, sd: float) -> tuple[float, float]:
    """How often the bootstrap over prompts, and Wilson over judgements, exclude a true one half."""
    rng = np.random.default_rng(20)
    clustered = naive = 0
    for i in range(runs):
        drawn = null_outcomes(rng, prompts=prompts, judgements=judgements, sd=sd)
        found = win_rate(drawn, seed=i, num_draws=400)
        assert found is not None and found.decided is not None
        assert found.decided.low is not None and found.decided.high is not None
        clustered += not found.decided.low <= 0.5 <= found.decided.high
        low, high = wilson(found.wins, found.wins + found.losses)
        naive += not low <= 0.5 <= high
    return clustered / runs, naive / runs


def test_win_rate_counts_ties_by_hand() -> None:
    """50 wins, 20 ties, 30 losses: w = 50 / 80, s = (50 + 10) / 100."""
    found = win_rate(outcomes(wins=50, ties=20, losses=30), seed=0)
    assert found is not None and found.decided is not None
    assert (found.wins, found.ties, found.losses) == (50, 20, 30)
    assert found.decided.value == pytest.approx(0.625)
    assert found.score.value == pytest.approx(0.6)
    shares = (found.win_share.value, found.tie_share.value, found.loss_share.value)
    assert shares == pytest.approx((0.5, 0.2, 0.3))
    assert (found.decided.n, found.score.n) == (80, 100)


def test_wilson_matches_its_equation() -> None:
    """(p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n) for 81 of 263, as in Newcombe (1998), who
    prints 0.2553 to 0.3662."""
    z, n = 1.959963984540054, 263
    p = 81 / n
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = wilson(81, n)
    assert (low, high) == pytest.approx(
        ((centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)), abs=1e-9
    )
    assert (low, high) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_one_judgement_a_prompt_uses_wilson_and_dirichlet() -> None:
    """Of Dirichlet(8, 1, 4) the win share is Beta(8, 5): its mean 8 / 13 lies inside. No tie: the interval starts at 0,
    and 1 - 0.025^(1 / 12) = 0.2646 is the upper quantile of Beta(1, 12)."""
    found = win_rate(outcomes(wins=7, ties=0, losses=3), seed=0)
    assert found is not None and found.decided is not None
    assert "Wilson" in found.decided.method and "Dirichlet" in found.win_share.method
    assert (found.decided.low, found.decided.high) == pytest.approx(wilson(7, 10))
    assert found.win_share.low is not None and found.win_share.high is not None
    assert found.win_share.low < 8 / 13 < found.win_share.high
    assert found.tie_share.low == 0
    assert found.tie_share.high == pytest.approx(1 - 0.025 ** (1 / 12), abs=1e-9)


def test_several_judgements_a_prompt_are_drawn_with_their_prompt() -> None:
    """Forty prompts judged five times the same way are forty values, not two hundred."""
    repeated = {(f"p{i}", j): 1 if i % 2 else -1 for i in range(40) for j in range(5)}
    single = {(f"p{i}", 0): 1 if i % 2 else -1 for i in range(40)}
    many, one = win_rate(dict(repeated), seed=0), win_rate(dict(single), seed=0)
    assert many is not None and many.decided is not None and one is not None and one.decided is not None
    assert many.decided.n == 40 and many.decided.num_values == 200
    assert "bootstrap over prompts" in many.decided.method
    assert many.decided.low is not None and one.decided.low is not None
    assert many.decided.low == pytest.approx(one.decided.low, abs=0.03)


def test_all_ties_have_no_decided_rate_and_half_a_score() -> None:
    found = win_rate(outcomes(wins=0, ties=12, losses=0), seed=0)
    assert found is not None
    assert found.decided is None
    assert (found.score.value, found.score.low, found.score.high) == pytest.approx((0.5, 0.5, 0.5))


def test_missing_judgements_are_counted_and_nothing_is_none() -> None:
    drawn = outcomes(wins=3, ties=1, losses=2) | {("q", 0): None, ("q", 1): None}
    found = win_rate(drawn, seed=0)
    assert found is not None and found.score.num_excluded == 2 and found.score.num_values == 6
    assert win_rate({("q", 0): None}, seed=0) is None
    with pytest.raises(BadInput, match="prompt q number 0 is 2"):
        win_rate({("q", 0): 2}, seed=0)
    with pytest.raises(BadInput, match="5 of 4"):
        wilson(5, 4)


def test_swapping_sides_mirrors_the_rates() -> None:
    drawn = null_outcomes(np.random.default_rng(3), prompts=30, judgements=3, sd=1)
    mirrored: dict[Key, int | None] = {key: -sign for key, sign in drawn.items() if sign is not None}
    here, there = win_rate(drawn, seed=5), win_rate(mirrored, seed=5)
    assert here is not None and here.decided is not None and there is not None and there.decided is not None
    assert here.decided.value == pytest.approx(1 - there.decided.value)
    assert here.win_share.low == pytest.approx(there.loss_share.low)


def test_false_claims_are_rare_by_prompt_and_not_by_judgement() -> None:
    clustered, naive = share_of_false_claims(runs=120, prompts=128, judgements=5, sd=1.0)
    assert 0.01 <= clustered <= 0.11
    assert 0.06 <= naive <= 0.20
    assert naive > clustered


@pytest.mark.slow
def test_false_claims_at_length() -> None:
    """The naive rates are 12.3, 24.4 and 32.1 % in 1500 runs; four standard errors of two such runs are 7 points.

    1500 runs put a rate of 5 % at +-1.1 points (two errors), too coarse for a band of 4 to 6 %; the 4500 of all three
    designs put it at +-0.65. Each design alone is held to four errors.
    """
    expected = {(5, 1.0): 0.123, (5, 2.0): 0.244, (15, 1.0): 0.321}
    clustered = []
    for (judgements, sd), naive_expected in expected.items():
        own, naive = share_of_false_claims(runs=1500, prompts=128, judgements=judgements, sd=sd)
        assert naive == pytest.approx(naive_expected, abs=0.07)
        assert 0.028 <= own <= 0.072
        clustered.append(own)
    assert 0.04 <= sum(clustered) / len(clustered) <= 0.06, clustered


def test_mcnemar_by_hand() -> None:
    """9 prompts only for the first and 1 only for the second: 2 * (1 + 10) / 2^10 = 0.021484375."""
    pairs = [(True, False)] * 9 + [(False, True)] + [(True, True)] * 5 + [(False, False)] * 4
    first: dict[Key, bool | None] = {(f"p{i}", 0): a for i, (a, _) in enumerate(pairs)} | {("missing", 0): None}
    second: dict[Key, bool | None] = {(f"p{i}", 0): b for i, (_, b) in enumerate(pairs)} | {("missing", 0): True}
    found = mcnemar(first, second)
    assert found is not None
    assert (found.only_first, found.only_second, found.both, found.neither) == (9, 1, 5, 4)
    assert found.test.p == pytest.approx(0.021484375)
    assert (found.test.n, found.test.num_excluded) == (19, 1)


def test_mcnemar_without_a_difference_and_with_repeats() -> None:
    same: dict[Key, bool | None] = {("p", 0): True, ("q", 0): False}
    found = mcnemar(same, same)
    assert found is not None and found.test.p == 1.0
    assert mcnemar({("p", 0): None}, {("p", 0): True}) is None
    with pytest.raises(BadInput, match="prompt p has several outcomes"):
        mcnemar({("p", 0): True, ("p", 1): True}, {("p", 0): True, ("p", 1): True})


def test_holm_by_hand() -> None:
    """0.01 x 3 = 0.03; 0.02 x 2 = 0.04; 0.04 x 1 = 0.04: no smaller than the one before. Order of names is kept."""
    adjusted = holm({"motion": 0.04, "quality": 0.01, "text": 0.02})
    assert list(adjusted) == ["motion", "quality", "text"]
    assert adjusted == pytest.approx({"motion": 0.04, "quality": 0.03, "text": 0.04})
    assert holm({}) == {}
    with pytest.raises(BadInput, match=r"p-value of motion is 1\.5"):
        holm({"motion": 1.5})
