"""The training loop: steps, evaluations, checkpoints, and an exact way back after a stop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from densedpo.core.errors import BadInput, Interrupted
from densedpo.core.files import append_jsonl
from densedpo.core.progress import track
from densedpo.learn.checkpoint import (
    Checkpoint,
    TrainState,
    load_latest,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from densedpo.learn.memory import out_of_memory
from densedpo.learn.processes.shard import like, own, whole
from densedpo.learn.processes.team import ALONE, Team
from densedpo.learn.step import StepResult, take_step
from densedpo.learn.watch.alarms import find_alarms, raise_alarms
from densedpo.learn.watch.drift import lora_norm
from densedpo.learn.watch.health import health_line
from densedpo.learn.watch.track import keep_rows, open_log, read_metrics, step_of, train_row

if TYPE_CHECKING:
    from torch import Tensor

    from densedpo.learn.config import LearnConfig
    from densedpo.learn.task.protocol import Task
    from densedpo.learn.watch.evaluate import Evaluation
    from densedpo.learn.watch.track import Row

_log = logging.getLogger("densedpo")


@dataclass(frozen=True, kw_only=True, slots=True)
class Workbench:
    """What the loop works with; `identity` is the hash of the run's config and inputs.

    `until` is the step after which this call of `train` ends, where it is not the run's last one.
    """

    task: Task
    evaluation: Evaluation | None
    parameters: Mapping[str, torch.nn.Parameter]
    optimizer: torch.optim.AdamW
    config: LearnConfig
    folder: Path
    identity: str
    poll: Callable[[], None]
    team: Team = ALONE
    until: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """How training ended; the parameters hold the selected adapter."""

    state: TrainState
    selected_step: int
    seconds: float


def train(bench: Workbench) -> Trained:
    """Runs from the newest checkpoint, if there is one, to the last step, and puts the selected adapter in place.

    Raises:
        Interrupted: asked to stop; a checkpoint of the last whole step is on disk.
        BadInput: the loss was not finite for too many steps in a row.
    """
    started = time.monotonic()
    loop = _Loop(bench)
    try:
        loop.run()
    finally:
        loop.log.close()
    return Trained(state=loop.state, selected_step=loop.select(), seconds=time.monotonic() - started)


class _Loop:
    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._checkpoints = bench.folder / "checkpoints"
        self.state = TrainState()
        self._saved_step: int | None = None
        self._best: dict[str, Tensor] = {}
        self._average = _copy(bench.parameters) if bench.config.ema_decay is not None else {}
        self._restore()
        bench.team.require_equal(bench.parameters, "the adapters")
        self._quarantined = bench.folder / "quarantine.jsonl"
        if bench.team.is_first:
            keep_rows(self._quarantined, lambda row: step_of(row) <= self.state.step)
        self.log = open_log(
            bench.folder,
            after_step=self.state.step,
            evaluated_step=self.state.evaluated_step,
            writes=bench.team.is_first,
        )

    def run(self) -> None:
        config = self._bench.config
        try:
            # also after a stop in the middle of an evaluation
            self._evaluate_if_due()
            last = config.num_steps if self._bench.until is None else self._bench.until
            steps = range(self.state.step + 1, last + 1)
            for step in track(steps, what=f"learning {self._bench.folder.name} ({config.objective}), steps"):
                if config.patience and self.state.evaluations_since_best >= config.patience:
                    break
                if config.stop_on_alarm and self.state.alarmed_step is not None:
                    _log.warning("stopped after step %d: stop_on_alarm", self.state.step)
                    break
                self._step(step)
                if config.checkpoint_every and step % config.checkpoint_every == 0:
                    self._save()
        except Interrupted as stop:
            self._save()
            raise type(stop)(f"{stop} after step {self.state.step}; the same command goes on from there") from None
        self._save()

    def select(self) -> int:
        """Puts the configured adapter in place; returns its step."""
        if self._bench.config.select == "best_validation" and self.state.best_step is not None:
            _assign(self._bench.parameters, self._best)
            return self.state.best_step
        if self._average:
            _assign(self._bench.parameters, self._average)
        return self.state.step

    def _step(self, step: int) -> None:
        bench, started, before = self._bench, time.monotonic(), self.state
        try:
            result = take_step(
                bench.task,
                bench.optimizer,
                bench.config,
                step=step,
                update=before.updates,
                poll=bench.poll,
                team=bench.team,
            )
        except torch.OutOfMemoryError as error:
            raise out_of_memory(bench.config, error) from error
        self.state = replace(
            before,
            step=step,
            updates=before.updates + result.updated,
            skipped_in_row=0 if result.is_finite else before.skipped_in_row + 1,
            num_skipped=before.num_skipped + (not result.is_finite),
            num_without_signal=before.num_without_signal + (not result.has_signal),
        )
        if self._average and result.updated:
            self._update_average(before.updates)
        self.log.write(train_row(step, result, seconds=time.monotonic() - started))
        if not result.is_finite:
            self._quarantine(step, result)
        self._evaluate_if_due()

    def _update_average(self, num_before: int) -> None:
        """Moves the average to the adapter, faster in the first updates, of which there is little to average."""
        assert self._bench.config.ema_decay is not None
        decay = min(self._bench.config.ema_decay, (1 + num_before) / (10 + num_before))
        with torch.no_grad():
            for name, parameter in self._bench.parameters.items():
                own(self._average[name]).lerp_(own(parameter), 1 - decay)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The average in the adapter's place inside the block, if there is one."""
        if not self._average:
            yield
            return
        newest = _copy(self._bench.parameters)
        _assign(self._bench.parameters, self._average)
        try:
            yield
        finally:
            _assign(self._bench.parameters, newest)

    def _quarantine(self, step: int, result: StepResult) -> None:
        bench = self._bench
        ids = [item for visits in bench.task.window(step) for item in bench.task.ids(visits)]
        norm = result.grad_norm if math.isfinite(result.grad_norm) else None
        if bench.team.is_first:
            append_jsonl(self._quarantined, {"step": step, "ids": ids, "grad_norm": norm})
        _log.warning("step %d is skipped: loss %g, gradient norm %g", step, result.loss, result.grad_norm)
        if self.state.skipped_in_row >= bench.config.max_skipped_steps:
            raise BadInput(
                f"{bench.folder}: loss or gradient was not finite in {self.state.skipped_in_row} steps in a row; lower "
                "learning_rate or beta, or look at the pairs in quarantine.jsonl"
            )

    def _evaluate_if_due(self) -> None:
        config, step = self._bench.config, self.state.step
        due = config.eval_every and (step % config.eval_every == 0 or step == config.num_steps)
        if not due or self._bench.evaluation is None or self.state.evaluated_step == step:
            return
        with self._averaged():
            row = self._bench.evaluation.run(step, self._bench.poll)
            if config.train == "lora":
                adapter = {name: whole(tensor.detach()) for name, tensor in self._bench.parameters.items()}
                norm = lora_norm(adapter, scale=config.lora_alpha / config.lora_rank)
                row |= {"lora_norm": norm}
        self.log.write(row)
        self.state = replace(self.state, evaluated_step=step)
        self._watch(row)
        loss = row["loss"]
        if not isinstance(loss, float):
            return
        if self.state.best_loss is None or loss < self.state.best_loss:
            self._best = _copy(self._average or self._bench.parameters)
            self.state = replace(self.state, best_step=self.state.step, best_loss=loss, evaluations_since_best=0)
        else:
            self.state = replace(self.state, evaluations_since_best=self.state.evaluations_since_best + 1)

    def _watch(self, row: Row) -> None:
        """Says how the run is doing, and what is wrong with it if anything is."""
        folder, found = self._bench.folder, False
        if self._bench.team.is_first:
            if line := health_line(row):
                _log.info("%s", line)
            alarms = find_alarms(read_metrics(folder, "train"), read_metrics(folder, "validation"))
            raise_alarms(folder, alarms)
            found = bool(alarms)
        if self._bench.team.maximum(found) and self.state.alarmed_step is None:
            self.state = replace(self.state, alarmed_step=self.state.step)

    def _save(self) -> None:
        if self._saved_step == self.state.step:
            return
        bench, names = self._bench, list(self._bench.parameters)
        bench.team.require_equal(bench.parameters, "the adapters")
        checkpoint = Checkpoint(
            state=self.state,
            adapter=_copy(bench.parameters),
            optimizer=optimizer_tensors(bench.optimizer, names),
            best=self._best,
            average=self._average,
        )
        save_checkpoint(
            self._checkpoints,
            checkpoint,
            identity=bench.identity,
            keep=bench.config.keep_checkpoints,
            team=bench.team,
        )
        self._saved_step = self.state.step

    def _restore(self) -> None:
        parameters = self._bench.parameters
        goes_back = self._bench.config.damaged_checkpoint == "go_back"
        found = load_latest(self._checkpoints, identity=self._bench.identity, patterns=parameters, goes_back=goes_back)
        if found is None:
            return
        self.state, self._saved_step = found.state, found.state.step
        self._best = dict(found.best)
        self._average = {
            name: like(tensor.clone().to(parameters[name].device), parameters[name])
            for name, tensor in found.average.items()
        }
        _assign(parameters, found.adapter)
        restore_optimizer(self._bench.optimizer, list(parameters), found.optimizer)
        _log.info("going on after step %d", self.state.step)


def _copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies, cut over the processes where the tensors are."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _assign(parameters: Mapping[str, torch.nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(like(tensors[name], parameter))
