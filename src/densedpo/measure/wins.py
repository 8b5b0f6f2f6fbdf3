"""How often one model's clip beats the other's, prompt by prompt: what a mean cannot say.

A mean rises when a few clips gain much, a win rate when many gain a little. Clips whose scores are closer than a margin
are a tie.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from densedpo.measure.config import CompareConfig
from densedpo.measure.numbers import AT_LEAST
from densedpo.measure.records import Measured
from densedpo.measure.score import METRICS, Goal
from densedpo.metrics.power import Detectable, observed_detectable_win_rate
from densedpo.metrics.rates import WinRate, win_rate
from densedpo.metrics.statistics import Key, differences


@dataclass(frozen=True, kw_only=True, slots=True)
class Wins:
    """How often `other` beats `base` in one score, on the same prompts and seeds.

    Scores that differ by `margin` or less are a tie. `rate` is None where nothing was computed; `detectable` is the
    smallest win rate that these clips could have told from one half.
    """

    base: str
    other: str
    metric: str
    margin: float
    rate: WinRate | None
    detectable: Detectable | None


def wins_between(base: Measured, other: Measured, config: CompareConfig) -> list[Wins]:
    """The wins of `other` over `base` in every score that has a margin.

    Raises:
        BadInput: the two do not hold the same prompts and seeds.
    """
    found = []
    for metric in METRICS:
        margin = config.win_margins.get(metric.key)
        if margin is None:
            continue
        scored = outcomes(base.values(metric.key), other.values(metric.key), margin=margin, goal=metric.goal)
        found.append(
            Wins(
                base=base.name,
                other=other.name,
                metric=metric.key,
                margin=margin,
                rate=win_rate(scored, seed=config.seed, num_draws=config.num_draws),
                detectable=observed_detectable_win_rate(scored, seed=config.seed),
            )
        )
    return found


def outcomes(
    base: Mapping[Key, float | None], other: Mapping[Key, float | None], *, margin: float, goal: Goal
) -> dict[Key, int | None]:
    """+1 where `other` is better by more than the margin, -1 where `base` is, 0 for a tie, None without a score.

    Raises:
        BadInput: the two do not hold the same prompts and seeds.
    """
    sign = -1 if goal == "lower" else 1
    return {
        key: None if change is None else 0 if abs(change) <= margin else sign * (1 if change > 0 else -1)
        for key, change in differences(base, other).items()
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class WinBar:
    """Wins, ties and losses as shares of a bar, in percent, with the numbers beside it as text."""

    metric: str
    margin: str
    wins: int
    ties: int
    losses: int
    win_share: float
    tie_share: float
    loss_share: float
    score: str
    interval: str
    note: str
    is_even: bool
    """Whether the interval of the score holds one half: nobody is shown to win."""
    alt: str


def win_bar(wins: Wins) -> WinBar | None:
    """The bar of a win rate; None where nothing was computed."""
    rate = wins.rate
    if rate is None:
        return None
    label = next(metric.label for metric in METRICS if metric.key == wins.metric)
    total = rate.wins + rate.ties + rate.losses
    low, high = rate.score.low, rate.score.high
    is_even = low is None or high is None or low <= 0.5 <= high
    note = f"n = {rate.score.n} prompts"
    if total != rate.score.n:
        note += f", {total} clips"
    if rate.score.num_excluded:
        note += f", {rate.score.num_excluded} excluded"
    if is_even:
        note = f"not significant at n={rate.score.n}" + (f" prompts, {total} clips" if total != rate.score.n else "")
        if wins.detectable is not None:
            note += f", would see {AT_LEAST} {100 * wins.detectable.value:.0f} % of decided clips"
    return WinBar(
        metric=label,
        margin=f"{wins.margin:g}",
        wins=rate.wins,
        ties=rate.ties,
        losses=rate.losses,
        win_share=100 * rate.wins / total,
        tie_share=100 * rate.ties / total,
        loss_share=100 * rate.losses / total,
        score=f"{100 * rate.score.value:.1f} %",
        interval="no interval" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f} %",
        note=note,
        is_even=is_even,
        alt=f"{label}: {wins.other} wins {rate.wins}, ties {rate.ties} and loses {rate.losses} against {wins.base}",
    )
