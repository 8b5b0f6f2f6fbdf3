"""A study's answers as flat rows, for the dashboard and for download: the one place where sides are undone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from densedpo.core.records import ClipSide
from densedpo.judge.pairset import ranges_of
from densedpo.judge.studies import ledger
from densedpo.judge.studies.desk import Desk
from densedpo.judge.studies.records import Assignment, Copy, Item, Kind, Save, Screen

SCHEMA: Final = 2
_SIGN: Final[Mapping[str, int]] = {"a": 1, "b": -1, "tie": 0}
_SIGN_OF: Final[Mapping[ClipSide, Mapping[Screen, int]]] = {  # by the clip that was on the left
    "a": {"left": 1, "right": -1, "tie": 0},
    "b": {"left": -1, "right": 1, "tie": 0},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Decided:
    """One item that one person has submitted or skipped, with what they last said about it.

    `by_row` has the answers to each row of the timeline: +1 where a is better, -1 where b is, 0 for a tie.
    """

    person: str
    assignment: Assignment
    item: Item
    save: Save
    by_row: Mapping[str, tuple[int, ...]]

    def signs(self, row: str) -> tuple[int, ...]:
        """The answers to a row of the timeline; () where there are none."""
        return self.by_row.get(row, ())


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerRow:
    """One decision as it is exported. Signs: +1 where a is better. `left` is what stood on the left.

    With a `copy`, a is the clip on that `side` of the pair as it was made and b its altered copy.
    """

    schema: int
    study: str
    study_version: int
    pair_id: str
    pair_hash: str
    annotator: str
    number: int
    kind: Kind
    decision: Literal["submit", "skip"]
    left: Literal["a", "b"]
    side: Literal["a", "b"] | None
    copy: Copy | None
    ranges: tuple[tuple[int, int], ...]
    labels: dict[str, tuple[int, ...]]
    clip_label: int | None
    scores: dict[str, int]
    skip_reason: str | None
    note: str
    active_ms: int
    replays: int
    created_at: str


def decided(desk: Desk) -> list[Decided]:
    """Everything that was submitted or skipped, in the order in which it arrived."""
    with desk.database.reading() as connection:
        of = {each.id: each for each in ledger.assignments(connection, desk.study.name)}
        saves = ledger.final_saves(connection, desk.study.name)
        names = {person.id: person.name for person in ledger.people(connection)}
    found = []
    for save in saves:
        assignment = of[save.assignment]
        item = desk.items.get(assignment.item)
        if item is not None:
            by_row = {row: _signs(given, assignment.left) for row, given in save.choice.answers.items()}
            found.append(Decided(person=names[save.person], assignment=assignment, item=item, save=save, by_row=by_row))
    return found


def _signs(given: Sequence[Screen | None], left: ClipSide) -> tuple[int, ...]:
    sign_of = _SIGN_OF[left]
    return tuple([sign_of[answer] for answer in given if answer is not None])


def answer_rows(desk: Desk) -> list[AnswerRow]:
    """All decisions of a study about the pairs as they are now."""
    return [_row(desk, each) for each in decided(desk)]


def _row(desk: Desk, each: Decided) -> AnswerRow:
    choice, pair = each.save.choice, desk.pairs.by_id[each.item.pair_id]
    submitted = each.save.kind == "submit"
    return AnswerRow(
        schema=SCHEMA,
        study=desk.study.name,
        study_version=each.save.study_version,
        pair_id=pair.id,
        pair_hash=each.item.pair_hash,
        annotator=each.person,
        number=each.assignment.number,
        kind=each.assignment.kind,
        decision="submit" if submitted else "skip",
        left=each.assignment.left,
        side=each.item.side,
        copy=each.item.copy,
        ranges=ranges_of(pair, desk.study.settings.segment_seconds),
        labels={row: each.signs(row) for row in choice.answers} if submitted else {},
        clip_label=_SIGN[each.assignment.side_of(choice.clip)] if submitted and choice.clip is not None else None,
        scores=dict(choice.scores) if submitted else {},
        skip_reason=None if submitted else choice.reason,
        note=choice.note,
        active_ms=choice.active_ms,
        replays=choice.replays,
        created_at=each.save.created_at,
    )
