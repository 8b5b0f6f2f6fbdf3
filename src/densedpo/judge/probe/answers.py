"""What two annotators said about the same pairs, question by question."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

from densedpo.core.records import Judgement
from densedpo.judge.aggregate import latest
from densedpo.judge.pairset import PairSet
from densedpo.judge.preferences import collect
from densedpo.judge.store import LabelStore
from densedpo.metrics.agreement import Agreement, Rating, agreement
from densedpo.metrics.statistics import Estimate, resampled_bounds

TIE_SHARE: Final = 0.8
_FEWEST_TIES: Final = 20
Unit = Literal["segment", "clip"]
Question: TypeAlias = tuple[str, int, int]
"""A pair's id and a half-open range of its frames."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """One annotator's answers: +1 where a is better, -1 where b is, 0 for a tie.

    `clips` are answers about whole clips, or what the segments' majority says. `shown_left` is the clip that stood on
    the left at each question, `labels_sha256` the hash of the answers.
    """

    annotator: str
    segments: Mapping[Question, int]
    clips: Mapping[str, int]
    shown_left: Mapping[Question, Literal["a", "b"]]
    labels_sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """How often each answer of one annotator met each of the other: keys are `a`, `tie` and `b`, the other's inside."""

    counts: dict[str, dict[str, int]]

    @property
    def num_units(self) -> int:
        """Questions that both answered."""
        return sum(sum(row.values()) for row in self.counts.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """How often one annotator gives the other's answer, over questions of one kind.

    `decided` counts the questions that neither calls a tie. `chosen` counts those that the other does not call a tie,
    with half a point for a tie: what a guess gets is one half in both. `coverage` is the share of those in which the
    one names a winner, right or wrong. None where there is no such question.
    `coefficients` count ties as answers of their own, and take off what chance would give.
    """

    unit: Unit
    confusion: Confusion
    decided: Estimate | None
    chosen: Estimate | None
    coverage: Estimate | None
    coefficients: Agreement | None


def read_answers(pairs: PairSet, store: LabelStore, annotator: str, *, segment_seconds: float) -> Answers:
    """The answers of one annotator that count.

    Raises:
        BadInput: they have not judged these pairs, or judged them in other segments.
    """
    preferences = collect(pairs, store, segment_seconds=segment_seconds, only_annotators=[annotator])
    rows = preferences.rows
    votes = latest(store.judgements(pairs.hashes, annotators=[annotator]))
    segments: dict[Question, int] = {}
    for row in rows:
        answered = row.answered or (True,) * len(row.labels)
        for (start, stop), label, known in zip(row.ranges, row.labels, answered, strict=True):
            if known:
                segments[row.pair_id, start, stop] = label
    return Answers(
        annotator=annotator,
        segments=segments,
        clips={row.pair_id: row.clip_label for row in rows},
        labels_sha256=preferences.header.labels_sha256,
        shown_left={(vote.pair_id, vote.start_frame, vote.stop_frame): vote.left for vote in votes},
    )


def tie_margin(votes: Iterable[Judgement], truth: Answers) -> tuple[float | None, int]:
    """The margin under which a judge that scores calls four in five of the segments ties that the truth does.

    The shipped reward's own margin is the same percentile, over clean clips that are equally good.

    Returns:
        It, and the number of segments that it is from; None under 20 of them.
    """
    apart = [
        abs(vote.score_a - vote.score_b)
        for vote in votes
        if vote.score_a is not None
        and vote.score_b is not None
        and truth.segments.get((vote.pair_id, vote.start_frame, vote.stop_frame)) == 0
    ]
    return (float(np.quantile(apart, TIE_SHARE)) if len(apart) >= _FEWEST_TIES else None), len(apart)


def accuracies(one: Answers, other: Answers, pairs: PairSet, *, seed: int, num_draws: int) -> tuple[Accuracy, ...]:
    """How often `one` gives the answer of `other`, by segment and by clip; intervals are over prompts."""
    prompts = {pair.id: pair.prompt_id for pair in pairs}
    by_segment = _Meeting(
        answers=[(prompts[q[0]], one.segments[q], other.segments[q]) for q in one.segments if q in other.segments],
        num_excluded=len(one.segments.keys() ^ other.segments.keys()),
        ratings=[
            Rating(pair=pair_id, segment=start, annotator=each.annotator, value=label)
            for each in (one, other)
            for (pair_id, start, _), label in each.segments.items()
        ],
    )
    by_clip = _Meeting(
        answers=[(prompts[pair], one.clips[pair], other.clips[pair]) for pair in one.clips if pair in other.clips],
        num_excluded=len(one.clips.keys() ^ other.clips.keys()),
        ratings=[
            Rating(pair=pair_id, segment=0, annotator=each.annotator, value=label)
            for each in (one, other)
            for pair_id, label in each.clips.items()
        ],
    )
    meetings: list[tuple[Unit, _Meeting]] = [("segment", by_segment), ("clip", by_clip)]
    return tuple(
        Accuracy(
            unit=unit,
            confusion=_confusion(meeting),
            decided=_decided(meeting, seed=seed, num_draws=num_draws),
            chosen=_chosen(meeting, seed=seed, num_draws=num_draws),
            coverage=_coverage(meeting, seed=seed, num_draws=num_draws),
            coefficients=agreement(meeting.ratings, seed=seed, num_draws=num_draws) if meeting.answers else None,
        )
        for unit, meeting in meetings
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Meeting:
    answers: list[tuple[str, int, int]]  # prompt, one's answer, the other's
    num_excluded: int  # answered by one of the two only
    ratings: list[Rating]


def _confusion(meeting: _Meeting) -> Confusion:
    names = {1: "a", 0: "tie", -1: "b"}
    counts = {name: dict.fromkeys(names.values(), 0) for name in names.values()}
    for _, one, other in meeting.answers:
        counts[names[one]][names[other]] += 1
    return Confusion(counts=counts)


def _decided(meeting: _Meeting, *, seed: int, num_draws: int) -> Estimate | None:
    points = [(prompt, float(one == other)) for prompt, one, other in meeting.answers if one and other]
    return _share(points, meeting, "same answer where neither ties", seed=seed, num_draws=num_draws)


def _chosen(meeting: _Meeting, *, seed: int, num_draws: int) -> Estimate | None:
    points = [(prompt, (1 + one * other) / 2) for prompt, one, other in meeting.answers if other]
    name = "same answer where the other does not tie, a tie is half"
    return _share(points, meeting, name, seed=seed, num_draws=num_draws)


def _coverage(meeting: _Meeting, *, seed: int, num_draws: int) -> Estimate | None:
    points = [(prompt, float(one != 0)) for prompt, one, other in meeting.answers if other]
    return _share(points, meeting, "a winner named where the other does not tie", seed=seed, num_draws=num_draws)


def _share(
    points: Iterable[tuple[str, float]], meeting: _Meeting, name: str, *, seed: int, num_draws: int
) -> Estimate | None:
    """The mean of points over all questions, with whole prompts drawn."""
    by_prompt: dict[str, list[float]] = {}
    for prompt, point in points:
        by_prompt.setdefault(prompt, []).append(point)
    if not by_prompt:
        return None
    rows = [by_prompt[prompt] for prompt in sorted(by_prompt)]
    above, below = np.array([sum(row) for row in rows]), np.array([float(len(row)) for row in rows])
    bounds = resampled_bounds(
        lambda weights: np.asarray((weights @ above) / (weights @ below)),
        num_units=len(rows),
        unit="prompts",
        seed=seed,
        num_draws=num_draws,
    )
    num_values = int(below.sum())
    return Estimate(
        value=float(above.sum() / below.sum()),
        low=bounds.low,
        high=bounds.high,
        n=len(rows),
        num_values=num_values,
        num_excluded=meeting.num_excluded + len(meeting.answers) - num_values,
        method=f"{name}; {bounds.method}",
        seed=seed,
    )
