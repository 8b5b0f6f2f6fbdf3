"""A test that measures time runs beside no other, whichever process of pytest-xdist has it."""

from __future__ import annotations

import fcntl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from turns import turn


def someone_waits_at(door: Path) -> bool:
    with door.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_tests_run_side_by_side(tmp_path: Path) -> None:
    with turn(tmp_path, alone=False), turn(tmp_path, alone=False):
        assert not someone_waits_at(tmp_path / "door")


def test_one_that_is_alone_waits_for_the_others_and_is_not_overtaken(tmp_path: Path) -> None:
    """One runs; then one that must be alone comes, and then a third: they run in this order, none at once."""
    order, leave = [], threading.Event()

    def run(name: str, *, alone: bool) -> None:
        with turn(tmp_path, alone=alone):
            order.append(f"{name} begins")
            if name == "first":
                leave.wait()
            order.append(f"{name} ends")

    with ThreadPoolExecutor(3) as pool:
        started = [pool.submit(run, "first", alone=False)]
        while not order:
            time.sleep(0.01)
        started.append(pool.submit(run, "alone", alone=True))
        while not someone_waits_at(tmp_path / "door"):
            time.sleep(0.01)
        started.append(pool.submit(run, "later", alone=False))
        leave.set()
        for one in started:
            one.result()
    assert order == [f"{name} {what}" for name in ("first", "alone", "later") for what in ("begins", "ends")]
