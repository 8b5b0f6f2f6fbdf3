"""Several processes that train one run, started as torchrun starts them, for the tests."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from densedpo.core.workspace import Project
from densedpo.learn.config import LearnConfig
from densedpo.learn.run import learn_offline

# a process starts in a moment: torch is imported once, in the server that all of them are forked from
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["densedpo.learn.session"])


def work_as(rank: int, size: int, port: int, work: Callable[[], object], fault: Callable[[int], None] | None) -> None:
    """What each process does; `fault` is called with the rank first."""
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "test", "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    if fault is not None:
        fault(rank)
    work()


def work_together(
    size: int, work: Callable[[], object], fault: Callable[[int], None] | None = None, wait_for: int | None = None
) -> list[int | None]:
    """Has several processes do the same work as one team; returns their exit codes.

    Args:
        wait_for: the rank of the process at whose end the others are killed, as torchrun would.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [SERVER.Process(target=work_as, args=(rank, size, port, work, fault)) for rank in range(size)]
    for process in processes:
        process.start()
    if wait_for is not None:
        processes[wait_for].join()
        for process in processes:
            process.kill()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def train_together(
    size: int,
    project: Project,
    name: str,
    model: Path,
    config: LearnConfig,
    fault: Callable[[int], None] | None = None,
    wait_for: int | None = None,
) -> list[int | None]:
    """Trains one run offline with several processes; returns their exit codes."""
    work = partial(learn_offline, project, name, pairs="toy", preferences="toy", model=model, config=config)
    return work_together(size, work, fault, wait_for)


def nan_on_the_second(rank: int) -> None:
    """The gradient of the second process is not finite in its third forward, its loss is."""
    if rank != 1:
        return
    import torch

    from densedpo.learn.task.preference import PreferenceTask

    backward, calls = PreferenceTask.backward, []

    def broken(self, visits, divisor):
        outcome = backward(self, visits, divisor)
        calls.append(visits)
        if len(calls) == 3:
            for parameter in self._model.denoiser.parameters():
                if parameter.grad is not None:
                    with torch.no_grad():
                        parameter.grad.fill_(torch.nan)
        return outcome

    PreferenceTask.backward = broken


def other_weights_on_the_second(rank: int) -> None:
    """The second process starts from an adapter of its own."""
    if rank != 1:
        return
    from densedpo.learn import models

    attach = models.attach_lora

    def other(model, config):
        return attach(model, config.model_copy(update={"seed": 99}))

    models.attach_lora = other


def signal_to_the_second(rank: int) -> None:
    """The second process alone is told to stop, in its third step."""
    if rank == 1:
        signal_in_the_third_step(rank)


def signal_in_the_third_step(rank: int) -> None:
    """Every process is told to stop, in its third step."""
    import signal

    from densedpo.learn import loop

    step = loop.take_step

    def signalled(*args, **kwargs):
        if kwargs["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*args, **kwargs)

    loop.take_step = signalled


def hang_on_the_second(rank: int) -> None:
    """The second process does nothing for ten minutes in its third step."""
    if rank != 1:
        return
    import time

    from densedpo.learn import loop

    step = loop.take_step

    def hung(*args, **kwargs):
        if kwargs["step"] == 3:
            time.sleep(600)
        return step(*args, **kwargs)

    loop.take_step = hung
