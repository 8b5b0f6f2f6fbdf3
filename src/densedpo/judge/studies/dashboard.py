"""What a study's answers show so far: progress, people, agreement, sides and motion, each with n and an interval.

Flags name what deserves a look. Nobody is left out of anything by a flag: that is for whoever exports to decide.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from densedpo.judge.studies.answers import Decided, decided
from densedpo.judge.studies.desk import Desk
from densedpo.metrics.agreement import Agreement, Rating, agreement
from densedpo.metrics.motion_bias import BiasCheck, JudgedPairs, low_motion_share, preference_slope
from densedpo.metrics.probes import probe_check
from densedpo.metrics.rates import WinRate, wilson, win_rate
from densedpo.metrics.statistics import NUM_DRAWS, Key

MotionOf = Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]]  # pair hash -> motion of a and of b by part
_SUSPECT: Final = 0.001  # a person who always chooses one side is flagged when chance would do so this rarely
_FAST: Final = 0.5  # of the clip's length: nobody judges two clips in less
_POOR_GOLD: Final = 0.6
_MIN_GOLD: Final = 5
_MIN_DRAWS: Final = 300
_MAX_CELLS: Final = 600_000  # of draws times items, for each interval: a dashboard of 10 000 answers takes a second


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """`count` of `n` with Wilson's 95 % interval; `value` is None where there is nothing to take a share of."""

    count: int
    n: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class AgreementRow:
    """One coefficient over `n` pairs, or why it is undefined."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PersonRow:
    """One annotator. `left` is over parts that are no ties; `gold` over parts with a known winner."""

    name: str
    num_done: int
    num_skipped: int
    median_s: float | None
    left: Rate
    ties: Rate
    gold: Rate
    repeats: Rate
    flags: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dashboard:
    """A study so far. `wins` is how often a is better (in an arena, the first model), `left` the clip on the left."""

    study: str
    version: int
    kind: str
    num_items: int
    overlap: int
    num_places: int
    num_filled: int
    people: tuple[PersonRow, ...]
    left: WinRate | None
    ties: Rate
    wins: WinRate | None
    gold: Rate
    repeats: Rate
    agreement: tuple[AgreementRow, ...]
    bias: tuple[BiasCheck, ...]
    num_motion_known: int
    unplayable: tuple[tuple[str, str], ...]
    skips: tuple[tuple[str, int], ...]


def rate(hits: Iterable[bool]) -> Rate:
    """A share with its interval."""
    values = list(hits)
    if not values:
        return Rate(count=0, n=0, value=None, low=None, high=None)
    low, high = wilson(sum(values), len(values))
    return Rate(count=sum(values), n=len(values), value=sum(values) / len(values), low=low, high=high)


def summarise_study(desk: Desk, *, motion: MotionOf, faults: Mapping[str, str]) -> Dashboard:
    """The dashboard's numbers.

    Args:
        motion: how much the clips of each pair move, part by part, as far as it is known.
        faults: items whose video cannot be shown, and why.
    """
    found = decided(desk)
    done = [each for each in found if each.save.kind == "submit"]
    settings = desk.study.settings
    row = settings.dimensions[0]
    first = [each for each in done if each.assignment.kind != "repeat" and each.item.copy is None]
    plain = sum(not item.is_hidden for item in desk.items.values())
    by_person: defaultdict[str, list[Decided]] = defaultdict(list)
    for each in found:
        by_person[each.person].append(each)
    return Dashboard(
        study=desk.study.name,
        version=desk.study.version,
        kind=settings.kind,
        num_items=len(desk.items),
        overlap=settings.overlap,
        num_places=plain * settings.overlap,
        num_filled=sum(each.assignment.kind == "plain" for each in done),
        people=tuple(_person(desk, name, mine) for name, mine in sorted(by_person.items())),
        left=_won(desk, first, row, by_side=True),
        ties=_ties(first, row),
        wins=_won(desk, first, row, by_side=False),
        gold=_gold(first, row),
        repeats=_repeats(done, row),
        agreement=tuple(line for name in settings.dimensions for line in _agreement(desk, first, name)),
        bias=(*_bias(desk, first, row, motion), *_frozen(desk, done, row)),
        num_motion_known=len({each.item.pair_hash for each in first} & set(motion)),
        unplayable=tuple(sorted((desk.items[id_].pair_id, why) for id_, why in faults.items() if id_ in desk.items)),
        skips=tuple(Counter(each.save.choice.reason or "" for each in found if each.save.kind == "skip").most_common()),
    )


def _person(desk: Desk, name: str, mine: Sequence[Decided]) -> PersonRow:
    row = desk.study.settings.dimensions[0]
    done = [each for each in mine if each.save.kind == "submit"]
    first = [each for each in done if each.assignment.kind != "repeat" and each.item.copy is None]
    left, ties, gold = _left(first, row), _ties(first, row), _gold(first, row)
    still = rate(sign < 0 for each in done if each.item.copy is not None for sign in each.signs(row) if sign)
    seconds = [each.save.choice.active_ms / 1000 for each in done]
    median = statistics.median(seconds) if seconds else None
    return PersonRow(
        name=name,
        num_done=len(done),
        num_skipped=len(mine) - len(done),
        median_s=median,
        left=left,
        ties=ties,
        gold=gold,
        repeats=_repeats(done, row),
        flags=_flags(desk, left, ties, gold, still, median),
    )


def _flags(desk: Desk, left: Rate, ties: Rate, gold: Rate, still: Rate, median_s: float | None) -> tuple[str, ...]:
    found = []
    is_even = left.low is None or left.high is None or left.low <= 0.5 <= left.high
    if not is_even and stats.binomtest(left.count, left.n).pvalue < _SUSPECT:
        found.append("one side far more often than chance")
    if ties.n >= 20 and ties.count == ties.n:
        found.append("nothing but ties")
    pair = next(iter(desk.pairs))
    if median_s is not None and median_s < _FAST * pair.num_frames / pair.fps:
        found.append("faster than the clips can be watched")
    if gold.n >= _MIN_GOLD and gold.high is not None and gold.high < _POOR_GOLD:
        found.append("wrong on known items")
    if still.n >= _MIN_GOLD and still.low is not None and still.low > 0.5:
        found.append("prefers clips that stand still")
    return tuple(found)


def _left(done: Iterable[Decided], row: str) -> Rate:
    """Of items, not of answers: an item's segments share one draw of the sides, so they are one piece of evidence."""
    sides = [_leaning(each.save.choice.answers.get(row, [])) for each in done]
    return rate(side > 0 for side in sides if side)


