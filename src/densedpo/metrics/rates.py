"""Win rates with ties, and tests of paired yes-or-no outcomes.

A tie is an outcome of its own: a win rate is quoted with its wins, ties and losses. Judgements that share a prompt are
not independent, so Wilson and Dirichlet serve only where every prompt has one judgement; else whole prompts are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from densedpo.core.errors import BadInput
from densedpo.metrics.statistics import (
    LEVEL,
    NUM_DRAWS,
    Bounds,
    Estimate,
    Key,
    PValue,
    check_same_keys,
    resampled_bounds,
)

WIN, TIE, LOSS = 0, 1, 2  # columns of the counts by prompt


@dataclass(frozen=True, kw_only=True, slots=True)
class WinRate:
    """How often one side won, with its ties: W, T, L, w = W / (W + L) and s = (W + T / 2) / n.

    `decided` (w) is None where every judgement was a tie. `win_share`, `tie_share` and `loss_share` are of all n.
    """

    wins: int
    ties: int
    losses: int
    decided: Estimate | None
    score: Estimate
    win_share: Estimate
    tie_share: Estimate
    loss_share: Estimate


def win_rate(
    outcomes: Mapping[Key, int | None], *, seed: int, num_draws: int = NUM_DRAWS, level: float = LEVEL
) -> WinRate | None:
    """Win rate with ties from +1 (win), 0 (tie) and -1 (loss) by prompt and number of the judgement.

    One judgement a prompt: Wilson for w, Dirichlet(1, 1, 1) for the three shares. More: a bootstrap over prompts that
    keeps all judgements of a drawn prompt. s always has the bootstrap: with ties it is no binomial share.

    Args:
        outcomes: None where there is no usable judgement.

    Returns:
        None if there is no judgement at all.

    Raises:
        BadInput: an outcome other than -1, 0, 1.
    """
    counts = _counts_by_prompt(outcomes)
    if not len(counts):
        return None
    wins, ties, losses = (int(total) for total in counts.sum(axis=0))
    sample = _Sample(
        counts=counts, num_excluded=len(outcomes) - int(counts.sum()), seed=seed, num_draws=num_draws, level=level
    )
    return WinRate(
        wins=wins,
        ties=ties,
        losses=losses,
        decided=_decided(sample),
        score=_ratio(sample, numerator=(1.0, 0.5, 0.0), name="(wins + half of the ties) / judgements"),
        win_share=_share(sample, WIN, "wins"),
        tie_share=_share(sample, TIE, "ties"),
        loss_share=_share(sample, LOSS, "losses"),
    )


@lru_cache(maxsize=4096)  # a table of many people asks for the same small numbers again and again
def wilson(successes: int, n: int, *, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's interval for a share of independent yes-or-no outcomes (Wilson 1927).

    Raises:
        BadInput: not 0 <= successes <= n with n >= 1.
    """
    if not 0 <= successes <= n or n < 1:
        raise BadInput(f"{successes} of {n} is no share; give 0 <= successes <= n and n >= 1")
    interval = stats.binomtest(successes, n).proportion_ci(confidence_level=level, method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True, kw_only=True, slots=True)
class McNemar:
    """Prompts on which only the first, or only the second, succeeded, and the exact p-value of no difference."""

    only_first: int
    only_second: int
    both: int
    neither: int
    test: PValue


