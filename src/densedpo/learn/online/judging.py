"""Judging that waits for a judge that is away: nothing is trained on without its answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final, Self, TypeVar

from densedpo.core.errors import BadInput, Interrupted
from densedpo.core.progress import duration_text, set_quiet
from densedpo.judge.pairset import PairSet, pair_hash
from densedpo.judge.protocol import JudgeUnavailable
from densedpo.judge.run import judge_pairs

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from densedpo.core.records import Pair
    from densedpo.judge.protocol import Judge, PairClips, SegmentAnswer
    from densedpo.judge.store import LabelStore

Answer = TypeVar("Answer")
_log = logging.getLogger("densedpo")
_AWAY: Final = frozenset({"unavailable", "deadline"})
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long a judge is waited for; `poll` is called every second meanwhile and may raise to stop."""

    minutes: float
    poll: Callable[[], None]


def waiting_for(ask: Callable[[], Answer], patience: Patience) -> Answer:
    """What `ask` gives, asked again with growing pauses while the judge is away.

    Raises:
        Interrupted: it was away for longer than the patience; what was judged is stored, the same command goes on.
    """
    waited, pause = 0.0, _FIRST_PAUSE_S
    while True:
        patience.poll()
        try:
            return ask()
        except JudgeUnavailable as error:
            limit = 60 * patience.minutes
            if waited >= limit:
                raise Interrupted(f"{error} (waited {duration_text(waited)})") from None
            pause = min(pause, limit - waited)
            _log.warning("paused for %s, nothing is trained meanwhile: %s", duration_text(pause), error)
            waited += _wait(pause, patience)
            pause = min(2 * pause, _LONGEST_PAUSE_S)


def judge_all(
    judge: Judge, pairs: PairSet, store: LabelStore, *, segment_seconds: float | None, patience: Patience
) -> None:
    """Judges what this judge has not judged; waits while it is away. Can be stopped between two pairs.

    Raises:
        Interrupted, BadInput: see `waiting_for` and `densedpo.judge.run.judge_pairs`.
    """
    polled = _Polled(judge, patience.poll)

    def ask() -> None:
        done = judge_pairs(polled, pairs, store, segment_seconds=segment_seconds)
        away = [failed for failed in done.failures if failed.failure.kind in _AWAY]
        if away:
            raise JudgeUnavailable(
                f"judge {judge.annotator!r} gave no answer to {len(away)} questions: {away[-1].failure.detail}"
            )

    waiting_for(ask, patience)


class _Polled:
    """A judge that asks before each pair whether to stop."""

    def __init__(self, judge: Judge, poll: Callable[[], None]) -> None:
        self._judge, self._poll = judge, poll
        self.annotator, self.instructions = judge.annotator, judge.instructions
        self.check = judge.check

    def judge(self, clips: PairClips, segments: Sequence[tuple[int, int]]) -> tuple[SegmentAnswer, ...]:
        self._poll()
        return self._judge.judge(clips, segments)


class JudgingAhead:
    """Judges pairs in a thread while more of them are made; a context manager that ends when all are judged.

    What it cannot judge, because a judge is away, is left to `judge_all`, which finds the other answers stored. Once
    one has been away no more is asked ahead: a scorer that hangs would take its whole time for every pair, with nobody
    to say how long it may stay away.
    """

    def __init__(
        self, judges: Sequence[Judge], folder: Path, store: LabelStore, *, segment_seconds: float | None
    ) -> None:
        """Args: `folder` is the one that the pairs' paths are relative to."""
        self._judges, self._folder, self._store, self._seconds = judges, folder, store, segment_seconds
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="judge ahead")
        self._futures: list[Future[None]] = []
        self._is_away = False  # set and read in the thread alone
        self.seconds = 0.0
        """What the judges have taken here."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            self.finish(lambda: None)

    def take(self, pair: Pair) -> None:
        """A pair that is on the disk in full."""
        self._futures.append(self._pool.submit(self._judge, pair))

    def finish(self, poll: Callable[[], None]) -> None:
        """Returns when every pair that was taken has been looked at; `poll` is called meanwhile and may raise."""
        for future in self._futures:
            while not future.done():
                poll()
                wait([future], timeout=1.0)
            future.result()

    def _judge(self, pair: Pair) -> None:
        if self._is_away:
            return
        set_quiet(True)  # of this thread: the sampler's progress is what is said meanwhile
        alone = PairSet(
            name=self._folder.name, folder=self._folder, by_id={pair.id: pair}, hashes={pair.id: pair_hash(pair)}
        )
        started = monotonic()
        for judge in self._judges:
            try:
                done = judge_pairs(judge, alone, self._store, segment_seconds=self._seconds)
            except (BadInput, Interrupted) as error:  # said by `judge_all`, which asks again
                self._is_away |= isinstance(error, JudgeUnavailable)
            else:
                self._is_away |= any(failed.failure.kind in _AWAY for failed in done.failures)
        self.seconds += monotonic() - started


def _wait(seconds: float, patience: Patience) -> float:
    left = seconds
    while left > 0:
        patience.poll()
        sleep(min(1.0, left))
        left -= 1.0
    return seconds
