"""When a difference counts: rules that are fixed before a study runs, over training seeds and prompts.

A win needs its interval and four of five training seeds. That nothing is lost is shown by a one-sided test at 5 %
against a margin declared in the study's file, never by a difference that was not found. With fewer than five training
seeds every verdict is marked, since no win can be claimed from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from densedpo.metrics.statistics import TrainedKey, two_way_difference

if TYPE_CHECKING:
    from study import Claim, Matching

    from densedpo.metrics.statistics import TwoWayDifference

Values = Mapping[TrainedKey, float | None]
Direction = Literal["up", "down", "not shown"]
Answer = Literal["holds", "does not hold", "not shown", "cannot be tested"]

SHARE_OF_SEEDS: Final = 0.8
MIN_SEEDS: Final = 5
ONE_SIDED: Final = 0.9  # the level of an interval either end of which is a one-sided bound at 5 %


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """A claim and what became of it; `why` says by which numbers."""

    answer: Answer
    why: str


def direction(difference: TwoWayDifference) -> Direction:
    """Which way a difference goes: its interval on one side of zero, and four of five training seeds with it."""
    estimate, num_seeds = difference.estimate, len(difference.by_seed)
    needed = SHARE_OF_SEEDS * num_seeds - 1e-9
    num_below = sum(value < 0 for value in difference.by_seed.values())
    if estimate.low is not None and estimate.low > 0 and difference.num_seeds_above >= needed:
        return "up"
    if estimate.high is not None and estimate.high < 0 and num_below >= needed:
        return "down"
    return "not shown"


def difference_of(other: Values, base: Values, *, level: float = 0.95) -> TwoWayDifference | None:
    """other - base over the training seeds and prompts that both have."""
    both = base.keys() & other.keys()
    return two_way_difference(_only(base, both), _only(other, both), seed=0, level=level)


def judged(claim: Claim, arm: Values, base: Values, over: Values | None, matching: Matching | None) -> Verdict:
    """Whether a claim holds.

    Args:
        base: the base model's values beside every training seed.
        over: those of the arm that the claim names, if it names one.
    """
    match claim.expect:
        case "gain" | "loss":
            return _directed(claim.expect, difference_of(arm, base if over is None else over))
        case "keeps":
            assert matching is not None
            return _keeps(arm, base, share=matching.keep_share)
        case "matches":
            assert matching is not None
            assert over is not None
            return _matches(arm, over, base, share=matching.share_of_gain, name=claim.over or "")


def _directed(expect: Literal["gain", "loss"], difference: TwoWayDifference | None) -> Verdict:
    if difference is None:
        return _untested("no value in both")
    wanted, opposite = ("up", "down") if expect == "gain" else ("down", "up")
    answers: dict[str, Answer] = {wanted: "holds", opposite: "does not hold"}
    return Verdict(answer=answers.get(direction(difference), "not shown"), why=_said(difference))


def _keeps(arm: Values, base: Values, *, share: float) -> Verdict:
    """The base's level is a given number here: its own uncertainty is far below a twentieth of it."""
    levels = [value for value in base.values() if value is not None]
    difference = difference_of(arm, base, level=ONE_SIDED)
    if difference is None or not levels:
        return _untested("no value in both")
    margin = share * abs(sum(levels) / len(levels))
    return _one_sided(difference, above=-margin, what=f"a loss of {margin:.4g} or more")


def _matches(arm: Values, over: Values, base: Values, *, share: float, name: str) -> Verdict:
    """Two one-sided tests whose margin is estimated from the same data, as contrasts.

    arm - over > -share (over - base) is the same as arm - (1 - share) over - share base > 0, whose interval carries the
    margin's own uncertainty (Rothmann et al. 2003, "Design and analysis of non-inferiority mortality trials in
    oncology": the synthesis method). Equivalence asks for the mirrored contrast too.
    """
    gain = difference_of(over, base)
    if gain is None or direction(gain) != "up":
        return _untested(f"{name} is not shown to gain anything" + (f": {_said(gain)}" if gain is not None else ""))
    kept = difference_of(arm, _mixed(over, base, 1 - share), level=ONE_SIDED)
    more = difference_of(arm, _mixed(over, base, 1 + share), level=ONE_SIDED)
    if kept is None or more is None:
        return _untested("no value in both")
    margin = share * gain.estimate.value
    verdict = _one_sided(kept, above=0.0, what=f"a loss of {share:.0%} of the gain of {name} (about {margin:.4g})")
    high = more.estimate.high
    if verdict.answer == "holds":
        also = "equivalent" if high is not None and high < 0 else "it may also be better by more than the margin"
        return Verdict(answer="holds", why=f"{verdict.why}; {also}")
    return verdict


def _one_sided(difference: TwoWayDifference, *, above: float, what: str) -> Verdict:
    low, high = difference.estimate.low, difference.estimate.high
    bounds = f"{_said(difference)}, at 90 %"
    if low is None or high is None:
        return _untested("no interval")
    if low > above:
        return Verdict(answer="holds", why=f"excludes {what}: {bounds}")
    if high < above:
        return Verdict(answer="does not hold", why=f"shows {what}: {bounds}")
    return Verdict(answer="not shown", why=f"leaves room for {what}: {bounds}")


def _untested(why: str) -> Verdict:
    return Verdict(answer="cannot be tested", why=why)


def _mixed(one: Values, other: Values, share: float) -> dict[TrainedKey, float | None]:
    """share * one + (1 - share) * other, where both have a value."""
    both: dict[TrainedKey, float | None] = {}
    for key in one.keys() & other.keys():
        a, b = one[key], other[key]
        both[key] = None if a is None or b is None else share * a + (1 - share) * b
    return both


def _said(difference: TwoWayDifference) -> str:
    estimate = difference.estimate
    seeds = f"{difference.num_seeds_above} of {len(difference.by_seed)} seeds above 0"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:+.4g} (no interval), {seeds}"
    return f"{estimate.value:+.4g} ({estimate.low:+.4g} to {estimate.high:+.4g}), n = {estimate.n}, {seeds}"


def _only(values: Values, keys: set[TrainedKey]) -> dict[TrainedKey, float | None]:
    return {key: value for key, value in values.items() if key in keys}
