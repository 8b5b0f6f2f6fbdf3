"""A studio that listens, in a thread of the tests, and what the tests ask of a browser."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from densedpo.judge.studies.invitations import invite
from densedpo.judge.studies.media import MediaFolder
from densedpo.judge.web.serve import server_of
from studio_example import Room

CHROMIUM: Final = Path("/usr/bin/chromium")


def require(path: Path, package: str) -> None:
    """Skips a test whose program is missing, but not in CI, where everything has to be there."""
    if path.exists():
        return
    reason = f"needs the package {package}: apt-get install {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class Live:
    """A running server and its room."""

    def __init__(self, room: Room, media: MediaFolder, port: int) -> None:
        self.room, self.media = room, media
        self.url = f"http://127.0.0.1:{port}/"

    def entrance(self, name: str, *, is_admin: bool = False) -> str:
        """The address by which a person signs in."""
        return f"{self.url}#token={invite(self.room.store.database, name, is_admin=is_admin)}"


@contextmanager
def listening(room: Room) -> Iterator[Live]:
    """Serves a room on a free port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        port = listener.getsockname()[1]
        studio = room.studio(port)
        server = server_of(studio)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Live(room, studio.media, port)
        finally:
            server.should_exit = True
            thread.join()


COMMAND: Final = "import sys; from densedpo.cli.main import run; run(sys.argv[1:])"
SETTINGS: Final = ("must_watch=false", "overlap=1000", "gold_share=0.0", "repeat_share=0.0")


class Process:
    """`densedpo judge serve` on a port; `url` is where it says that it is."""

    def __init__(self, root: Path, port: int = 0) -> None:
        started = time.monotonic()
        settings = [word for setting in SETTINGS for word in ("--set", setting)]
        command = ["judge", "serve", "demo", "--project", str(root), "--port", str(port), *settings]
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *command],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert self.process.stdout is not None
        self.url, self.token = re.fullmatch(r"open (\S+)#token=(\S+)\n", self.process.stdout.readline()).groups()
        self.port = int(self.url.rsplit(":", 1)[1].rstrip("/"))
        self.process.stdout.readline()
        self.seconds_to_start = time.monotonic() - started
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        self.cpu_seconds_to_start = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")  # user and system

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
