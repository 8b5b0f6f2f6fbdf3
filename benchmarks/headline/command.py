"""What studies share: runs, the project under --out, processes that share the cores, the code's stamp, how they end."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from densedpo.core.errors import BadInput, Interrupted
from densedpo.core.provenance import provenance
from densedpo.core.workspace import PROJECT_FILE, find_project, init_project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pydantic import JsonValue

    from densedpo.core.workspace import Project


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One arm with one training seed."""

    arm: str
    seed: int

    @property
    def name(self) -> str:
        """Of its run's folder and of its report."""
        return f"{self.arm}-{self.seed}"


@contextmanager
def at_once(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that share the cores evenly; the first failure, or Ctrl-C, ends what has not begun."""
    import torch

    threads = max(1, torch.get_num_threads() // processes)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_few_threads, initargs=(threads,)) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _few_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


def open_project(out: Path) -> Project:
    """The project of a study: a new one, or the one that an earlier run left."""
    return find_project(out) if (out / PROJECT_FILE).is_file() else init_project(out)


def made() -> dict[str, JsonValue]:
    """Which code made a study's results, as results.json holds it; of the machine only what says how fast it is."""
    return {key: value for key, value in provenance().items() if key != "platform"}


def run_command(main: Callable[[], None]) -> None:
    """A study's command: what stops it is one line, with the exit codes of `densedpo`."""
    try:
        main()
    except BadInput as error:
        _leave(str(error), 2)
    except Interrupted as error:
        _leave(str(error), error.exit_code)
    except KeyboardInterrupt:
        _leave("stopped; the same command goes on", 130)


def _leave(why: str, code: int) -> NoReturn:
    print(f"run.py: {why}", file=sys.stderr)
    sys.exit(code)
