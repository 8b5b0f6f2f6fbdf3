"""Sends pairs through a judge and stores its answers, pair by pair, so that a run that is cut short is not repeated."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce
from typing import Final, get_args

from densedpo.core.errors import BadInput, Interrupted
from densedpo.core.media import read_pair_mp4
from densedpo.core.progress import track
from densedpo.core.provenance import package_version, sha256_json
from densedpo.core.records import Judgement, Pair
from densedpo.judge.pairset import PairSet, ranges_of
from densedpo.judge.protocol import (
    UNREADABLE,
    Answer,
    Cost,
    Failure,
    FailureKind,
    Judge,
    PairClips,
    SegmentAnswer,
    Watch,
)
from densedpo.judge.store import LabelStore

Range = tuple[int, int]

MAX_UNREADABLE_SHARE: Final = 0.02  # answers that could not be read, of all that were asked for
_STOP_EARLY_AT: Final = 10  # so many unreadable answers end a run that can no longer stay below that share


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedQuestion:
    """One question of a run that has no answer; `segment` is None for the whole clip."""

    pair_id: str
    segment: int | None
    failure: Failure


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeRun:
    """What a run of a judge did. A pair that was judged in full before is not looked at again."""

    annotator: str
    num_judged: int
    num_known: int
    num_questions: int = 0  # asked in this run
    failures: tuple[FailedQuestion, ...] = ()
    cost: Cost = field(default_factory=Cost)

    @property
    def failures_by_kind(self) -> dict[FailureKind, list[FailedQuestion]]:
        """The questions without an answer, by why."""
        found: dict[FailureKind, list[FailedQuestion]] = {}
        for failed in self.failures:
            found.setdefault(failed.failure.kind, []).append(failed)
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class _Question:
    pair: Pair
    ranges: tuple[Range, ...]
    ids: tuple[str, ...]


def judge_pairs(
    judge: Judge,
    pairs: PairSet,
    store: LabelStore,
    *,
    segment_seconds: float | None,
    pairs_at_once: int = 1,
    watch: Watch | None = None,
    note: Callable[[], str] | None = None,
    on_failure: Callable[[FailedQuestion], None] | None = None,
) -> JudgeRun:
    """Judges every pair that this judge has not judged in full, and stores in the order of pairs.jsonl.

    Args:
        segment_seconds: length of a segment; None asks about the whole clip.
        pairs_at_once: how many pairs are decoded and judged at the same time.
        watch: looks on; answers are held back until it lets them be stored.
        note: a few words for the progress, such as the cost so far.
        on_failure: told of each question without an answer when it happens.

    Raises:
        BadInput: a pair is not for this judge or cannot be cut into such segments (nothing is judged then), a video
            cannot be read, the judge does not answer as agreed, or more than 2 % of its answers cannot be read. What
            was judged before is stored.
        Interrupted: the judge or the machine cuts the run short; what was judged is stored.
    """
    questions = _questions(judge, pairs, segment_seconds)
    known = store.known(id_ for question in questions for id_ in question.ids)
    todo = [question for question in questions if not known.issuperset(question.ids)]
    num_questions = sum(len(question.ids) for question in questions)
    failures: list[FailedQuestion] = []
    held: list[Judgement] = []
    cost = Cost()
    answered = _judged(judge, pairs, todo, pairs_at_once)
    try:
        with closing(answered):
            for question, answers in track(answered, total=len(todo), what=f"judging {pairs.name}", note=note):
                failed = _failures(question, answers, whole=segment_seconds is None)
                failures += failed
                if on_failure is not None:
                    for failure in failed:
                        on_failure(failure)
                cost = reduce(Cost.plus, (answer.cost for answer in answers), cost)
                held += [
                    row for row in _rows(judge, question, answers, whole=segment_seconds is None) if row.id not in known
                ]
                if watch is None or watch.may_store(at_end=False):
                    store.append(held, pairs.hashes)
                    held = []
                _refuse_unreadable(judge, failures, num_questions, at_end=False)
    except Interrupted:  # a limit or the machine cuts a run short: what is known by then is judged as at the end
        if watch is None or watch.may_store(at_end=True):
            store.append(held, pairs.hashes)
        raise
    if watch is None or watch.may_store(at_end=True):
        store.append(held, pairs.hashes)
    _refuse_unreadable(judge, failures, num_questions, at_end=True)
    return JudgeRun(
        annotator=judge.annotator,
        num_judged=len(todo),
        num_known=len(pairs) - len(todo),
        num_questions=sum(len(question.ids) for question in todo),
        failures=tuple(failures),
        cost=cost,
    )


def judgement_id(annotator: str, pair_hash: str, range_: Range | None, instructions: str) -> str:
    """The id of the one answer that an annotator gives to a question (None: the whole clip) under some instructions."""
    return sha256_json([annotator, pair_hash, list(range_) if range_ is not None else None, instructions])[:32]


def tool_version() -> str:
    """What rows are signed with: the package and its version."""
    return f"densedpo {package_version('densedpo') or 'from source'}"


def now() -> str:
    """The time as rows state it: ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _decoded(pair: Pair, pairs: PairSet) -> PairClips:
    path = pairs.folder / pair.video
    a, b = read_pair_mp4(path, pixel_scale=pair.pixel_scale)
    expected = (pair.num_frames, pair.height, pair.width, 3)
    if a.shape != expected:
        raise BadInput(
            f"{path} holds clips of {list(a.shape[:3])} (frames, height, width), "
            f"pairs.jsonl says {list(expected[:3])}; generate the pairs again"
        )
    return PairClips(pair=pair, a=a, b=b)


