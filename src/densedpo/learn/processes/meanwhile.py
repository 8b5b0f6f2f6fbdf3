"""Long work of the first process, while the others wait for it without an exchange that could time out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from enum import IntEnum
from time import sleep
from typing import TYPE_CHECKING, Final, TypeVar

from densedpo.core.errors import BadInput, Interrupted

if TYPE_CHECKING:
    from densedpo.learn.processes.team import Team

Result = TypeVar("Result")
_FIRST_PAUSE_S: Final = 0.005
_LONGEST_PAUSE_S: Final = 0.5


class _State(IntEnum):
    """Of the work; the largest of all processes' is the first one's."""

    RUNNING = 0
    DONE = 1
    REFUSED = 2
    CUT = 3
    BROKEN = 4


def first_works(team: Team, work: Callable[[Callable[[], None]], Result], poll: Callable[[], None]) -> Result | None:
    """Has the first process do something long in a thread; all of them ask `poll` meanwhile, twice a second.

    A judge may be away for an hour or have a thousand clips to look at. The others do not sit in one exchange until
    then, which the process group would give up, but hear of the first every half a second, and a signal to any of them
    ends the work.

    Args:
        work: gets what it must call wherever it can end; that may raise Interrupted.
        poll: what all processes ask together.

    Returns:
        What the work gave, on the first process; None on the others.

    Raises:
        Interrupted, BadInput: `poll` or the work raised it, on all processes.
    """
    if team.size == 1:
        return work(poll)
    stopped = threading.Event()

    def ask() -> None:
        if stopped.is_set():
            raise Interrupted("another process was told to stop")

    with ThreadPoolExecutor(1, thread_name_prefix="first process") as pool:
        future = pool.submit(work, ask) if team.is_first else None
        try:
            state = _until_it_ends(team, future, poll)
        finally:
            stopped.set()
    if future is not None:
        return future.result()
    match state:
        case _State.REFUSED:
            raise BadInput("the first process could not go on; it says why")
        case _State.CUT:
            raise Interrupted("the first process stopped; it says why")
        case _State.BROKEN:
            raise RuntimeError("the first process failed")
        case _:
            return None


def _until_it_ends(team: Team, future: Future[Result] | None, poll: Callable[[], None]) -> _State:
    pause, state = _FIRST_PAUSE_S, _State.RUNNING
    while state == _State.RUNNING:
        if future is None:
            sleep(pause)
        else:
            wait([future], timeout=pause)
        poll()
        state = _State(team.maximum(_state_of(future)))
        pause = min(2 * pause, _LONGEST_PAUSE_S)
    return state


def _state_of(future: Future[Result] | None) -> _State:
    if future is None or not future.done():
        return _State.RUNNING
    match future.exception():
        case None:
            return _State.DONE
        case BadInput():
            return _State.REFUSED
        case Interrupted():
            return _State.CUT
        case _:
            return _State.BROKEN
