"""From answers to preferences: pure functions over rows, the same for one judge and for many annotators.

Everything here is even-handed: exchanging the clips of a pair in every answer exchanges them in the result, and nothing
else (`swap`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from densedpo.core.errors import BadInput
from densedpo.core.records import Judgement, Pair, Preference

Range = tuple[int, int]

_SIGN: Final = {"a": 1, "b": -1, "tie": 0}
_OTHER: Final[dict[str, Literal["a", "b", "tie", "skip"]]] = {"a": "b", "b": "a", "tie": "tie", "skip": "skip"}


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelSummary:
    """What a set of preferences holds. Shares are in [0, 1], and None where there is nothing to take a share of."""

    num_pairs: int
    num_segments: int
    tie_share: float | None
    both_signs_share: float | None  # pairs in which each clip is better somewhere
    a_share: float | None  # how often `a` wins where there is a winner: far from 1/2 is a side bias


def latest(judgements: Iterable[Judgement]) -> tuple[Judgement, ...]:
    """The answers that count: the last one of each annotator to each question. A `skip` takes an answer back."""
    last: dict[tuple[str, str, Range | None, str | None], Judgement] = {}
    for judgement in judgements:
        last[judgement.pair_id, judgement.annotator, _question(judgement), judgement.dimension] = judgement
    return tuple(judgement for judgement in last.values() if judgement.answer != "skip")


def aggregate(pair: Pair, segments: Sequence[Range], judgements: Iterable[Judgement]) -> Preference | None:
    """The preference that the answers about one pair add up to.

    A segment's label is the answer of more than half of those who answered it, else a tie; one nobody answered is 0
    and `answered` says so.
    The clip's label is decided in the same way where it was asked for, else by which clip wins more segments. A pair
    that was only judged as a whole has one range, the whole clip.

    Args:
        segments: half-open ranges of pixel frames that cover the clip.
        judgements: in the order in which they were made.

    Returns:
        None where nobody answered.

    Raises:
        BadInput: an answer is about a range that is not one of the segments.
    """
    votes = latest(judgement for judgement in judgements if judgement.pair_id == pair.id)
    if not votes:
        return None
    whole = [vote for vote in votes if vote.segment is None]
    ranges = tuple(segments) if len(whole) < len(votes) else ((0, pair.num_frames),)
    by_range: dict[Range, list[Judgement]] = {range_: [] for range_ in ranges}
    for vote in votes:
        if vote.segment is not None:
            _votes_of(by_range, vote).append(vote)
    if len(whole) == len(votes):
        by_range[ranges[0]] = whole
    labels = tuple(_majority(by_range[range_]) for range_ in ranges)
    return Preference(
        pair_id=pair.id,
        split=pair.split,
        ranges=ranges,
        labels=labels,
        confidence=_confidences([by_range[range_] for range_ in ranges], labels),
        clip_label=_majority(whole) if whole else _sign(sum(labels)),
        num_judgements=len(votes),
        answered=_answered([by_range[range_] for range_ in ranges]),
    )


def swap(judgement: Judgement) -> Judgement:
    """The same answer had `a` and `b` been the other way round."""
    return replace(
        judgement,
        answer=_OTHER[judgement.answer],
        score_a=judgement.score_b,
        score_b=judgement.score_a,
        left="b" if judgement.left == "a" else "a",
    )


def swap_preference(preference: Preference) -> Preference:
    """The same preference had `a` and `b` been the other way round."""
    return replace(preference, labels=tuple(-label for label in preference.labels), clip_label=-preference.clip_label)


def summarise(preferences: Collection[Preference]) -> LabelSummary:
    """Counts and shares over preferences."""
    labels = [label for preference in preferences for label in preference.labels]
    won = [label for label in labels if label != 0]
    both = [{-1, 1} <= set(preference.labels) for preference in preferences]
    return LabelSummary(
        num_pairs=len(preferences),
        num_segments=len(labels),
        tie_share=1 - len(won) / len(labels) if labels else None,
        both_signs_share=sum(both) / len(both) if both else None,
        a_share=won.count(1) / len(won) if won else None,
    )


def _question(judgement: Judgement) -> Range | None:
    return None if judgement.segment is None else (judgement.start_frame, judgement.stop_frame)


def _votes_of(by_range: dict[Range, list[Judgement]], vote: Judgement) -> list[Judgement]:
    try:
        return by_range[vote.start_frame, vote.stop_frame]
    except KeyError:
        raise BadInput(
            f"pair {vote.pair_id}: {vote.annotator!r} judged frames {vote.start_frame} to {vote.stop_frame}, which is "
            "no segment here; --set segment_seconds as it was judged with, or leave this annotator out with --annotator"
        ) from None


def _majority(votes: Sequence[Judgement]) -> int:
    answers = [vote.answer for vote in votes]
    for side in ("a", "b"):
        if 2 * answers.count(side) > len(answers):
            return _SIGN[side]
    return 0


def _answered(votes: Sequence[Sequence[Judgement]]) -> tuple[bool, ...] | None:
    """Which ranges anybody answered; None where all were."""
    known = tuple(bool(answers) for answers in votes)
    return None if all(known) else known


def _confidences(votes: Sequence[Sequence[Judgement]], labels: Sequence[int]) -> tuple[float, ...] | None:
    """The mean probability that the label is right, over those who answered; None where nobody was in any doubt.

    An answer without a stated confidence counts as certain, a tie as one half, and what is labelled is at least 1/2.
    """
    means = tuple(max(0.5, _mean_support(answers, label)) for answers, label in zip(votes, labels, strict=True))
    doubted = [mean < 1 for mean, label in zip(means, labels, strict=True) if label != 0]
    return means if any(doubted) else None


def _mean_support(votes: Sequence[Judgement], label: int) -> float:
    if label == 0:
        return 0.5
    return sum(_support(vote, label) for vote in votes) / len(votes)


def _support(vote: Judgement, label: int) -> float:
    sign = _SIGN[vote.answer]
    certain = 1.0 if vote.confidence is None else vote.confidence
    return 0.5 if sign == 0 else certain if sign == label else 1 - certain


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)
