"""What a submission or a skip says about a pair: rows of the label store, with the sides undone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from densedpo.core.provenance import sha256_json
from densedpo.core.records import ClipSide, Judgement, Pair
from densedpo.judge.pairset import ranges_of
from densedpo.judge.run import now, tool_version
from densedpo.judge.studies.records import Assignment, Choice, Person, SaveRequest, Study

Answer = Literal["a", "b", "tie", "skip"]


def compared_in_parts(
    study: Study, person: Person, pair: Pair, assignment: Assignment, request: SaveRequest
) -> list[Judgement]:
    """An answer for each part by the study's first dimension, and one about the whole clip where it is asked for.

    A skip answers each with `skip`, which takes back what was answered before.
    """
    choice, settings = request.choice, study.settings
    asked: list[tuple[int | None, tuple[int, int]]] = list(enumerate(ranges_of(pair, settings.segment_seconds)))
    answers = list(choice.answers.get(settings.dimensions[0], []))
    if settings.clip_answer:
        asked, answers = [*asked, (None, (0, pair.num_frames))], [*answers, choice.clip]
    if request.kind == "skip":
        said: list[Answer] = ["skip"] * len(asked)
    else:
        said = [assignment.side_of(answer) for answer in answers if answer is not None]
    return [
        _row(study, person, pair, request, segment=segment, frames=frames, answer=answer, left=assignment.left)
        for (segment, frames), answer in zip(asked, said, strict=True)
    ]


def compared_by_scores(
    study: Study, person: Person, pair: Pair, request: SaveRequest, scores: Mapping[ClipSide | None, float]
) -> list[Judgement]:
    """The comparison of a pair by its clips' mean scores, equal being a tie; none until both clips have theirs.

    To skip one of the two takes back what they were compared to before.
    """
    whole = (0, pair.num_frames)
    if request.kind == "skip":
        return [_row(study, person, pair, request, segment=None, frames=whole, answer="skip", left="a")]
    if not {"a", "b"} <= set(scores):
        return []
    a, b = scores["a"], scores["b"]
    answer: Answer = "tie" if a == b else "a" if a > b else "b"
    return [_row(study, person, pair, request, segment=None, frames=whole, answer=answer, left="a", scores=(a, b))]


def mean_score(choice: Choice) -> float:
    """The mean over the categories."""
    return sum(choice.scores.values()) / len(choice.scores)


def _row(
    study: Study,
    person: Person,
    pair: Pair,
    request: SaveRequest,
    *,
    segment: int | None,
    frames: tuple[int, int],
    answer: Answer,
    left: ClipSide,
    scores: tuple[float, float] | None = None,
) -> Judgement:
    return Judgement(
        id=sha256_json(["studio", request.id, segment])[:32],
        pair_id=pair.id,
        annotator=person.name,
        segment=segment,
        start_frame=frames[0],
        stop_frame=frames[1],
        answer=answer,
        score_a=None if scores is None else scores[0],
        score_b=None if scores is None else scores[1],
        left=left,
        duration_ms=request.choice.active_ms,
        replays=request.choice.replays,
        instructions=f"{study.name} v{study.version}, {study.settings.instructions_version}",
        tool_version=tool_version(),
        created_at=now(),
    )
