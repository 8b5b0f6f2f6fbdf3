"""Opens the database of labels: SQLite in the project, or PostgreSQL for a team, behind the same transactions.

SQLite runs in WAL mode with synchronous=FULL, so that an answer that was acknowledged survives a power cut. Writers
begin with BEGIN IMMEDIATE (PostgreSQL: with one advisory lock): a second one waits for its turn instead of failing half
way, and what a writer reads before it writes cannot change under it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import filelock
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from densedpo.core.errors import BadInput

BUSY_TIMEOUT_S: Final = 10.0
_WRITE: Final = "densedpo_write"
_POSTGRESQL_LOCK: Final = 0x64656E7365  # "dense": the one lock that writers of this program take
_POOL: Final = {"pool_size": 8, "max_overflow": 32, "pool_timeout": 30}

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Database:
    """An open database whose schema is the newest. `name` is what messages call it; it holds no password."""

    engine: Engine
    name: str
    # SQLite lets whoever asks at the right moment write, so that with many threads one may ask in vain until it gives
    # up: the threads of this process take turns, and only processes compete
    _turn: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(cls, where: Path | URL, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Database:
        """Opens the database, creates its tables where it is new, and brings an older schema up to date.

        Args:
            where: the file of an SQLite database, or the URL of a PostgreSQL one.
            busy_timeout_s: how long a writer waits for another one (SQLite).

        Raises:
            BadInput: not a database, damaged, out of reach, another program's, or written by a newer version.
        """
        name = str(where) if isinstance(where, Path) else where.set(password=None, query={}).render_as_string()
        engine = _sqlite(where, busy_timeout_s) if isinstance(where, Path) else postgresql_engine(where)
        database = cls(engine=engine, name=name)
        with database.one_clear_line():
            _bring_up_to_date(database, where if isinstance(where, Path) else None, busy_timeout_s)
            if isinstance(where, Path):
                _check(database)
        return database

    def close(self) -> None:
        """Closes every connection."""
        self.engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view of the database."""
        with self.one_clear_line(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction that holds the right to write from its start, committed at the end."""
        with (
            self.one_clear_line(),
            self._turn,
            self.engine.connect().execution_options(**{_WRITE: True}) as connection,
            connection.begin(),
        ):
            yield connection

    def one_clear_line(self) -> AbstractContextManager[None]:
        """Turns the faults of a database that a user can mend into one line; others are faults of ours and pass.

        Raises:
            BadInput: the database cannot be used; says why and what to do.
        """
        return _one_clear_line(self.name)


def _sqlite(path: Path, busy_timeout_s: float) -> Engine:
    url = URL.create("sqlite+pysqlite", database=str(path))
    engine = create_engine(url, connect_args={"timeout": busy_timeout_s}, **_POOL)

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


def postgresql_engine(url: URL) -> Engine:
    """Connections to a PostgreSQL server, whose writers take turns; nothing is looked at yet."""
    engine = create_engine(url.set(drivername="postgresql+psycopg"), connect_args={"connect_timeout": 10}, **_POOL)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.get_execution_options().get(_WRITE):
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_POSTGRESQL_LOCK})")

    return engine


def _alembic(connection: Connection | None = None) -> AlembicConfig:
    config = AlembicConfig()  # no alembic.ini: the migrations travel with the package
    config.set_main_option("script_location", "densedpo.judge:migrations")
    config.attributes["connection"] = connection
    return config


def _bring_up_to_date(database: Database, path: Path | None, timeout_s: float) -> None:
    scripts = ScriptDirectory.from_config(_alembic())
    newest = scripts.get_current_head()
    known = {script.revision for script in scripts.walk_revisions()}
    if _is_newest(database, newest, known):
        return
    if path is None:
        with database.writing() as connection:
            if _revision(connection, database.name) != newest:
                command.upgrade(_alembic(connection), "head")
        return
    try:
        with filelock.FileLock(f"{path}.lock", timeout=timeout_s):
            if _is_newest(database, newest, known):  # another process was faster
                return
            _set_wal(database.engine)
            with database.writing() as connection:
                command.upgrade(_alembic(connection), "head")
    except filelock.Timeout:
        raise BadInput(
            f"{path} is being upgraded by another process; wait until it is done and run this again"
        ) from None


def _is_newest(database: Database, newest: str | None, known: set[str]) -> bool:
    with database.reading() as connection:
        present = _revision(connection, database.name)
    if present is not None and present not in known:
        raise BadInput(
            f"{database.name} was written by a newer densedpo (schema {present}; this one knows {newest}); upgrade it"
        )
    return present == newest


def _revision(connection: Connection, name: str) -> str | None:
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is None and inspect(connection).get_table_names():
        raise BadInput(f"{name} is a database of another program; move it away, or give the right project")
    return revision


def _check(database: Database) -> None:
    with database.reading() as connection:
        fault = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if fault != "ok":
        raise BadInput(f"{database.name} {_REMEDIES['SQLITE_CORRUPT']} ({str(fault).splitlines()[0]})")


def _set_wal(engine: Engine) -> None:
    raw = engine.raw_connection()
    try:
        raw.cursor().execute("PRAGMA journal_mode = WAL")  # a property of the file, set once, outside any transaction
    finally:
        raw.close()


@contextmanager
def _one_clear_line(name: str) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.DatabaseError):
            for prefix, remedy in _REMEDIES.items():
                if error.orig.sqlite_errorname.startswith(prefix):
                    raise BadInput(f"{name} {remedy}") from error
        elif isinstance(error, OperationalError | InterfaceError):
            reason = (str(error.orig).splitlines() or ["no answer"])[0]
            raise BadInput(f"{name} cannot be used ({reason}); check the server, its disk and the URL") from error
        raise
