"""What a judge is: two clips in, one answer for each segment out.

Whoever judges (the oracle, a comparison with real video, later a model or a person) writes the same rows, so that no
later stage can tell them apart but by the annotator's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from densedpo.core.errors import BadInput
from densedpo.core.provenance import sha256_json
from densedpo.core.records import Pair

Answer = Literal["a", "b", "tie", "skip"]
# malformed: no answer could be read; truncated: cut at the length limit; empty: no text; refused: the model would not;
# filtered: a content filter stopped it; unavailable: every attempt to reach the server failed; deadline: no time left
FailureKind = Literal["malformed", "truncated", "empty", "refused", "filtered", "unavailable", "deadline"]
UNREADABLE: Final[frozenset[FailureKind]] = frozenset({"malformed", "truncated", "empty"})
Frames = NDArray[np.uint8]  # [F, H, W, 3], RGB


class JudgeUnavailable(BadInput):
    """A judge does not answer now and may later: the same question can be asked again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairClips:
    """A pair with its decoded clips, each uint8 [F, H, W, 3]."""

    pair: Pair
    a: Frames
    b: Frames


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why a question has no answer; never a vote."""

    kind: FailureKind
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What answers cost. `money` is in the currency of the prices that were given, None where a price is not known."""

    num_requests: int = 0  # each attempt is one
    num_cached: int = 0  # answered from the disk
    input_tokens: int = 0
    output_tokens: int = 0
    money: float | None = 0.0

    def plus(self, other: Cost) -> Cost:
        """Both together."""
        return Cost(
            num_requests=self.num_requests + other.num_requests,
            num_cached=self.num_cached + other.num_cached,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            money=None if self.money is None or other.money is None else self.money + other.money,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentAnswer:
    """Which clip is better in one segment. Higher scores are better.

    `confidence` is the probability in [0, 1] that the answer is right (None: not known). Where `failure` says why there
    is no answer, `answer` is `skip`; nothing is stored then.
    """

    answer: Answer
    score_a: float | None = None
    score_b: float | None = None
    confidence: float | None = None
    failure: Failure | None = None
    cost: Cost = Cost()

    @classmethod
    def scored(cls, score_a: float, score_b: float, margin: float) -> SegmentAnswer:
        """The answer of two scores: the higher one wins, within the margin it is a tie (`better`)."""
        return cls(answer=better(score_a, score_b, margin), score_a=score_a, score_b=score_b)

    @classmethod
    def failed(cls, kind: FailureKind, detail: str, *, cost: Cost | None = None) -> SegmentAnswer:
        """No answer, and why."""
        return cls(answer="skip", failure=Failure(kind=kind, detail=detail), cost=cost or Cost())


@runtime_checkable
class Judge(Protocol):
    """Judges pairs segment by segment, the same way every time for the same pair."""

    @property
    def annotator(self) -> str:
        """The name under which answers are stored; other options are another annotator."""
        ...

    @property
    def instructions(self) -> str:
        """What was judged and with which options; a new version of the instructions judges every pair again."""
        ...

    def check(self, pair: Pair) -> None:
        """Looks at a pair before any video is decoded.

        Raises:
            BadInput: this judge cannot judge it.
        """
        ...

    def judge(self, clips: PairClips, segments: Sequence[tuple[int, int]]) -> tuple[SegmentAnswer, ...]:
        """One answer for each segment, a half-open range of pixel frames.

        A run may call it from several threads where it is told to judge several pairs at once.
        """
        ...


class Watch(Protocol):
    """Looks on while a judge answers, and ends a run whose answers are worth nothing."""

    def may_store(self, *, at_end: bool) -> bool:
        """Whether the answers so far may be stored; asked after every pair, and once more at the end.

        Raises:
            BadInput: the judge says nothing about the clips.
        """
        ...


def annotator_name(kind: str, options: Mapping[str, object], defaults: Mapping[str, object]) -> str:
    """`kind` for a judge with the default options, else `kind-` and eight digits of the hash of its options."""
    return kind if options == defaults else f"{kind}-{sha256_json(dict(options))[:8]}"


def better(score_a: float, score_b: float, margin: float) -> Literal["a", "b", "tie"]:
    """The clip with the higher score; a tie where they differ by less than the margin, or not at all."""
    if score_a == score_b or abs(score_a - score_b) < margin:
        return "tie"
    return "a" if score_a > score_b else "b"
