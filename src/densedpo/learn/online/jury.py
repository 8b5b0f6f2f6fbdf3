"""The judges of an online run, which sit on its first process: one voice to each scorer, and one writer of labels."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from densedpo.core.errors import BadInput
from densedpo.core.files import read_object, write_atomic
from densedpo.judge.pairset import PairSet
from densedpo.judge.probe.verdict import read_verdicts, verdict_on
from densedpo.judge.store import LabelStore
from densedpo.learn.feed.trust import require_passed
from densedpo.learn.online.judging import JudgingAhead, Patience, judge_all, waiting_for
from densedpo.learn.online.rewards import build_judge, rewards_of

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from densedpo.core.records import ClipSide, Pair
    from densedpo.judge.protocol import Judge
    from densedpo.learn.online.choose import Rewards
    from densedpo.learn.online.run import OnlineInputs


@dataclass(frozen=True, kw_only=True, slots=True)
class Jury:
    """Who scores clips: the rewards that are climbed with their weights, and a judge that training does not see."""

    rewards: tuple[Judge, ...]
    weights: tuple[float, ...]
    held_out: Judge | None
    segment_seconds: float | None
    minutes: float
    """How long a judge that is away is waited for."""

    @property
    def all(self) -> tuple[Judge, ...]:
        """Every judge."""
        return (*self.rewards, *([self.held_out] if self.held_out is not None else []))

    def scores(self, pairs: PairSet, store: LabelStore) -> dict[tuple[str, ClipSide], Rewards]:
        """The weighted sum of the rewards of each clip; see `rewards_of`."""
        return rewards_of(pairs, store, self.rewards, self.weights, segment_seconds=self.segment_seconds)

    def held_out_scores(self, pairs: PairSet, store: LabelStore) -> dict[tuple[str, ClipSide], Rewards]:
        """The scores of the judge that training does not see; none where there is no such judge."""
        if self.held_out is None:
            return {}
        return rewards_of(pairs, store, [self.held_out], [1.0], segment_seconds=self.segment_seconds)


class Sitting:
    """Some of the judges over the pairs of one folder and their labels: while pairs are made, and when all are there.

    A context manager, which closes the labels.
    """

    def __init__(self, jury: Jury, judges: Sequence[Judge], folder: Path, labels: Path) -> None:
        """Args: `folder` is that of the pairs, `labels` the file that their labels go to."""
        self._jury, self._judges, self._folder = jury, judges, folder
        self._after_s = 0.0
        with ExitStack() as held:
            self.store = held.enter_context(LabelStore.open(labels))
            seconds = jury.segment_seconds
            self._ahead = held.enter_context(JudgingAhead(judges, folder, self.store, segment_seconds=seconds))
            self._held = held.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.__exit__(kind, error, trace)

    def take(self, pair: Pair) -> None:
        """Judges a pair that is on the disk in full, while the caller goes on."""
        self._ahead.take(pair)

    @property
    def seconds(self) -> float:
        """What the judges have taken so far, beside the sampler and after it."""
        return self._after_s + self._ahead.seconds

    def judged(self, poll: Callable[[], None]) -> PairSet:
        """The pairs, once every judge has answered; waits for those that are away.

        Raises:
            Interrupted, BadInput: see `judging.judge_all`.
        """
        self._ahead.finish(poll)
        pairs = PairSet.read(self._folder)
        patience = Patience(minutes=self._jury.minutes, poll=poll)
        started = time.monotonic()
        for judge in self._judges:
            judge_all(judge, pairs, self.store, segment_seconds=self._jury.segment_seconds, patience=patience)
        self._after_s += time.monotonic() - started
        return pairs


def seat_jury(inputs: OnlineInputs, poll: Callable[[], None]) -> Jury:
    """Makes the judges, waiting for those that are away, and refuses ones that have changed since the run began.

    Raises:
        Interrupted, BadInput: see `judging.waiting_for` and `rewards.build_judge`; a judge is another one now, or a
            reward failed its probe in this project and the run does not allow it.
    """
    config = inputs.config
    patience = Patience(minutes=config.judge_patience_min, poll=poll)
    seconds, guard = config.segment_seconds, config.guard.judge
    choices = (*config.rewards, *([guard] if guard is not None else []))
    judges = [waiting_for(partial(build_judge, choice, segment_seconds=seconds), patience) for choice in choices]
    count = len(config.rewards)
    _refuse_twins(judges, count)
    verdicts = read_verdicts(inputs.project.root)
    for judge in judges[:count]:
        verdict = verdict_on(verdicts, judge.annotator, [judge.instructions])
        if verdict is not None:
            allowed = config.learn.allow_failed_judge
            require_passed(verdict, where=verdict.card, setting="learn.allow_failed_judge", allowed=allowed)
    path = inputs.folder / "judges.json"
    row = {"instructions": [judge.instructions for judge in judges]}
    if path.exists() and read_object(path) != row:
        raise BadInput(f"{path}: a judge is not what it was when the run began; start another run")
    write_atomic(path, json.dumps(row, indent=2) + "\n")
    return Jury(
        rewards=tuple(judges[:count]),
        weights=tuple(choice.weight for choice in config.rewards),
        held_out=judges[count] if guard is not None else None,
        segment_seconds=seconds,
        minutes=config.judge_patience_min,
    )


def _refuse_twins(judges: Sequence[Judge], num_rewards: int) -> None:
    """Two judges of one name and one meaning share what is stored of them, and the second would hold nothing out."""
    seen: set[tuple[str, str]] = set()
    for index, judge in enumerate(judges):
        if (judge.annotator, judge.instructions) in seen:
            remedy = "give it once" if index < num_rewards else "a judge that is trained on is not held out"
            raise BadInput(f"{judge.annotator!r} is among the judges twice: {remedy}")
        seen.add((judge.annotator, judge.instructions))
