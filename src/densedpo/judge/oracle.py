"""The oracle as a judge: it knows the scene of each pair, so its labels are the truth unless an error is planted.

Planted errors make the studies possible that people's labels do not: how much label noise training survives, and what a
judge does to motion who likes still clips better.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from pydantic import Field

from densedpo.core.config import Config
from densedpo.core.errors import BadInput
from densedpo.core.records import Pair, from_row
from densedpo.core.seeds import generator
from densedpo.judge.protocol import Answer, PairClips, SegmentAnswer, annotator_name, better
from densedpo.world.oracle import Scores, score_clip
from densedpo.world.render import FRAME_SIZE
from densedpo.world.scene import Scene

_VERSION: Final = 1
_OTHER: Final[dict[Answer, Answer]] = {"a": "b", "b": "a"}


class OracleConfig(Config):
    """Options of `judge oracle`."""

    segment_seconds: float = Field(default=1.0, gt=0, description="length of a segment")
    margin: float = Field(default=0.005, ge=0, description="scores that differ by less are a tie")
    error_rate: float = Field(default=0.0, ge=0, le=1, description="share of answers (not ties) that are turned round")
    motion_bias: float = Field(
        default=0.0, ge=0, description="added to a score for each unit of dynamic degree that the clip moves less"
    )
    seed: int = Field(default=0, ge=0, description="which answers are turned round")


class OracleJudge:
    """Scores both clips from pixels and the known scene; the higher mean of three scores wins.

    The mean is over text alignment, visual quality and temporal consistency, as DenseDPO's labellers compare them;
    dynamic degree is left out, so that motion neither wins nor loses unless a bias is planted.
    """

    def __init__(self, config: OracleConfig) -> None:
        self._config = config
        options = config.model_dump()
        self._annotator = annotator_name("oracle", options, OracleConfig().model_dump())
        self._instructions = f"oracle {_VERSION}: {json.dumps(options, sort_keys=True)}"

    @property
    def annotator(self) -> str:
        """`oracle`, with a hash of the options where they are not the default ones."""
        return self._annotator

    @property
    def instructions(self) -> str:
        """The oracle's version and options."""
        return self._instructions

    def check(self, pair: Pair) -> None:
        """Refuses a pair that is not of the world.

        Raises:
            BadInput: the pair has no scene or an unreadable one, or its clips have another size than the world's.
        """
        _scene(pair)
        if (pair.height, pair.width) != (FRAME_SIZE, FRAME_SIZE):
            raise BadInput(
                f"pair {pair.id} is {pair.width}x{pair.height} and the oracle reads {FRAME_SIZE}x{FRAME_SIZE} only; "
                "judge it with `densedpo judge reference`"
            )

    def judge(self, clips: PairClips, segments: Sequence[tuple[int, int]]) -> tuple[SegmentAnswer, ...]:
        """One answer for each segment, with the scores before any answer was turned round."""
        scene = _scene(clips.pair)
        scores_a = score_clip(clips.a, scene, segments=segments, fps=clips.pair.fps).segments
        scores_b = score_clip(clips.b, scene, segments=segments, fps=clips.pair.fps).segments
        return tuple(
            self._answer(clips.pair.id, index, a, b)
            for index, (a, b) in enumerate(zip(scores_a, scores_b, strict=True))
        )

    def _answer(self, pair_id: str, segment: int, a: Scores, b: Scores) -> SegmentAnswer:
        bias = self._config.motion_bias
        score_a = _overall(a) + bias * max(0.0, b.dynamic_degree - a.dynamic_degree)
        score_b = _overall(b) + bias * max(0.0, a.dynamic_degree - b.dynamic_degree)
        answer = better(score_a, score_b, self._config.margin)
        # drawn for every segment, so that another margin does not change which answers are turned round
        turned = generator(self._config.seed, "oracle error", pair_id, segment).random() < self._config.error_rate
        return SegmentAnswer(answer=_turned(answer) if turned else answer, score_a=score_a, score_b=score_b)


def _turned(answer: Answer) -> Answer:
    return _OTHER.get(answer, answer)


def _overall(scores: Scores) -> float:
    return (scores.text_alignment + scores.visual_quality + scores.temporal_consistency) / 3


def _scene(pair: Pair) -> Scene:
    if pair.scene is None:
        raise BadInput(
            f"pair {pair.id} has no known scene, and the oracle judges clips of the procedural world only; "
            "judge it with `densedpo judge reference`"
        )
    return from_row(Scene, pair.scene, f"pair {pair.id}: scene")