def _questions(judge: Judge, pairs: PairSet, segment_seconds: float | None) -> list[_Question]:
    cut = {
        pair.id: ((0, pair.num_frames),) if segment_seconds is None else ranges_of(pair, segment_seconds)
        for pair in pairs
    }
    for pair in pairs:
        judge.check(pair)
    return [
        _Question(
            pair=pair,
            ranges=cut[pair.id],
            ids=tuple(
                judgement_id(
                    judge.annotator,
                    pairs.hashes[pair.id],
                    None if segment_seconds is None else range_,
                    judge.instructions,
                )
                for range_ in cut[pair.id]
            ),
        )
        for pair in pairs
    ]


def _judged(
    judge: Judge, pairs: PairSet, todo: Sequence[_Question], pairs_at_once: int
) -> Generator[tuple[_Question, tuple[SegmentAnswer, ...]], None, None]:
    """The answers in the order of the questions, a few pairs ahead of who takes them."""
    if pairs_at_once <= 1:
        for question in todo:
            yield question, _answers(judge, pairs, question)
        return
    pool = ThreadPoolExecutor(pairs_at_once, thread_name_prefix="judge")
    try:
        ahead: deque[tuple[_Question, Future[tuple[SegmentAnswer, ...]]]] = deque()
        for question in todo:
            ahead.append((question, pool.submit(_answers, judge, pairs, question)))
            if len(ahead) >= pairs_at_once:
                first, future = ahead.popleft()
                yield first, future.result()
        while ahead:
            first, future = ahead.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _answers(judge: Judge, pairs: PairSet, question: _Question) -> tuple[SegmentAnswer, ...]:
    answers = judge.judge(_decoded(question.pair, pairs), question.ranges)
    if len(answers) != len(question.ranges):
        raise BadInput(
            f"judge {judge.annotator!r} gave {len(answers)} answers for the {len(question.ranges)} segments of pair "
            f"{question.pair.id}; it must give one for each, in order"
        )
    for answer in answers:
        _require_sound(answer, f"judge {judge.annotator!r}, pair {question.pair.id}")
    return tuple(answers)


def _require_sound(answer: SegmentAnswer, whose: str) -> None:
    """Refuses what a judge from outside may give and no row can hold; not a number would be a vote for b."""
    if answer.answer not in get_args(Answer):
        raise BadInput(f"{whose}: it answers {answer.answer!r}; an answer is one of {', '.join(get_args(Answer))}")
    if answer.confidence is not None and not 0 <= answer.confidence <= 1:
        raise BadInput(f"{whose}: it is {answer.confidence} sure; a confidence is in [0, 1]")
    for score in (answer.score_a, answer.score_b):
        if score is not None and not math.isfinite(score):
            raise BadInput(f"{whose}: it scores a clip {score}; a score is a finite number")


def _failures(question: _Question, answers: Sequence[SegmentAnswer], *, whole: bool) -> list[FailedQuestion]:
    return [
        FailedQuestion(pair_id=question.pair.id, segment=None if whole else index, failure=answer.failure)
        for index, answer in enumerate(answers)
        if answer.failure is not None
    ]


def _refuse_unreadable(judge: Judge, failures: Sequence[FailedQuestion], num_asked: int, *, at_end: bool) -> None:
    unreadable = [failed.failure for failed in failures if failed.failure.kind in UNREADABLE]
    if len(unreadable) <= MAX_UNREADABLE_SHARE * num_asked or (not at_end and len(unreadable) < _STOP_EARLY_AT):
        return
    last = unreadable[-1]
    raise BadInput(
        f"{len(unreadable)} of {num_asked} answers of {judge.annotator!r} could not be read, more than "
        f"{100 * MAX_UNREADABLE_SHARE:.0f} % (the last: {last.kind}, {last.detail}); what was stored stays; "
        "mend the judge or its settings and run again"
    )


def _rows(judge: Judge, question: _Question, answers: Sequence[SegmentAnswer], *, whole: bool) -> list[Judgement]:
    return [
        Judgement(
            id=id_,
            pair_id=question.pair.id,
            annotator=judge.annotator,
            segment=None if whole else index,
            start_frame=start,
            stop_frame=stop,
            answer=answer.answer,
            confidence=answer.confidence,
            score_a=answer.score_a,
            score_b=answer.score_b,
            instructions=judge.instructions,
            tool_version=tool_version(),
            created_at=now(),
        )
        for index, ((start, stop), id_, answer) in enumerate(zip(question.ranges, question.ids, answers, strict=True))
        if answer.failure is None
    ]
