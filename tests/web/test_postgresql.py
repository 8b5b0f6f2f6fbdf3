"""The same store and desk on a real PostgreSQL server, which the test starts for itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import DBAPIError

from densedpo.core.errors import BadInput
from densedpo.core.workspace import Project
from densedpo.judge.credentials import DATABASE_URL, labels_at
from densedpo.judge.database import Database, postgresql_engine
from densedpo.judge.preferences import collect
from studio_example import Room, new_id, save_request, whole_choice
from studio_live import require

PASSWORD = "long and secret"


@pytest.fixture(scope="module")
def server() -> Iterator[URL]:
    """A cluster of its own, reached through a socket in its folder.

    The folder is not one of pytest's, which any run of pytest closes to the user that PostgreSQL runs as.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    require(found[-1] if found else Path("/usr/lib/postgresql/bin/initdb"), "postgresql")
    programs = found[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    root = os.geteuid() == 0
    if root:  # PostgreSQL refuses to run as root
        shutil.chown(folder, "postgres", "postgres")
    as_user = ["runuser", "-u", "postgres", "--"] if root else []

    def run(program: str, *arguments: str) -> None:
        command = [*as_user, str(programs / program), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, timeout=300)

    run("initdb", "--pgdata", str(folder / "data"), "--username", "densedpo", "--auth", "trust", "--no-sync")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c max_connections=60"
    run(
        "pg_ctl",
        "--pgdata",
        str(folder / "data"),
        "--options",
        options,
        "--log",
        str(folder / "log"),
        "--wait",
        "start",
    )
    try:
        yield URL.create(
            "postgresql", username="densedpo", password=PASSWORD, query={"host": str(folder)}, database="postgres"
        )
    finally:
        run("pg_ctl", "--pgdata", str(folder / "data"), "--mode", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.fixture
def empty(server: URL) -> URL:
    """A database of its own for a test."""
    name = f"test_{new_id().replace('-', '')}"
    maintenance = postgresql_engine(server)
    with maintenance.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    maintenance.dispose()
    return server.set(database=name)


@pytest.fixture
def pg_room(fresh_project: Project, empty: URL) -> Iterator[Room]:
    room = Room.open(fresh_project, empty, overlap=2)
    yield room
    room.close()


def test_people_at_once_on_postgresql_cover_every_item_exactly(pg_room: Room) -> None:
    crowd = [pg_room.person(f"person {i}") for i in range(6)]

    def work(person) -> None:
        while held := pg_room.desk.hand_out(person):
            pg_room.submit(person, held[0])

    threads = [threading.Thread(target=work, args=(person,)) for person in crowd]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = {(row.pair_id, row.annotator) for row in pg_room.labels()}
    assert set(Counter(pair for pair, _ in done).values()) == {2}
    assert len({pair for pair, _ in done}) == 24
    assert len(collect(pg_room.pairs, pg_room.store, segment_seconds=1.0).rows) == 24


def test_the_same_save_from_many_sides_at_once_is_stored_once(pg_room: Room) -> None:
    ann = pg_room.person("ann")
    request = save_request(pg_room.desk.hand_out(ann)[0].assignment.id, "submit", whole_choice())
    new = []
    threads = [threading.Thread(target=lambda: new.append(pg_room.desk.save(ann, request).is_new)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(new) == [False] * 7 + [True]
    assert len(pg_room.labels()) == 3


@pytest.mark.parametrize("table", ["judgements", "saves", "studies", "study_items"])
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "UPDATE {} SET created_at = ''", "TRUNCATE {}"])
def test_triggers_refuse_to_change_a_row_on_postgresql(pg_room: Room, table: str, statement: str) -> None:
    if table == "study_items":
        statement = statement.replace("created_at", "pair_id")
    ann = pg_room.person("ann")
    pg_room.submit(ann, pg_room.desk.hand_out(ann)[0])
    with pg_room.store.database.engine.connect() as connection, pytest.raises(DBAPIError, match="append-only"):
        connection.execute(text(statement.format(table)))


def test_a_server_that_is_gone_is_one_line_without_the_password(server: URL, tmp_path: Path) -> None:
    gone = server.set(query={"host": str(tmp_path)})
    with pytest.raises(BadInput, match=r"cannot be used .*; check the server") as caught:
        Database.open(gone)
    assert PASSWORD not in str(caught.value)


def test_the_database_is_named_by_the_environment(server: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert labels_at(tmp_path / "labels.db") == tmp_path / "labels.db"
    monkeypatch.setenv(DATABASE_URL, server.render_as_string(hide_password=False))
    assert labels_at(tmp_path / "labels.db") == make_url(server)
