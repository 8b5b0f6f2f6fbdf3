"""The label store: the one module of the package that speaks SQL.

SQLite in WAL mode with synchronous=FULL, so that an answer that was acknowledged survives a power cut. Writers begin
with BEGIN IMMEDIATE: a second one waits for its turn instead of failing half way. Answers are appended and never
changed; a correction is a later answer of the same annotator to the same question.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import filelock
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, RowMapping, create_engine, event, insert, inspect, select
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from densedpo.core.errors import BadInput
from densedpo.core.records import Judgement, from_row
from densedpo.judge.schema import judgements as table

BUSY_TIMEOUT_S: Final = 10.0
_WRITE: Final = "densedpo_write"
_CHUNK: Final = 500  # values in one IN (...), well under every database's limit
# what an answer says; when and with which version of the tool it was sent may differ when a row is sent again
_MEANING: Final = ("pair_hash", "annotator", "segment", "start_frame", "stop_frame", "answer", "confidence", "left")

# the SQLite errors that a user can meet, by the start of their name, and what to do
_REMEDIES: Final[Mapping[str, str]] = {
    "SQLITE_NOTADB": "is not an SQLite database; move it away, or give the right project",
    "SQLITE_CORRUPT": "is damaged; restore a backup, or save what is left with `sqlite3 labels.db .recover`",
    "SQLITE_BUSY": "is being written by another process; wait until it is done and run this again, nothing was lost",
    "SQLITE_READONLY": "cannot be written; check the permissions of the file and of its folder",
    "SQLITE_CANTOPEN": "cannot be opened; check that the folder exists and may be written",
    "SQLITE_FULL": "cannot grow: the disk is full; what was stored so far is safe, free space and run this again",
    "SQLITE_IOERR": "cannot be read or written; check the disk, and that it is not a network file system",
}


class ConflictingAnswer(BadInput):
    """An id came again with another answer."""

    def __init__(self, stored: Mapping[str, object], sent: Mapping[str, object]) -> None:
        super().__init__(
            f"judgement {sent['id']} of pair {sent['pair_id']} by {sent['annotator']!r} is already stored with another "
            f"meaning (answer {stored['answer']}, now {sent['answer']}); use another id or annotator name"
        )
        self.judgement_id = str(sent["id"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Appended:
    """How many rows of a batch were new, and how many were stored before."""

    num_new: int
    num_known: int


class LabelStore:
    """Judgements on disk. Safe to share between threads; use it as a context manager."""

    def __init__(self, engine: Engine, path: Path) -> None:
        """For `open`; an engine whose schema is the newest."""
        self._engine = engine
        self._path = path

    @classmethod
    def open(cls, path: Path, *, create: bool = True, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Self:
        """Opens labels.db, creates it where it is missing, and brings an older schema up to date.

        Args:
            create: False refuses a file that does not exist.
            busy_timeout_s: how long a writer waits for another one.

        Raises:
            BadInput: missing, not a database, damaged, another program's, or written by a newer version.
        """
        if not create and not path.is_file():
            raise BadInput(
                f"{path} does not exist: nothing is judged yet; run `densedpo judge oracle` or `judge reference`"
            )
        engine = _engine(path, busy_timeout_s)
        with _one_clear_line(path):
            _bring_up_to_date(engine, path, busy_timeout_s)
            _check(engine, path)
        return cls(engine, path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.dispose()

    def append(self, judgements: Sequence[Judgement], pair_hashes: Mapping[str, str]) -> Appended:
        """Stores answers, all or none; rows whose id is already stored with the same meaning are left out.

        Args:
            pair_hashes: the hash of each pair that is judged, by pair id (`pairset.pair_hash`).

        Raises:
            ConflictingAnswer: an id is stored with another meaning; nothing was stored.
            BadInput: the database cannot be written; nothing was stored.
        """
        rows = [{**asdict(j), "pair_hash": pair_hashes[j.pair_id]} for j in judgements]
        with _one_clear_line(self._path), _writing(self._engine) as connection:
            known = {row["id"]: dict(row) for row in _select(connection, "id", (row["id"] for row in rows))}
            fresh = []
            for row in rows:
                stored = known.setdefault(row["id"], row)
                if stored is row:
                    fresh.append(row)
                elif any(stored[key] != row[key] for key in _MEANING):
                    raise ConflictingAnswer(stored, row)
            if fresh:
                connection.execute(insert(table), fresh)
        return Appended(num_new=len(fresh), num_known=len(rows) - len(fresh))

    def known(self, ids: Iterable[str]) -> frozenset[str]:
        """Those of the ids that are stored: what a judge need not judge again."""
        with _one_clear_line(self._path), self._engine.connect() as connection:
            return frozenset(row["id"] for row in _select(connection, "id", ids))

    def judgements(
        self, pair_hashes: Mapping[str, str], *, annotators: Collection[str] | None = None
    ) -> tuple[Judgement, ...]:
        """The answers about these pairs as they were made, in the order in which they were stored.

        Args:
            pair_hashes: pair id to hash; answers about earlier pairs of the same ids are left out.
            annotators: only theirs; None for all.
        """
        with _one_clear_line(self._path), self._engine.connect() as connection:
            rows = _select(connection, "pair_hash", pair_hashes.values())
        wanted = [
            row
            for row in sorted(rows, key=lambda row: int(row["number"]))
            if pair_hashes.get(row["pair_id"]) == row["pair_hash"]
            and (annotators is None or row["annotator"] in annotators)
        ]
        keys = [field.name for field in fields(Judgement)]
        return tuple(
            from_row(Judgement, {key: row[key] for key in keys}, f"{self._path}:{row['number']}") for row in wanted
        )


def _select(connection: Connection, column: str, values: Iterable[str]) -> list[RowMapping]:
    wanted = sorted(set(values))
    rows: list[RowMapping] = []
    for start in range(0, len(wanted), _CHUNK):
        query = select(table).where(table.c[column].in_(wanted[start : start + _CHUNK]))
        rows.extend(connection.execute(query).mappings())
    return rows


def _engine(path: Path, busy_timeout_s: float) -> Engine:
    engine = create_engine(URL.create("sqlite+pysqlite", database=str(path)), connect_args={"timeout": busy_timeout_s})

    @event.listens_for(engine, "connect")
    def _configure(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        assert isinstance(connection, sqlite3.Connection)
        connection.isolation_level = None  # the driver's own BEGIN is a deferred one: we send ours below
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA recursive_triggers = ON")  # else INSERT OR REPLACE deletes behind the triggers' back

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get(_WRITE) else "BEGIN")

    return engine


@contextmanager
def _writing(engine: Engine) -> Iterator[Connection]:
    """One transaction that holds the right to write from its start, committed at the end."""
    with engine.connect().execution_options(**{_WRITE: True}) as connection, connection.begin():
        yield connection


def _alembic(connection: Connection | None = None) -> AlembicConfig:
    config = AlembicConfig()  # no alembic.ini: the migrations travel with the package
    config.set_main_option("script_location", "densedpo.judge:migrations")
    config.attributes["connection"] = connection
    return config


def _bring_up_to_date(engine: Engine, path: Path, timeout_s: float) -> None:
    scripts = ScriptDirectory.from_config(_alembic())
    newest = scripts.get_current_head()
    if _revision(engine, path) == newest:
        return
    try:
        with filelock.FileLock(f"{path}.lock", timeout=timeout_s):
            present = _revision(engine, path)
            if present == newest:  # another process was faster
                return
            if present is not None and present not in {script.revision for script in scripts.walk_revisions()}:
                raise BadInput(
                    f"{path} was written by a newer densedpo (schema {present}; this one knows {newest}); upgrade it"
                )
            _set_wal(engine)
            with _writing(engine) as connection:
                command.upgrade(_alembic(connection), "head")
    except filelock.Timeout:
        raise BadInput(
            f"{path} is being upgraded by another process; wait until it is done and run this again"
        ) from None


def _revision(engine: Engine, path: Path) -> str | None:
    with engine.connect() as connection:
        revision = MigrationContext.configure(connection).get_current_revision()
        if revision is None and inspect(connection).get_table_names():
            raise BadInput(f"{path} is a database of another program; move it away, or give the right project")
        return revision


def _check(engine: Engine, path: Path) -> None:
    with engine.connect() as connection:
        fault = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if fault != "ok":
        raise BadInput(f"{path} {_REMEDIES['SQLITE_CORRUPT']} ({str(fault).splitlines()[0]})")


def _set_wal(engine: Engine) -> None:
    raw = engine.raw_connection()
    try:
        raw.cursor().execute("PRAGMA journal_mode = WAL")  # a property of the file, set once, outside any transaction
    finally:
        raw.close()


@contextmanager
def _one_clear_line(path: Path) -> Iterator[None]:
    """Turns the faults of a database file that a user can mend into one line; others are faults of ours and pass."""
    try:
        yield
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.DatabaseError):
            for prefix, remedy in _REMEDIES.items():
                if error.orig.sqlite_errorname.startswith(prefix):
                    raise BadInput(f"{path} {remedy}") from error
        raise
