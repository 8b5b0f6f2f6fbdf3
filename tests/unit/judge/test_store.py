"""The label store: append-only, idempotent, and one clear line for each way a database file can be unusable."""

from __future__ import annotations

import io
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, text

from densedpo.core.errors import BadInput
from densedpo.core.records import Judgement
from densedpo.judge.schema import metadata
from densedpo.judge.store import ConflictingAnswer, LabelStore

NewJudgement = Callable[..., Judgement]
HASHES = {"p0": "h0", "p1": "h1"}

# appends answers one by one and says so after each: what is printed was acknowledged
WRITER = """
import sys
from pathlib import Path
from densedpo.core.records import Judgement
from densedpo.judge.store import LabelStore
path, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
with LabelStore.open(path) as store:
    for number in range(first, first + count):
        row = Judgement(id=f"j{number}", pair_id="p0", annotator="w", segment=0, start_frame=0, stop_frame=8,
                        answer="a", instructions="v1" * 300, tool_version="test", created_at="2026-01-01")
        store.append([row], {"p0": "h0"})
        print(row.id, flush=True)
"""

# stands for a full disk: no file grows beyond 200 kB
LIMIT = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "labels.db"


def test_what_is_stored_comes_back_in_the_order_of_storing(path: Path, new_judgement: NewJudgement) -> None:
    rows = [
        new_judgement(id="z", confidence=0.25, score_a=0.1, score_b=-3.5, left="b", duration_ms=1200, replays=2),
        new_judgement(id="a", pair_id="p1", segment=None, stop_frame=33, answer="skip", instructions="caf\u00e9"),
    ]
    with LabelStore.open(path) as store:
        store.append(rows, HASHES)
    with LabelStore.open(path, create=False) as store:
        assert store.judgements(HASHES) == tuple(rows)
        assert store.judgements(HASHES, annotators=["nobody"]) == ()
        assert store.known(["z", "never"]) == {"z"}


def test_sending_again_appends_nothing(path: Path, new_judgement: NewJudgement) -> None:
    rows = [new_judgement(id="j0"), new_judgement(id="j1", segment=1, start_frame=8, stop_frame=16)]
    with LabelStore.open(path) as store:
        assert store.append(rows, HASHES).num_new == 2
        again = store.append([*rows, new_judgement(id="j0", created_at="later", tool_version="next")], HASHES)
        assert (again.num_new, again.num_known) == (0, 3)
        assert store.judgements(HASHES) == tuple(rows)


def test_an_id_with_another_answer_is_refused_and_nothing_of_the_batch_is_stored(
    path: Path, new_judgement: NewJudgement
) -> None:
    with LabelStore.open(path) as store:
        store.append([new_judgement(id="j0", answer="a")], HASHES)
        with pytest.raises(ConflictingAnswer, match="j0 of pair p0 by 'ann' is already stored"):
            store.append([new_judgement(id="j1"), new_judgement(id="j0", answer="b")], HASHES)
        assert store.known(["j0", "j1"]) == {"j0"}


def test_answers_about_a_pair_made_anew_do_not_come_back(path: Path, new_judgement: NewJudgement) -> None:
    with LabelStore.open(path) as store:
        store.append([new_judgement()], HASHES)
        assert store.judgements({"p0": "made anew"}) == ()


def test_more_pairs_than_one_query_can_name(path: Path, new_judgement: NewJudgement) -> None:
    hashes = {f"p{i}": f"h{i}" for i in range(1201)}
    rows = [new_judgement(id=f"j{i}", pair_id=f"p{i}") for i in range(1201)]
    with LabelStore.open(path) as store:
        store.append(rows, hashes)
        assert store.judgements(hashes) == tuple(rows)


