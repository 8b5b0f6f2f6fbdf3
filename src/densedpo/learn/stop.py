"""Stopping on a signal at a safe place: the signal sets a flag, and the work asks for it between forwards."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from densedpo.core.errors import Interrupted

# SIGUSR1 is what a cluster's scheduler can be told to send some minutes before it ends a job
CAUGHT: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class InterruptedByUser(Interrupted):
    """A person pressed Ctrl-C; exit code 130, where a machine's SIGTERM has 75. As resumable as the other."""

    exit_code = 130


class StopFlag:
    """Whether the user or the machine asked for the work to end."""

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self.signal: signal.Signals | None = None

    def poll(self) -> None:
        """Goes on, or ends the work here.

        Raises:
            Interrupted: a signal came since the start; InterruptedByUser for SIGINT.
        """
        if self.signal is signal.SIGINT:
            raise InterruptedByUser("stopped by Ctrl-C")
        if self.signal is not None:
            raise Interrupted(f"stopped by {self.signal.name}")


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Catches SIGINT, SIGTERM and SIGUSR1 inside the block; a second one acts at once, as usual.

    Outside the main thread no handler can be set, and the flag stays down.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.getsignal(number) for number in CAUGHT}

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (the signature is Python's)
        flag.signal = signal.Signals(number)
        for caught, handler in before.items():
            signal.signal(caught, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
