"""A run with torch: loads the model, checks the start, trains, exports."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from densedpo.core.records import write_jsonl
from densedpo.learn.audit.margins import LEFT_OUT_FILE
from densedpo.learn.builder import Builder, tried
from densedpo.learn.execution import compile_blocks, read_back, watching_products
from densedpo.learn.export import export_adapter, export_chosen, export_denoiser, where_learned, write_where
from densedpo.learn.loop import Workbench, train
from densedpo.learn.memory import memory_that_fits
from densedpo.learn.models import load_model
from densedpo.learn.processes.shard import made_whole, shard, whole_on_first
from densedpo.learn.processes.team import Team, device_of, joined
from densedpo.learn.reference import trainable
from densedpo.learn.run import RunInputs, RunSummary
from densedpo.learn.step import build_optimizer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from densedpo.adapters.base import VideoModel
    from densedpo.learn.processes.launch import World
    from densedpo.learn.stop import StopFlag

_log = logging.getLogger("densedpo")


def run_session(inputs: RunInputs, *, identity: str, flag: StopFlag, world: World) -> RunSummary:
    """Trains what the inputs say, into their folder, as one of the processes of a world.

    Args:
        identity: the hash of the run's config and inputs, which its checkpoints carry.
        flag: asked wherever the work can end.

    Raises:
        Interrupted, BadInput: see `learn_offline`.
    """
    flag.poll()
    with joined(world, inputs.config) as team:
        config = inputs.config.model_copy(update={"device": device_of(inputs.config, world)})
        return _run(replace(inputs, config=config), identity, team, team.poll(flag))


def _run(inputs: RunInputs, identity: str, team: Team, poll: Callable[[], None]) -> RunSummary:
    model, parameters = load_model(inputs, captions=inputs.project.captions)
    compiled = compile_blocks(model.denoiser) if inputs.config.compile_blocks else 0
    if team.is_sharded:
        shard(model.denoiser)
        parameters = trainable(model.denoiser)
    poll()
    inputs = _with_fitting_memory(inputs, model, team)
    config = inputs.config
    started = time.monotonic()
    builder = Builder(inputs, model, poll, team)
    with watching_products(model.denoiser, config):
        watch = builder.check_start()
    in_force = read_back(model.denoiser, parameters, config, compiled=compiled)
    _log.info("in force: %s; %s", team.strategy, in_force.text())
    task, evaluation = builder.task(), builder.evaluation()
    fill_seconds = time.monotonic() - started
    bench = Workbench(
        task=task,
        evaluation=evaluation,
        parameters=parameters,
        optimizer=build_optimizer(parameters, config),
        config=config,
        folder=inputs.folder,
        identity=identity,
        poll=poll,
        team=team,
    )
    trained = train(bench)
    if watch is not None:
        watch.require_unmoved()
    margins = builder.left_out_margins() if inputs.splits.left_out else []
    if margins and team.is_first:
        write_jsonl(inputs.folder / LEFT_OUT_FILE, margins)
    rewards = where_learned(evaluation, config.where_pairs, poll)
    if team.is_first:
        write_where(rewards, inputs.folder)
    _export(model, parameters, inputs, team)
    return RunSummary(
        folder=inputs.project.relative(inputs.folder),
        steps=trained.state.step,
        selected_step=trained.selected_step,
        skipped_steps=trained.state.num_skipped,
        steps_without_signal=trained.state.num_without_signal,
        train_pairs=len(inputs.splits.train),
        validation_pairs=len(inputs.splits.validation),
        too_tied_pairs=inputs.splits.num_too_tied,
        reference_fill_seconds=round(fill_seconds, 2),
        first_logit_max=builder.first_logit,
        memory=config.memory,
        strategy=team.strategy,
        in_force=in_force,
        train_seconds=round(trained.seconds, 2),
    )


def _export(model: VideoModel, parameters: Mapping[str, torch.nn.Parameter], inputs: RunInputs, team: Team) -> None:
    """The adapter, or all of the denoiser, into the run's folder."""
    if inputs.config.train == "full":
        is_chosen = inputs.config.trainable is not None
        weights = whole_on_first(parameters if is_chosen else model.denoiser.state_dict(), team)
        if team.is_first and is_chosen:
            export_chosen(weights, inputs.folder)
        elif team.is_first:
            export_denoiser(model.denoiser, weights, inputs.folder)
        return
    with made_whole(model.denoiser, parameters):
        if team.is_first:
            export_adapter(model, inputs.folder)


def _with_fitting_memory(inputs: RunInputs, model: VideoModel, team: Team) -> RunInputs:
    """The same with memory = "auto" decided for all processes, by one forward and backward as the run makes them."""

    def packed() -> None:
        task = tried(replace(inputs, config=inputs.config.model_copy(update={"memory": "packed"})), model)
        task.backward(team.part(task.largest()), 1.0)

    memory = ("packed", "apart")[team.maximum(memory_that_fits(inputs.config, packed) == "apart")]
    model.denoiser.zero_grad(set_to_none=True)
    return replace(inputs, config=inputs.config.model_copy(update={"memory": memory}))
