"""Progress of long loops: a bar with rate and remaining time on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextvars import ContextVar
from typing import TypeVar

Item = TypeVar("Item")

_PLAIN_EVERY_S = 10.0
_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


def set_quiet(quiet: bool) -> None:
    """Switches all progress output of this context off or on."""
    _quiet.set(quiet)


def track(
    iterable: Iterable[Item], *, total: int | None = None, what: str, note: Callable[[], str] | None = None
) -> Iterator[Item]:
    """Yields the items of a loop and says on stderr how far it is and how long it will take.

    Args:
        total: how many items there will be; the length of the iterable where it has one.
        what: what the loop does, in a few words, such as `generating pairs`.
        note: asked for a few words whenever something is said, such as the cost so far.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    if _quiet.get():
        yield from iterable
    elif sys.stderr.isatty():
        yield from _track_on_terminal(iterable, total=total, what=what, note=note or _nothing)
    else:
        yield from _track_in_lines(iterable, total=total, what=what, note=note or _nothing)


def duration_text(seconds: float) -> str:
    """A duration as a person says it: `8 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _track_on_terminal(
    iterable: Iterable[Item], *, total: int | None, what: str, note: Callable[[], str]
) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total, rate="")
        for count, item in enumerate(iterable, start=1):
            yield item
            progress.update(task, completed=count, rate=_rate_text(count, time.monotonic() - started) + note())


def _track_in_lines(
    iterable: Iterable[Item], *, total: int | None, what: str, note: Callable[[], str]
) -> Iterator[Item]:
    started = said = time.monotonic()
    count = 0
    for item in iterable:
        yield item
        count += 1
        now = time.monotonic()
        if now - said >= _PLAIN_EVERY_S and count != total:
            said = now
            left = f", {duration_text((now - started) / count * (total - count))} left" if total is not None else ""
            rate = _rate_text(count, now - started)
            _say(f"{what}: {count}{f'/{total}' if total is not None else ''}, {rate}{left}{note()}")
    _say(f"{what}: {count} in {duration_text(time.monotonic() - started)}{note()}")


def _nothing() -> str:
    return ""


def _rate_text(count: int, seconds: float) -> str:
    rate = count / max(seconds, 1e-9)
    return f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
