"""What a judge is: two clips in, one answer for each segment out.

Whoever judges (the oracle, a comparison with real video, later a model or a person) writes the same rows, so that no
later stage can tell them apart but by the annotator's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from densedpo.core.provenance import sha256_json
from densedpo.core.records import Pair

Answer = Literal["a", "b", "tie", "skip"]
Frames = NDArray[np.uint8]  # [F, H, W, 3], RGB


@dataclass(frozen=True, kw_only=True, slots=True)
class PairClips:
    """A pair with its decoded clips, each uint8 [F, H, W, 3]."""

    pair: Pair
    a: Frames
    b: Frames


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentAnswer:
    """Which clip is better in one segment. Higher scores are better; `confidence` is in [0, 1]."""

    answer: Answer
    score_a: float | None = None
    score_b: float | None = None
    confidence: float | None = None


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
        """One answer for each segment, a half-open range of pixel frames."""
        ...


def annotator_name(kind: str, options: Mapping[str, object], defaults: Mapping[str, object]) -> str:
    """`kind` for a judge with the default options, else `kind-` and eight digits of the hash of its options."""
    return kind if options == defaults else f"{kind}-{sha256_json(dict(options))[:8]}"


def better(score_a: float, score_b: float, margin: float) -> Literal["a", "b", "tie"]:
    """The clip with the higher score; a tie where they differ by less than the margin, or not at all."""
    if score_a == score_b or abs(score_a - score_b) < margin:
        return "tie"
    return "a" if score_a > score_b else "b"