@pytest.mark.parametrize(
    "statement",
    ["UPDATE judgements SET answer = 'b'", "DELETE FROM judgements", "UPDATE judgements SET id = 'x' WHERE id = 'j0'"],
)
def test_triggers_refuse_to_change_a_row(path: Path, new_judgement: NewJudgement, statement: str) -> None:
    with LabelStore.open(path) as store:
        store.append([new_judgement()], HASHES)
    with sqlite3.connect(path) as connection, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("changes", [{"stop_frame": 0}, {"start_frame": -1}, {"confidence": 1.5}, {"answer": "c"}])
def test_the_database_refuses_what_no_record_may_say(
    path: Path, new_judgement: NewJudgement, changes: dict[str, object]
) -> None:
    from sqlalchemy.exc import IntegrityError

    with LabelStore.open(path) as store:
        with pytest.raises(IntegrityError, match="CHECK constraint failed"):
            store.append([new_judgement(**changes)], HASHES)
        assert store.judgements(HASHES) == ()


def test_the_file_is_in_wal_mode(path: Path) -> None:
    with LabelStore.open(path):
        pass
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_migrations_lead_to_the_schema(path: Path) -> None:
    with LabelStore.open(path):
        pass
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_labels_of_an_older_version_have_answered_the_main_question(path: Path, new_judgement: NewJudgement) -> None:
    """A file as version 0002 left it, with a row, is brought up to date where it lies."""
    config = Config()
    config.set_main_option("script_location", "densedpo.judge:migrations")
    engine = create_engine(f"sqlite:///{path}")
    row = new_judgement()
    with engine.begin() as connection:
        config.attributes |= {"connection": connection}
        command.upgrade(config, "0002")
        values = {key: value for key, value in asdict(row).items() if key != "dimension"} | {"pair_hash": "h0"}
        columns, names = (", ".join(f"{mark}{key}{end}" for key in values) for mark, end in (('"', '"'), (":", "")))
        connection.execute(text(f"INSERT INTO judgements ({columns}) VALUES ({names})"), values)
    engine.dispose()
    with LabelStore.open(path) as store:
        assert store.judgements({row.pair_id: "h0"}) == (row,)
        assert store.dimensions({row.pair_id: "h0"}) == ()


def test_answers_beside_the_main_question_are_read_by_their_name(path: Path, new_judgement: NewJudgement) -> None:
    main, beside = new_judgement(id="j0"), new_judgement(id="j1", dimension="motion", answer="b")
    with LabelStore.open(path) as store:
        store.append([main, beside], HASHES)
        assert store.judgements(HASHES) == (main,)
        assert store.judgements(HASHES, dimension="motion") == (beside,)
        assert store.dimensions(HASHES) == ("motion",)
        with pytest.raises(ConflictingAnswer):
            store.append([new_judgement(id="j1", dimension="looks", answer="b")], HASHES)


def test_migrations_have_sql_for_postgresql() -> None:
    config = Config(output_buffer=io.StringIO())
    config.set_main_option("script_location", "densedpo.judge:migrations")
    config.attributes |= {"connection": None, "dialect_name": "postgresql"}
    command.upgrade(config, "head", sql=True)
    sql = config.output_buffer.getvalue()
    assert "GENERATED BY DEFAULT AS IDENTITY" in sql
    assert "BEFORE UPDATE OR DELETE OR TRUNCATE ON judgements" in sql


def test_no_labels_yet(path: Path) -> None:
    with pytest.raises(BadInput, match=r"labels\.db does not exist: nothing is judged yet"):
        LabelStore.open(path, create=False)
    assert not path.exists()


def test_a_file_that_is_no_database(path: Path) -> None:
    path.write_bytes(b"these are not labels" * 200)
    with pytest.raises(BadInput, match="is not an SQLite database"):
        LabelStore.open(path)
    assert path.read_bytes() == b"these are not labels" * 200