def _leaning(answers: Sequence[str | None]) -> int:
    """More than 0 where more segments went left than right."""
    return answers.count("left") - answers.count("right")


def _won(desk: Desk, done: Iterable[Decided], row: str, *, by_side: bool) -> WinRate | None:
    """Wins of a against b, or of left against right: by prompt, as the parts of a pair go together."""
    outcomes: dict[Key, int | None] = {}
    numbers: Counter[str] = Counter()
    for each in done:
        prompt = desk.pairs.by_id[each.item.pair_id].prompt_id
        turned = -1 if by_side and each.assignment.left == "b" else 1
        for sign in each.signs(row):
            outcomes[prompt, numbers[prompt]] = turned * sign
            numbers[prompt] += 1
    return win_rate(outcomes, seed=desk.study.settings.seed, num_draws=_num_draws(len(numbers)))


def _ties(done: Iterable[Decided], row: str) -> Rate:
    return rate(sign == 0 for each in done for sign in each.signs(row))


def _gold(done: Iterable[Decided], row: str) -> Rate:
    known = [each for each in done if each.item.gold is not None]
    pairs = [(s, g) for each in known for s, g in zip(each.signs(row), each.item.gold or (), strict=False) if g]
    return rate(sign == truth for sign, truth in pairs)


def _repeats(done: Iterable[Decided], row: str) -> Rate:
    first: dict[tuple[str, str], Decided] = {}
    again = []
    for each in done:
        key = (each.assignment.person, each.item.id)
        if each.assignment.kind == "repeat":
            again.append(each)
        else:
            first[key] = each
    pairs = [(first.get((each.assignment.person, each.item.id)), each) for each in again]
    return rate(
        one == other
        for before, after in pairs
        if before is not None
        for one, other in zip(before.signs(row), after.signs(row), strict=False)
    )


