"""The desk of a study: hands items out, and takes in what people chose.

An item is handed to `overlap` people, each of whom holds it for as long as there are signs of life. Gold items and
repeats lie between the others and look like them. A submission becomes rows of the label store in the same transaction
that stores it; a later submission of the same item follows it, and nothing is ever overwritten.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from densedpo.core.errors import BadInput
from densedpo.core.records import Judgement
from densedpo.core.seeds import generator
from densedpo.judge.database import Database
from densedpo.judge.pairset import PairSet, ranges_of
from densedpo.judge.store import append_rows
from densedpo.judge.studies import ledger
from densedpo.judge.studies.records import (
    Assignment,
    Held,
    Item,
    Kind,
    Person,
    Progress,
    SaveRequest,
    State,
    Stored,
    Study,
)
from densedpo.judge.studies.setup import shown_left
from densedpo.judge.studies.verdicts import compared_by_scores, compared_in_parts

REPEAT_GAP: Final = 8  # items between the first and the second time


class NotYours(Exception):
    """There is no such assignment, or it is somebody else's: the two are not told apart."""


class BadChoice(BadInput):
    """A choice that does not fit its item, or was submitted before it was complete."""


class Conflict(Exception):
    """A save came again under its id and said something else."""


@dataclass(frozen=True, slots=True)
class Desk:
    """One study on one set of pairs. Safe to share between threads: every question is one transaction."""

    database: Database
    study: Study
    pairs: PairSet
    items: Mapping[str, Item]
    side_key: bytes
    clock: Callable[[], float] = time.time

    @classmethod
    def open(cls, database: Database, study: Study, pairs: PairSet, *, clock: Callable[[], float] = time.time) -> Desk:
        """The desk of a study that `open_study` opened; items about pairs that were made anew are left out."""
        with database.writing() as connection:
            found = ledger.items(connection, study.name)
            key = ledger.studio_key(connection, "sides")
        current = {item.id: item for item in found if pairs.hashes.get(item.pair_id) == item.pair_hash}
        return cls(database, study, pairs, current, key, clock)

    def hand_out(self, person: Person, *, count: int = 2) -> tuple[Held, ...]:
        """The item that a person is at, and those that come next, so that they can be loaded ahead.

        Fewer than `count` where there are no more for this person.
        """
        with self.database.writing() as connection:
            mine = ledger.assignments(connection, self.study.name, person=person.id)
            open_ = [each for each in mine if each.state == "open" and each.item in self.items]
            held = [each for each in open_ if self._keeps(connection, each)][:count]
            until = self.clock() + self._lease_s
            for each in held:
                ledger.set_assignment(connection, each.id, state="open", leased_until=until)
            while len(held) < count:
                drawn = self._draw(connection, person, mine)
                if drawn is None:
                    break
                ledger.add_assignment(connection, self.study.name, drawn)
                mine.append(drawn)
                held.append(drawn)
            return self._with_choices(connection, held)

    def look_up(self, person: Person, assignment_id: str) -> Held:
        """An item that a person has or had, to go back to it.

        Raises:
            NotYours: there is no such assignment of theirs.
        """
        with self.database.reading() as connection:
            return self._with_choices(connection, [self._of(connection, person, assignment_id)])[0]

    def history(self, person: Person) -> tuple[Assignment, ...]:
        """What a person has decided, oldest first."""
        with self.database.reading() as connection:
            mine = ledger.assignments(connection, self.study.name, person=person.id)
        return tuple(each for each in mine if each.state != "open" and each.item in self.items)

    def save(self, person: Person, request: SaveRequest) -> Stored:
        """Stores what a person chose. The same save may come any number of times.

        Raises:
            NotYours: no such assignment of theirs.
            Conflict: the id is stored with another content.
            BadChoice: it does not fit the item, or is not complete and was submitted.
            BadInput: the database cannot be written; nothing was stored.
        """
        with self.database.writing() as connection:
            assignment = self._of(connection, person, request.assignment)
            stored = ledger.stored_meaning(connection, request.id)
            if stored is not None:
                if stored != (person.id, ledger.meaning(request)):
                    raise Conflict
                return Stored(is_new=False, extra=False, state=assignment.state)
            item = self.items[assignment.item]
            self._check(item, request)
            ledger.add_save(connection, self.study, person.id, request)
            state = self._after(assignment, request)
            extra = self._is_extra(connection, assignment)
            ledger.set_assignment(connection, assignment.id, state=state, leased_until=self.clock() + self._lease_s)
            if request.kind != "draft" and assignment.kind != "repeat" and item.copy is None:
                append_rows(connection, self._verdict(connection, person, assignment, request), self.pairs.hashes)
        return Stored(is_new=True, extra=extra, state=state)

    def progress(self, person: Person) -> Progress:
        """How many items a person has done, and how many there are for them."""
        with self.database.reading() as connection:
            mine = ledger.assignments(connection, self.study.name, person=person.id)
            taken = ledger.places_taken(connection, self.study.name, self.clock())
        states = [each.state for each in mine if each.item in self.items]
        seen = {each.item for each in mine}
        free = sum(self._is_free(item, taken, seen) for item in self.items.values())
        return Progress(
            num_done=states.count("done"), num_skipped=states.count("skipped"), num_left=states.count("open") + free
        )

    def has_had(self, person: Person, item: Item) -> bool:
        """Whether a person may see an item: it was handed to them at some time."""
        with self.database.reading() as connection:
            return ledger.has_had(connection, self.study.name, person.id, item.id)

    @property
    def _lease_s(self) -> float:
        return 60 * self.study.settings.lease_minutes

    def _of(self, connection: Connection, person: Person, assignment_id: str) -> Assignment:
        found = ledger.assignment(connection, self.study.name, assignment_id)
        if found is None or found.person != person.id or found.item not in self.items:
            raise NotYours
        return found

    def _with_choices(self, connection: Connection, held: Sequence[Assignment]) -> tuple[Held, ...]:
        choices = ledger.last_choices(connection, [each.id for each in held])
        return tuple(Held(assignment=a, item=self.items[a.item], choice=choices.get(a.id)) for a in held)

    def _keeps(self, connection: Connection, assignment: Assignment) -> bool:
        """Whether an open item is still theirs: one they began always is, another only while there is a place."""
        if assignment.leased_until > self.clock() or assignment.kind != "plain":
            return True
        if assignment.id in ledger.last_choices(connection, [assignment.id]):
            return True
        return not self._is_extra(connection, assignment)

    def _is_extra(self, connection: Connection, assignment: Assignment) -> bool:
        """Whether others have come to hold every place of an item whose lease had run out."""
        if assignment.kind != "plain" or assignment.state == "done" or assignment.leased_until > self.clock():
            return False
        taken = ledger.places_taken(connection, self.study.name, self.clock(), item=assignment.item)
        return taken.get(assignment.item, 0) >= self.study.settings.overlap

    def _is_free(self, item: Item, taken: Mapping[str, int], seen: set[str]) -> bool:
        return not item.is_hidden and item.id not in seen and taken.get(item.id, 0) < self.study.settings.overlap

    def _draw(self, connection: Connection, person: Person, mine: Sequence[Assignment]) -> Assignment | None:
        """The next item for a person: usually the first that has a place, sometimes gold, sometimes one again."""
        settings, number = self.study.settings, len(mine) + 1
        taken = ledger.places_taken(connection, self.study.name, self.clock())
        seen = {each.item for each in mine}
        free = next((item for item in self.items.values() if self._is_free(item, taken, seen)), None)
        if free is None:
            return None
        drawn = generator(settings.seed, "queue", self.study.name, person.id, number).random()
        new = [item for item in self.items.values() if item.is_hidden and item.id not in seen]
        of_kind: tuple[tuple[float, Kind, list[Item]], ...] = (
            (settings.gold_share, "gold", [item for item in new if item.gold is not None]),
            (settings.repeat_share, "repeat", self._to_repeat(mine)),
            (settings.frozen_share, "gold", [item for item in new if item.copy is not None]),
        )
        for share, kind, items in of_kind:
            if drawn < share and items:
                return self._assignment(person, items[0], kind, number)
            if drawn < share:
                break
            drawn -= share
        return self._assignment(person, free, "plain", number)

    def _to_repeat(self, mine: Sequence[Assignment]) -> list[Item]:
        """What a person has done a while ago, and only once."""
        again = {each.item for each in mine if each.kind == "repeat"}
        old = [each for each in mine[:-REPEAT_GAP] if each.kind == "plain" and each.state == "done"]
        return [self.items[each.item] for each in old if each.item in self.items and each.item not in again]

    def _assignment(self, person: Person, item: Item, kind: Kind, number: int) -> Assignment:
        return Assignment(
            id=ledger.opaque(),
            item=item.id,
            person=person.id,
            number=number,
            kind=kind,
            left=shown_left(self.side_key, item.id, person.id, number),
            state="open",
            leased_until=self.clock() + self._lease_s,
        )

    def _verdict(
        self, connection: Connection, person: Person, assignment: Assignment, request: SaveRequest
    ) -> list[Judgement]:
        item = self.items[assignment.item]
        pair = self.pairs.by_id[item.pair_id]
        if self.study.settings.kind == "segments":
            return compared_in_parts(self.study, person, pair, assignment, request)
        clips = {each.id: each.side for each in self.items.values() if each.pair_hash == item.pair_hash}
        mine = ledger.assignments(connection, self.study.name, person=person.id)
        side_of = {each.id: clips[each.item] for each in mine if each.item in clips and each.kind != "repeat"}
        saves = ledger.final_saves(connection, self.study.name, person=person.id)
        scored = [save for save in saves if save.kind == "submit" and save.assignment in side_of]
        scores = {side_of[save.assignment]: save.choice.scores for save in scored}
        return compared_by_scores(self.study, person, pair, request, scores)

    def _after(self, assignment: Assignment, request: SaveRequest) -> State:
        # a draft of an item that was decided leaves it decided until it is submitted again
        states: dict[str, State] = {"draft": assignment.state, "submit": "done", "skip": "skipped"}
        return states[request.kind]

    def _check(self, item: Item, request: SaveRequest) -> None:
        settings, choice = self.study.settings, request.choice
        rows = settings.dimensions if settings.kind == "segments" else ()
        categories = settings.categories if settings.kind == "scores" else ()
        length = len(ranges_of(self.pairs.by_id[item.pair_id], settings.segment_seconds))
        if not set(choice.answers) <= set(rows) or not set(choice.scores) <= set(categories):
            raise BadChoice("this study asks for other rows or categories; load the page again")
        if any(len(labels) != length for labels in choice.answers.values()):
            raise BadChoice(f"this item has {length} parts; load the page again")
        if request.kind == "skip" and choice.reason is None:
            raise BadChoice("to skip an item, say why")
        if request.kind != "submit":
            return
        open_ = [row for row in rows if None in choice.answers.get(row, [None])]
        open_ += [category for category in categories if category not in choice.scores]
        if settings.clip_answer and settings.kind == "segments" and choice.clip is None:
            open_.append("whole clip")
        if open_:
            raise BadChoice(f"not answered yet: {', '.join(open_)}")
        if settings.must_watch and not choice.watched:
            raise BadChoice("play the item to its end once before you submit it")