def test_a_database_of_another_program(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    with pytest.raises(BadInput, match="a database of another program"):
        LabelStore.open(path)


def test_a_newer_schema(path: Path) -> None:
    with LabelStore.open(path):
        pass
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(BadInput, match=r"newer densedpo \(schema 9999; this one knows 0003\)"):
        LabelStore.open(path)


def test_a_damaged_database(path: Path, new_judgement: NewJudgement) -> None:
    with LabelStore.open(path) as store:
        store.append([new_judgement(id=f"j{i}") for i in range(500)], HASHES)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match="is damaged"):
        LabelStore.open(path)


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be opened; check that the folder exists"):
        LabelStore.open(tmp_path / "missing" / "labels.db")


def test_a_second_writer_that_waits_in_vain_gets_one_line(path: Path, new_judgement: NewJudgement) -> None:
    with LabelStore.open(path, busy_timeout_s=0.1) as store:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(BadInput, match="is being written by another process"):
            store.append([new_judgement()], HASHES)
        assert store.judgements(HASHES) == ()  # readers are not held up
        holder.execute("ROLLBACK")
        holder.close()
        assert store.append([new_judgement()], HASHES).num_new == 1


def test_a_second_writer_waits_for_its_turn(path: Path, new_judgement: NewJudgement) -> None:
    with LabelStore.open(path) as store:
        holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        holder.execute("BEGIN IMMEDIATE")
        release = threading.Timer(0.3, holder.execute, ["COMMIT"])
        release.start()
        started = time.monotonic()
        assert store.append([new_judgement()], HASHES).num_new == 1
        assert time.monotonic() - started >= 0.25
        release.join()
        holder.close()


def test_many_threads_write_at_once_and_nothing_is_lost(path: Path, new_judgement: NewJudgement) -> None:
    with LabelStore.open(path) as store:
        threads = [
            threading.Thread(
                target=lambda w=w: [store.append([new_judgement(id=f"j{w}-{i}")], HASHES) for i in range(10)]
            )
            for w in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store.judgements(HASHES)) == 40


def test_two_processes_create_the_database_at_once(path: Path) -> None:
    writers = [_writer(path, first=100 * i, count=5) for i in range(2)]
    for writer in writers:
        assert writer.wait(timeout=60) == 0
        assert writer.stdout is not None
        writer.stdout.close()
    with LabelStore.open(path, create=False) as store:
        assert len(store.judgements({"p0": "h0"})) == 10


def test_a_disk_that_refuses_to_grow_gives_one_line_and_keeps_what_was_stored(path: Path) -> None:
    with LabelStore.open(path):
        pass
    writer = subprocess.Popen(
        [sys.executable, "-c", LIMIT + WRITER, str(path), "0", "1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = writer.communicate(timeout=60)
    assert writer.returncode != 0
    assert "BadInput" in err.splitlines()[-1]
    assert str(path) in err.splitlines()[-1]
    acknowledged = set(out.split())
    assert acknowledged
    with LabelStore.open(path, create=False) as store:
        assert {row.id for row in store.judgements({"p0": "h0"})} == acknowledged


@pytest.mark.slow
def test_killed_writers_lose_no_acknowledged_answer(path: Path) -> None:
    acknowledged: set[str] = set()
    for cycle in range(20):
        writer = _writer(path, first=10_000 * cycle, count=10_000)
        assert writer.stdout is not None
        for _ in range(1 + 7 * cycle % 40):
            acknowledged.add(writer.stdout.readline().strip())
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged.update(line for line in writer.stdout.read().split("\n")[:-1])
        writer.wait()
        writer.stdout.close()
        with LabelStore.open(path, create=False) as store:
            stored = {row.id for row in store.judgements({"p0": "h0"})}
        assert acknowledged <= stored
        assert len(stored - acknowledged) <= cycle + 1  # at most the one that was being acknowledged


def test_judging_imports_no_torch() -> None:
    code = """
import importlib, pkgutil, sys, densedpo.judge
for module in pkgutil.iter_modules(densedpo.judge.__path__, "densedpo.judge."):
    importlib.import_module(module.name)
print("densedpo.judge.store" in sys.modules, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def _writer(path: Path, *, first: int, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(first), str(count)], stdout=subprocess.PIPE, text=True
    )
