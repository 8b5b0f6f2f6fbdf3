"""The judge of corrupted pairs: which clip is the real one is known from how the pair was made, so nobody looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydantic import Field

from densedpo.core.config import Config
from densedpo.core.errors import BadInput
from densedpo.core.records import ClipSide, Pair
from densedpo.judge.protocol import PairClips, SegmentAnswer

_VERSION: Final = 1


class RealConfig(Config):
    """Options of `judge real`."""

    segment_seconds: float = Field(default=1.0, gt=0, description="length of a segment")


class RealJudge:
    """The real clip wins every segment.

    A real clip is taken to be better than its worse copy in every segment, also in one that a shuffle happened to leave
    in its place. Inside a segment, a regenerated copy is worse only where it was made anew: the pair's mask says where,
    and learning reads it from there.
    """

    @property
    def annotator(self) -> str:
        """`real`: it has no options that change an answer."""
        return "real"

    @property
    def instructions(self) -> str:
        """The rule and its version."""
        return f"real {_VERSION}: the clip that is not corrupted is better"

    def check(self, pair: Pair) -> None:
        """Refuses a pair of which neither clip is known to be worse.

        Raises:
            BadInput: the pair is not a corrupted one.
        """
        self._real(pair)

    def judge(self, clips: PairClips, segments: Sequence[tuple[int, int]]) -> tuple[SegmentAnswer, ...]:
        """The same answer for each segment."""
        real = self._real(clips.pair)
        return tuple(SegmentAnswer(answer=real) for _ in segments)

    def _real(self, pair: Pair) -> ClipSide:
        if pair.corruption is None:
            raise BadInput(
                f"pair {pair.id} is {pair.kind}: neither of its clips is the corrupted copy of the other; "
                "use pairs of `densedpo generate corrupted`, or another judge"
            )
        return pair.corruption.real
