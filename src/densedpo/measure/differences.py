"""Two reports against each other, metric by metric: how large a difference, and what may be said of it.

What is claimed is held to more than its own interval: Holm's correction runs over the claims of one comparison. What is
not claimed keeps its own interval, and is exploratory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from densedpo.measure.config import CompareConfig
from densedpo.measure.records import Measured
from densedpo.measure.score import METRICS, Goal
from densedpo.metrics.equivalence import Equivalence, equivalence
from densedpo.metrics.power import Detectable, observed_detectable_difference
from densedpo.metrics.rates import holm
from densedpo.metrics.statistics import LEVEL, Estimate, PValue, difference_p_value, paired_difference

Verdict = Literal["better", "worse", "more", "less", "not significant", "not computed"]

ALPHA: Final = 1 - LEVEL


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A test that is one of several in a comparison: `p_holm` is its p-value, corrected over all `num_claims`."""

    test: PValue
    p_holm: float
    num_claims: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """How `other` differs from `base` in one metric: other - base over the same prompts and seeds.

    `claim` is None for a metric of which nothing is claimed, `equivalence` for one without a declared margin.
    `detectable` is the smallest difference that these prompts could have shown; None where they all differ alike.
    """

    base: str
    other: str
    metric: str
    estimate: Estimate | None
    verdict: Verdict
    claim: Claim | None = None
    detectable: Detectable | None = None
    equivalence: Equivalence | None = None

    @property
    def lost_to_holm(self) -> bool:
        """Whether the difference would be significant if it were the only claim."""
        alone = self.estimate is not None and self.estimate.excludes_zero
        return alone and self.claim is not None and self.claim.p_holm >= ALPHA


def verdict_of(estimate: Estimate | None, goal: Goal, claim: Claim | None = None) -> Verdict:
    """What may be said of a difference: nothing, unless its interval and its corrected test exclude zero."""
    if estimate is None:
        return "not computed"
    if not estimate.excludes_zero or (claim is not None and claim.p_holm >= ALPHA):
        return "not significant"
    rises = estimate.value > 0
    match goal:
        case "higher":
            return "better" if rises else "worse"
        case "lower":
            return "worse" if rises else "better"
        case "keep":
            return "more" if rises else "less"


def no_loss(found: Equivalence, goal: Goal) -> bool:
    """Whether a loss of the margin or more is excluded; where lower is better, a loss is a rise."""
    return found.p_gain < found.alpha if goal == "lower" else found.no_loss


def differences_between(base: Measured, other: Measured, config: CompareConfig) -> list[Difference]:
    """The difference of two reports in every metric.

    Raises:
        BadInput: the two do not hold the same prompts and seeds, or a value is not finite.
    """
    claims = claims_of(
        {key: difference_p_value(base.values(key), other.values(key)) for key in dict.fromkeys(config.claims)}
    )
    found = []
    for metric in METRICS:
        before, after = base.values(metric.key), other.values(metric.key)
        estimate = paired_difference(before, after, seed=config.seed, num_draws=config.num_draws)
        margin, claim = config.margins.get(metric.key), claims.get(metric.key)
        found.append(
            Difference(
                base=base.name,
                other=other.name,
                metric=metric.key,
                estimate=estimate,
                verdict=verdict_of(estimate, metric.goal, claim),
                claim=claim,
                detectable=observed_detectable_difference(before, after) if estimate is not None else None,
                equivalence=equivalence(before, after, margin=margin, seed=config.seed) if margin is not None else None,
            )
        )
    return found


def claims_of(tests: Mapping[str, PValue | None]) -> dict[str, Claim]:
    """The claims of one comparison, corrected together; a metric that has no test makes no claim."""
    found = {key: test for key, test in tests.items() if test is not None}
    adjusted = holm({key: test.p for key, test in found.items()})
    return {key: Claim(test=test, p_holm=adjusted[key], num_claims=len(found)) for key, test in found.items()}