def mcnemar(first: Mapping[Key, bool | None], second: Mapping[Key, bool | None]) -> McNemar | None:
    """Exact McNemar test of two yes-or-no outcomes on the same prompts: a binomial test of the prompts that differ.

    Returns:
        None if no prompt has both outcomes.

    Raises:
        BadInput: the two do not hold the same keys, or a prompt appears twice: its clips are not independent.
    """
    check_same_keys(first, second)
    prompts = [prompt for prompt, _ in first]
    if len(set(prompts)) < len(prompts):
        twice = next(prompt for prompt in prompts if prompts.count(prompt) > 1)
        raise BadInput(
            f"prompt {twice} has several outcomes, which McNemar's test takes for independent; "
            "give one outcome a prompt, or compare shares with paired_difference"
        )
    table = np.zeros((2, 2), dtype=np.int64)
    for key, left in first.items():
        right = second[key]
        if left is not None and right is not None:
            table[int(left), int(right)] += 1
    n = int(table.sum())
    if n == 0:
        return None
    only_first, only_second = int(table[1, 0]), int(table[0, 1])
    differing = only_first + only_second
    p = float(stats.binomtest(only_first, differing, 0.5).pvalue) if differing else 1.0
    return McNemar(
        only_first=only_first,
        only_second=only_second,
        both=int(table[1, 1]),
        neither=int(table[0, 0]),
        test=PValue(p=p, n=n, num_excluded=len(first) - n, method="exact McNemar, two-sided"),
    )


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values (Holm 1979): together they keep the chance of any false claim under the level.

    Raises:
        BadInput: a p-value outside [0, 1].
    """
    for name, p in p_values.items():
        if not 0 <= p <= 1:
            raise BadInput(f"the p-value of {name} is {p}; a p-value lies in [0, 1]")
    if not p_values:
        return {}
    from statsmodels.stats.multitest import multipletests

    adjusted = multipletests(list(p_values.values()), method="holm")[1]
    return {name: float(p) for name, p in zip(p_values, adjusted, strict=True)}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sample:
    counts: NDArray[np.float64]  # (prompt, WIN | TIE | LOSS)
    num_excluded: int
    seed: int
    num_draws: int
    level: float

    @property
    def one_each(self) -> bool:
        return bool((self.counts.sum(axis=1) == 1).all())

    def estimate(self, value: float, bounds: Bounds, name: str, *, num_values: int, n: int) -> Estimate:
        return Estimate(
            value=value,
            low=bounds.low,
            high=bounds.high,
            n=n,
            num_values=num_values,
            num_excluded=self.num_excluded,
            method=f"{name}; {bounds.method}",
            seed=self.seed,
            level=self.level,
        )


def _counts_by_prompt(outcomes: Mapping[Key, int | None]) -> NDArray[np.float64]:
    by_prompt: dict[str, list[int]] = {}
    for (prompt, number), outcome in outcomes.items():
        if outcome is None:
            continue
        if outcome not in (-1, 0, 1):
            raise BadInput(
                f"the outcome of prompt {prompt} number {number} is {outcome}; give 1 (win), 0 (tie), -1 (loss) or None"
            )
        by_prompt.setdefault(prompt, [0, 0, 0])[1 - outcome] += 1
    return np.array([by_prompt[prompt] for prompt in sorted(by_prompt)], dtype=np.float64)


def _decided(sample: _Sample) -> Estimate | None:
    wins, losses = int(sample.counts[:, WIN].sum()), int(sample.counts[:, LOSS].sum())
    if wins + losses == 0:
        return None
    if not sample.one_each:
        return _ratio(sample, numerator=(1.0, 0.0, 0.0), denominator=(1.0, 0.0, 1.0), name="wins / (wins + losses)")
    low, high = wilson(wins, wins + losses, level=sample.level)
    bounds = Bounds(low=low, high=high, method="Wilson over prompts")
    num_values = wins + losses
    return sample.estimate(wins / num_values, bounds, "wins / (wins + losses)", num_values=num_values, n=num_values)


def _share(sample: _Sample, column: int, name: str) -> Estimate:
    label = f"{name} / judgements"
    if not sample.one_each:
        numerator = [0.0, 0.0, 0.0]
        numerator[column] = 1.0
        return _ratio(sample, numerator=(numerator[0], numerator[1], numerator[2]), name=label)
    count, n = int(sample.counts[:, column].sum()), len(sample.counts)
    tail = (1 - sample.level) / 2
    low, high = stats.beta.ppf([tail, 1 - tail], count + 1, n - count + 2)  # a Dirichlet's share is a beta variable
    share = count / n
    # the posterior of a share of 0 or 1 lies inside (0, 1): the interval is carried to what was seen
    bounds = Bounds(low=min(float(low), share), high=max(float(high), share), method="Dirichlet(1, 1, 1) over prompts")
    return sample.estimate(share, bounds, label, num_values=n, n=n)


def _ratio(
    sample: _Sample,
    *,
    numerator: tuple[float, float, float],
    denominator: tuple[float, float, float] = (1.0, 1.0, 1.0),
    name: str,
) -> Estimate:
    """A ratio of sums over judgements, with whole prompts drawn."""
    above, below = sample.counts @ np.array(numerator), sample.counts @ np.array(denominator)

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):  # a draw without decided judgements is undefined: NaN
            ratio: NDArray[np.float64] = (weights @ above) / (weights @ below)
        return ratio

    bounds = resampled_bounds(
        statistic,
        num_units=len(above),
        unit="prompts",
        seed=sample.seed,
        num_draws=sample.num_draws,
        level=sample.level,
    )
    return sample.estimate(
        float(math.fsum(above) / math.fsum(below)), bounds, name, num_values=int(below.sum()), n=len(above)
    )
