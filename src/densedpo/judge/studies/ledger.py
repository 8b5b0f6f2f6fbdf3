"""The SQL of the studio: each function is one query or one row, inside a transaction of the caller."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Sequence
from typing import cast

from sqlalchemy import Connection, RowMapping, and_, func, insert, or_, select, update

from densedpo.core.records import ClipSide
from densedpo.judge import schema
from densedpo.judge.run import now
from densedpo.judge.studies.config import StudyConfig
from densedpo.judge.studies.records import (
    Assignment,
    Choice,
    Item,
    Kind,
    Person,
    Save,
    SaveKind,
    SaveRequest,
    State,
    Study,
)


def opaque() -> str:
    """An id that says nothing and cannot be guessed: 128 random bits."""
    return secrets.token_urlsafe(16)


def digest(text: str) -> str:
    """sha256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def newest_study(connection: Connection, name: str) -> Study | None:
    """The study of a name in its newest version."""
    table = schema.studies
    query = select(table).where(table.c.name == name).order_by(table.c.version.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    if row is None:
        return None
    settings = StudyConfig.model_validate_json(row["settings"], strict=True)
    return Study(name=name, version=row["version"], pairs=row["pairs"], settings=settings)


def add_study(connection: Connection, study: Study) -> None:
    """Appends a version of a study."""
    connection.execute(
        insert(schema.studies).values(
            name=study.name,
            version=study.version,
            pairs=study.pairs,
            settings=study.settings.model_dump_json(),
            created_at=now(),
        )
    )


def items(connection: Connection, study: str) -> list[Item]:
    """The items of a study in their order."""
    table = schema.study_items
    rows = connection.execute(select(table).where(table.c.study == study).order_by(table.c.position)).mappings()
    return [
        Item(
            id=row["id"],
            position=row["position"],
            pair_id=row["pair_id"],
            pair_hash=row["pair_hash"],
            side=row["side"],
            media=row["media"],
            flipped=bool(row["flipped"]),
            gold=None if row["gold"] is None else tuple(json.loads(row["gold"])),
            copy=row["copy"],
        )
        for row in rows
    ]


def add_items(connection: Connection, study: str, new: Sequence[Item]) -> None:
    """Appends items."""
    if new:
        connection.execute(
            insert(schema.study_items),
            [
                {
                    "study": study,
                    "id": item.id,
                    "position": item.position,
                    "pair_id": item.pair_id,
                    "pair_hash": item.pair_hash,
                    "side": item.side,
                    "media": item.media,
                    "flipped": item.flipped,
                    "gold": None if item.gold is None else json.dumps(item.gold),
                    "copy": item.copy,
                }
                for item in new
            ],
        )


def studio_key(connection: Connection, name: str) -> bytes:
    """A secret of this database, made when it is first asked for."""
    table = schema.studio_keys
    found = connection.execute(select(table.c.value).where(table.c.name == name)).scalar()
    if found is None:
        found = secrets.token_hex(32)
        connection.execute(insert(table).values(name=name, value=found))
    return bytes.fromhex(str(found))


def people(connection: Connection) -> list[Person]:
    """Everybody, by name."""
    table = schema.people
    return [_person(row) for row in connection.execute(select(table).order_by(table.c.name)).mappings()]


def person_by_id(connection: Connection, id_: str) -> Person | None:
    """The person of an id."""
    return _first_person(connection, schema.people.c.id, id_)


def person_by_name(connection: Connection, name: str) -> Person | None:
    """The person of a name."""
    return _first_person(connection, schema.people.c.name, name)


def person_by_token(connection: Connection, token: str) -> Person | None:
    """The person of a token. Only its hash is stored, and only the hash is looked up."""
    return _first_person(connection, schema.people.c.token_sha256, digest(token))


def set_person(connection: Connection, name: str, token: str, *, is_admin: bool, keep_sessions: bool) -> None:
    """Adds a person, or gives one who is there another token."""
    values = {"token_sha256": digest(token), "is_admin": is_admin}
    known = person_by_name(connection, name)
    if known is None:
        fresh = {"id": opaque(), "name": name, "session_key": secrets.token_hex(32), "created_at": now()}
        connection.execute(insert(schema.people).values(**values, **fresh))
        return
    if not keep_sessions:
        values["session_key"] = secrets.token_hex(32)
    connection.execute(update(schema.people).where(schema.people.c.id == known.id).values(**values))


def _first_person(connection: Connection, column: object, value: str) -> Person | None:
    row = connection.execute(select(schema.people).where(column == value)).mappings().first()  # type: ignore[arg-type]
    return None if row is None else _person(row)


def _person(row: RowMapping) -> Person:
    return Person(id=row["id"], name=row["name"], is_admin=bool(row["is_admin"]), session_key=row["session_key"])


def assignments(connection: Connection, study: str, *, person: str | None = None) -> list[Assignment]:
    """What was handed out, to one person or to all, in the order in which each person got it."""
    table = schema.assignments
    query = select(table).where(table.c.study == study)
    if person is not None:
        query = query.where(table.c.person == person)
    return [_assignment(row) for row in connection.execute(query.order_by(table.c.number)).mappings()]


def assignment(connection: Connection, study: str, id_: str) -> Assignment | None:
    """One assignment."""
    table = schema.assignments
    row = connection.execute(select(table).where(table.c.study == study, table.c.id == id_)).mappings().first()
    return None if row is None else _assignment(row)


def places_taken(connection: Connection, study: str, now_s: float, *, item: str | None = None) -> dict[str, int]:
    """How many people have judged each item or hold it at the moment; items that nobody has are left out."""
    table = schema.assignments
    held = or_(table.c.state == "done", and_(table.c.state == "open", table.c.leased_until > now_s))
    query = select(table.c.item, func.count()).where(table.c.study == study, table.c.kind == "plain", held)
    if item is not None:
        query = query.where(table.c.item == item)
    return {row[0]: int(row[1]) for row in connection.execute(query.group_by(table.c.item))}


def add_assignment(connection: Connection, study: str, new: Assignment) -> None:
    """Hands an item to a person."""
    connection.execute(
        insert(schema.assignments).values(
            study=study,
            id=new.id,
            item=new.item,
            person=new.person,
            number=new.number,
            kind=new.kind,
            left=new.left,
            state=new.state,
            leased_until=new.leased_until,
        )
    )


def set_assignment(connection: Connection, id_: str, *, state: State, leased_until: float) -> None:
    """What an assignment has become."""
    table = schema.assignments
    connection.execute(update(table).where(table.c.id == id_).values(state=state, leased_until=leased_until))


def _assignment(row: RowMapping) -> Assignment:
    return Assignment(
        id=row["id"],
        item=row["item"],
        person=row["person"],
        number=row["number"],
        kind=cast("Kind", row["kind"]),
        left=cast("ClipSide", row["left"]),
        state=cast("State", row["state"]),
        leased_until=row["leased_until"],
    )


def meaning(request: SaveRequest) -> str:
    """The hash by which a save that comes again is known to be the same."""
    return digest(f"{request.assignment}\n{request.kind}\n{request.choice.model_dump_json()}")


def stored_meaning(connection: Connection, id_: str) -> tuple[str, str] | None:
    """The person and the meaning of a stored save."""
    table = schema.saves
    query = select(table.c.person, table.c.payload_sha256).where(table.c.id == id_)
    row = connection.execute(query).first()
    return None if row is None else (str(row[0]), str(row[1]))


def add_save(connection: Connection, study: Study, person: str, request: SaveRequest) -> None:
    """Appends a save."""
    connection.execute(
        insert(schema.saves).values(
            id=request.id,
            study=study.name,
            study_version=study.version,
            assignment=request.assignment,
            person=person,
            kind=request.kind,
            payload=request.choice.model_dump_json(),
            payload_sha256=meaning(request),
            created_at=now(),
        )
    )


def last_choices(connection: Connection, assignment_ids: Iterable[str]) -> dict[str, Choice]:
    """What was last chosen about each of some assignments, of whatever kind the save was."""
    table = schema.saves
    wanted = list(assignment_ids)
    newest = select(func.max(table.c.number)).where(table.c.assignment.in_(wanted)).group_by(table.c.assignment)
    rows = connection.execute(select(table.c.assignment, table.c.payload).where(table.c.number.in_(newest)))
    return {row[0]: Choice.model_validate_json(row[1]) for row in rows}


def last_number(connection: Connection, study: str) -> int:
    """The number of the study's newest save, 0 before the first: what changes when anything changes."""
    table = schema.saves
    return int(connection.execute(select(func.max(table.c.number)).where(table.c.study == study)).scalar() or 0)


def final_saves(connection: Connection, study: str, *, person: str | None = None) -> list[Save]:
    """The last submission or skip of each assignment, in the order in which they arrived."""
    table = schema.saves
    decided = and_(table.c.study == study, table.c.kind != "draft")
    if person is not None:
        decided = and_(decided, table.c.person == person)
    newest = select(func.max(table.c.number)).where(decided).group_by(table.c.assignment)
    rows = connection.execute(select(table).where(table.c.number.in_(newest)).order_by(table.c.number)).mappings()
    return [
        Save(
            number=row["number"],
            assignment=row["assignment"],
            person=row["person"],
            kind=cast("SaveKind", row["kind"]),
            study_version=row["study_version"],
            choice=Choice.model_validate_json(row["payload"]),
            created_at=row["created_at"],
        )
        for row in rows
    ]


def has_had(connection: Connection, study: str, person: str, item: str) -> bool:
    """Whether an item was ever handed to a person."""
    table = schema.assignments
    query = select(table.c.id).where(table.c.study == study, table.c.item == item, table.c.person == person).limit(1)
    return connection.execute(query).first() is not None
