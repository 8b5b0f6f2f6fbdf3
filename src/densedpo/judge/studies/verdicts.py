"""What a submission or a skip says about a pair: rows of the label store, with the sides undone.

The first dimension of a study is its main question, of which preferences are made; further ones are stored under their
names, as are the categories of scores beside their mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from densedpo.core.provenance import sha256_json
from densedpo.core.records import ClipSide, Judgement, Pair
from densedpo.judge.pairset import ranges_of
from densedpo.judge.run import Range, now, tool_version
from densedpo.judge.studies.records import Assignment, Person, SaveRequest, Screen, Study

Answer = Literal["a", "b", "tie", "skip"]
Scores = Mapping[str, int]  # by category


@dataclass(frozen=True, kw_only=True, slots=True)
class _Said:
    """One answer. `segment` is None where it is about the whole clip, `dimension` where it is to the main question."""

    segment: int | None
    frames: Range
    answer: Answer
    dimension: str | None = None
    scores: tuple[float, float] | None = None


def compared_in_parts(
    study: Study, person: Person, pair: Pair, assignment: Assignment, request: SaveRequest
) -> list[Judgement]:
    """An answer for each part by each of the study's dimensions, and one about the whole clip where it is asked for.

    A skip answers each with `skip`, which takes back what was answered before.
    """
    choice, settings = request.choice, study.settings
    ranges = ranges_of(pair, settings.segment_seconds)

    def answers(given: Sequence[Screen | None]) -> list[Answer]:
        if request.kind == "skip":
            return ["skip"] * len(ranges)
        return [assignment.side_of(answer) for answer in given if answer is not None]

    said = [
        _Said(segment=segment, frames=frames, answer=answer, dimension=row if number else None)
        for number, row in enumerate(settings.dimensions)
        for segment, (frames, answer) in enumerate(zip(ranges, answers(choice.answers.get(row, [])), strict=True))
    ]
    if settings.clip_answer:
        whole: Answer = "skip" if request.kind == "skip" or choice.clip is None else assignment.side_of(choice.clip)
        said.append(_Said(segment=None, frames=(0, pair.num_frames), answer=whole))
    return [_row(study, person, pair, request, each, left=assignment.left) for each in said]


def compared_by_scores(
    study: Study, person: Person, pair: Pair, request: SaveRequest, scores: Mapping[ClipSide | None, Scores]
) -> list[Judgement]:
    """The comparison of a pair by its clips' mean scores and by each category; none until both clips have theirs.

    Equal scores are a tie. To skip one of the two takes back what they were compared to before.
    """
    dimensions = (None, *study.settings.categories)
    whole = (0, pair.num_frames)
    if request.kind == "skip":
        said = [_Said(segment=None, frames=whole, answer="skip", dimension=each) for each in dimensions]
    elif {"a", "b"} <= set(scores):
        said = [_compared(scores["a"], scores["b"], whole, dimension=each) for each in dimensions]
    else:
        said = []
    return [_row(study, person, pair, request, each, left="a") for each in said]


def _compared(of_a: Scores, of_b: Scores, whole: Range, *, dimension: str | None) -> _Said:
    a, b = (fmean(each.values()) if dimension is None else float(each[dimension]) for each in (of_a, of_b))
    answer: Answer = "tie" if a == b else "a" if a > b else "b"
    return _Said(segment=None, frames=whole, answer=answer, dimension=dimension, scores=(a, b))


def _row(study: Study, person: Person, pair: Pair, request: SaveRequest, said: _Said, *, left: ClipSide) -> Judgement:
    beside = [] if said.dimension is None else [said.dimension]
    return Judgement(
        id=sha256_json(["studio", request.id, said.segment, *beside])[:32],
        pair_id=pair.id,
        annotator=person.name,
        segment=said.segment,
        start_frame=said.frames[0],
        stop_frame=said.frames[1],
        answer=said.answer,
        score_a=None if said.scores is None else said.scores[0],
        score_b=None if said.scores is None else said.scores[1],
        left=left,
        duration_ms=request.choice.active_ms,
        replays=request.choice.replays,
        dimension=said.dimension,
        instructions=f"{study.name} v{study.version}, {study.settings.instructions_version}",
        tool_version=tool_version(),
        created_at=now(),
    )
