"""Judging ahead of the rest of a round: it can be told to stop, and asks no one twice who is away."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from densedpo.core.errors import Interrupted
from densedpo.core.workspace import Project
from densedpo.judge.pairset import PairSet
from densedpo.judge.protocol import SegmentAnswer
from densedpo.judge.store import LabelStore
from densedpo.learn.online.judging import JudgingAhead
from online_judges import Brightness


class Hangs(Brightness):
    """Answers when it is let go, and says when it was asked."""

    annotator = "hangs"

    def __init__(self) -> None:
        self.asked, self.let_go = threading.Event(), threading.Event()

    def judge(self, clips, segments):
        self.asked.set()
        assert self.let_go.wait(30)
        return super().judge(clips, segments)


class Drops(Brightness):
    """Its server never answers a question."""

    annotator = "drops"

    def __init__(self) -> None:
        self.num_asked = 0

    def judge(self, clips, segments):
        self.num_asked += 1
        return tuple(SegmentAnswer.failed("deadline", "no reply") for _ in segments)


@pytest.fixture
def rollouts(done: Project) -> PairSet:
    return PairSet.read(done.run("small") / "rounds/0000/pairs/rollouts")


def test_a_signal_is_seen_while_a_judge_is_waited_for(rollouts: PairSet, tmp_path: Path):
    judge = Hangs()

    def told() -> None:
        assert judge.asked.wait(30)
        judge.let_go.set()  # the question that is under way is waited for; it had no answer when the signal was seen
        raise Interrupted("stopped by SIGTERM")

    with (
        LabelStore.open(tmp_path / "labels.db") as store,
        JudgingAhead([judge], rollouts.folder, store, segment_seconds=None) as ahead,
    ):
        ahead.take(next(iter(rollouts)))
        with pytest.raises(Interrupted, match="SIGTERM"):
            ahead.finish(told)


def test_who_has_been_away_is_asked_no_more_ahead(rollouts: PairSet, tmp_path: Path):
    """Of 4 pairs one is asked about; the judge beside it has answered that one too, and the others wait for both."""
    judge = Drops()
    with LabelStore.open(tmp_path / "labels.db") as store:
        with JudgingAhead([Brightness(), judge], rollouts.folder, store, segment_seconds=None) as ahead:
            for pair in rollouts:
                ahead.take(pair)
        assert (judge.num_asked, len(store.judgements(rollouts.hashes))) == (1, 1)