_COEFFICIENTS: Final = {
    "percent": "same answer, of two people",
    "alpha_nominal": "Krippendorff's alpha",
    "alpha_ordinal": "Krippendorff's alpha, ordinal",
    "fleiss": "Fleiss' kappa",
    "cohen": "Cohen's kappa",
    "ac1": "Gwet's AC1",
}


def _agreement(desk: Desk, done: Sequence[Decided], row: str) -> list[AgreementRow]:
    """How far people agree on one row of the timeline; [] where nobody shares an item with anybody."""
    ratings = [
        Rating(pair=each.item.id, segment=part, annotator=each.person, value=sign)
        for each in done
        for part, sign in enumerate(each.signs(row))
    ]
    judges = Counter((rating.pair, rating.segment) for rating in ratings)
    if not any(count > 1 for count in judges.values()):
        return []
    num_draws = _num_draws(len({rating.pair for rating in ratings}))
    found = agreement(ratings, seed=desk.study.settings.seed, num_draws=num_draws)
    prefix = f"{row}: " if len(desk.study.settings.dimensions) > 1 else ""
    return [_agreement_row(found, name, prefix + text) for name, text in _COEFFICIENTS.items()]


def _agreement_row(found: Agreement, name: str, text: str) -> AgreementRow:
    estimates = {
        "percent": found.percent,
        "alpha_nominal": found.alpha_nominal,
        "alpha_ordinal": found.alpha_ordinal,
        "fleiss": found.fleiss,
        "cohen": found.cohen,
        "ac1": found.ac1,
    }
    estimate = estimates[name]
    if estimate is None:
        return AgreementRow(name=text, value=None, low=None, high=None, n=0, reason=found.not_computed.get(name, ""))
    return AgreementRow(name=text, value=estimate.value, low=estimate.low, high=estimate.high, n=estimate.n, reason="")


def _bias(desk: Desk, done: Sequence[Decided], row: str, motion: MotionOf) -> tuple[BiasCheck, ...]:
    """MB1 and MB2 over parts whose motion is known; none where nothing is."""
    columns: list[tuple[str, int, float, float, bool]] = []
    for each in done:
        if each.item.pair_hash not in motion or each.item.side is not None:
            continue
        prompt, left = desk.pairs.by_id[each.item.pair_id].prompt_id, each.assignment.left == "a"
        for sign, a, b in zip(each.signs(row), *motion[each.item.pair_hash], strict=False):
            columns.append((prompt, sign, a, b, left))
    if not columns:
        return ()
    prompts, answers, of_a, of_b, lefts = zip(*columns, strict=True)
    judged = JudgedPairs(
        prompt=prompts,
        answer=np.array(answers, dtype=np.int64),
        motion_a=np.array(of_a, dtype=np.float64),
        motion_b=np.array(of_b, dtype=np.float64),
        a_first=np.array(lefts, dtype=np.bool_),
    )
    spread = float(np.median(np.abs(judged.difference)))
    num_draws = _num_draws(len(set(prompts)))
    return (
        preference_slope(judged),
        low_motion_share(judged, threshold=spread, seed=desk.study.settings.seed, num_draws=num_draws),
    )


def _frozen(desk: Desk, done: Sequence[Decided], row: str) -> tuple[BiasCheck, ...]:
    """MB3 over the parts of clips that were shown beside their first frame held still; none where none were."""
    preferred: dict[Key, int | None] = {}
    for each in done:
        if each.item.copy is not None:
            prompt = desk.pairs.by_id[each.item.pair_id].prompt_id
            preferred |= {(prompt, len(preferred) + part): -sign for part, sign in enumerate(each.signs(row))}
    if not preferred:
        return ()
    num_draws = _num_draws(len({prompt for prompt, _ in preferred}))
    return (probe_check(preferred, "frozen", seed=desk.study.settings.seed, num_draws=num_draws),)


def _num_draws(num_units: int) -> int:
    """Bootstrap draws: fewer over many units, whose intervals are narrow anyway; `measure judge` takes them all."""
    return min(NUM_DRAWS, max(_MIN_DRAWS, _MAX_CELLS // max(1, num_units)))
