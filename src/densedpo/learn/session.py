"""A run with torch: loads the model, checks the start, trains, exports."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from densedpo.adapters import catalogue
from densedpo.adapters.trained import load_trained
from densedpo.core.records import write_jsonl
from densedpo.core.workspace import content_hash
from densedpo.learn.audit.margins import LEFT_OUT_FILE, SegmentMargins, segment_margins
from densedpo.learn.cache import MAX_FIRST_LOGIT, CachedReference, cache_folder, first_logit, require_small_logit
from densedpo.learn.errors import clip_errors
from densedpo.learn.execution import compile_blocks, read_back, use_attention, watching_products
from densedpo.learn.export import export_adapter, export_chosen, export_denoiser, where_learned, write_where
from densedpo.learn.feed.batch import Draws, Source
from densedpo.learn.feed.order import TimeDensity, Visit
from densedpo.learn.full import BeforeTraining, FrozenCopy, compute_in, offload_blocks, train_all
from densedpo.learn.loop import Workbench, train
from densedpo.learn.memory import memory_that_fits, out_of_memory, pairs_in_fill, recompute_activations
from densedpo.learn.processes.shard import made_whole, shard, whole_on_first
from densedpo.learn.processes.team import ALONE, Team, device_of, joined
from densedpo.learn.reference import AdapterOff, ReferenceWatch, attach_lora, require_reference, trainable
from densedpo.learn.run import RunInputs, RunSummary
from densedpo.learn.step import build_optimizer
from densedpo.learn.tasks import PreferenceTask, SftTask, order_of
from densedpo.learn.watch.evaluate import Evaluation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from densedpo.adapters.base import VideoModel
    from densedpo.learn.config import LearnConfig
    from densedpo.learn.feed.inputs import LabelledPair
    from densedpo.learn.processes.launch import World
    from densedpo.learn.reference import Reference
    from densedpo.learn.stop import StopFlag
    from densedpo.learn.tasks import Task

_log = logging.getLogger("densedpo")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


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


def load_model(inputs: RunInputs, *, captions: Path | None = None) -> tuple[VideoModel, dict[str, torch.nn.Parameter]]:
    """The run's model, with a fresh adapter or as it is, and the parameters that move by name.

    Args:
        captions: where embeddings of captions are kept; those of the run are then there before the first step.
    """
    config = inputs.config
    pairs = (*inputs.splits.train, *inputs.splits.validation, *inputs.splits.left_out)
    ahead = [pair.caption for pair in pairs] + [clip.caption for clip in inputs.clips]
    model = load_base(inputs.model, config, captions=captions, ahead=ahead, start=inputs.start)
    return model, train_all(model, config) if config.train == "full" else attach_lora(model, config)


def load_base(
    name: str, config: LearnConfig, *, captions: Path | None, ahead: Sequence[str], start: Path | None = None
) -> VideoModel:
    """A model as a run's settings want it to compute, before anything is put on it that moves.

    Args:
        captions: where embeddings of captions are kept.
        ahead: captions that are encoded before the denoiser is loaded.
        start: the weights of another run, which the run starts from.
    """
    dtype = torch.float32 if config.train == "full" else _DTYPES[config.precision]
    model = catalogue.load(name, device=config.device, dtype=dtype, captions=captions)
    model.encode_ahead(list(ahead))
    if start is not None:
        load_trained(model, start)
    if config.checkpoint_activations:
        recompute_activations(model.denoiser)
    if config.attention is not None:
        use_attention(model.denoiser, config.attention)
    return model


def _load_copy(inputs: RunInputs, team: Team) -> VideoModel:
    """The model as it was, for a run that trains all weights and needs the reference in its steps."""
    config = inputs.config
    model = catalogue.load(inputs.model, device=config.device, dtype=torch.float32)
    if inputs.start is not None:
        load_trained(model, inputs.start)
    compute_in(model.denoiser, config)
    if config.attention is not None:
        use_attention(model.denoiser, config.attention)
    if team.is_sharded:
        shard(model.denoiser)
    elif config.reference_copy == "cpu":
        offload_blocks(model.denoiser, torch.device(config.device))
    return model


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


def _by_size(pairs: Sequence[LabelledPair]) -> list[list[int]]:
    """The places of the pairs whose latents are of one size, one list for each size."""
    found: dict[tuple[int, ...] | None, list[int]] = {}
    for index, pair in enumerate(pairs):
        found.setdefault(pair.latent_shape, []).append(index)
    return list(found.values())


def _precision_of_cache(config: LearnConfig) -> str:
    """bfloat16 weights and bfloat16 products of float32 weights give other errors, and so caches of their own."""
    is_mixed = config.train == "full" and config.precision != "float32"
    return f"{config.precision} products" if is_mixed else config.precision


def _with_fitting_memory(inputs: RunInputs, model: VideoModel, team: Team) -> RunInputs:
    """The same with memory = "auto" decided for all processes, by one forward and backward as the run makes them."""

    def packed() -> None:
        task = tried(replace(inputs, config=inputs.config.model_copy(update={"memory": "packed"})), model)
        task.backward(team.part(task.largest()), 1.0)

    memory = ("packed", "apart")[team.maximum(memory_that_fits(inputs.config, packed) == "apart")]
    model.denoiser.zero_grad(set_to_none=True)
    return replace(inputs, config=inputs.config.model_copy(update={"memory": memory}))


def tried(inputs: RunInputs, model: VideoModel) -> Task:
    """What the steps minimise, to be tried before a run: the reference is live, and nothing is cached for it."""
    config = inputs.config
    # with cached draws no copy of the model is held
    own = BeforeTraining(model) if config.train == "full" and config.draws != "fresh" else None
    fresh = replace(inputs, config=config.model_copy(update={"draws": "fresh"}))
    return Builder(fresh, model, poll=lambda: None, reference=own).task()


class Builder:
    """Puts together what the loop works with; nothing has moved yet."""

    def __init__(
        self,
        inputs: RunInputs,
        model: VideoModel,
        poll: Callable[[], None],
        team: Team = ALONE,
        reference: Reference | None = None,
    ) -> None:
        """Nothing is computed yet.

        `first_logit` is the largest |u| before the first step, once the task is built on cached reference errors.

        Args:
            poll: called before each forward of a fill; may raise to stop.
            reference: by default the adapter switched off, or a copy where all weights are trained.
        """
        self._inputs, self._model, self._poll, self._team = inputs, model, poll, team
        self._config, self._splits = inputs.config, inputs.splits
        self._source = Source(model)
        is_full = inputs.config.train == "full"
        self._reference = reference or (FrozenCopy(lambda: _load_copy(inputs, team)) if is_full else AdapterOff(model))
        runs_live = inputs.config.draws == "fresh" and inputs.config.objective != "sft"
        # what fills a cache, and what is left of the reference beside a complete one
        self._beside_cache = BeforeTraining(model) if is_full and not runs_live else self._reference
        self.first_logit: float | None = None
        density = TimeDensity.of(inputs.config)
        self._train_draws = Draws(
            noise_seed=self._config.noise_seed, count=self._config.draws, density=density, noise=self._config.noise
        )
        self._eval_draws = Draws(noise_seed=self._config.noise_seed, count=self._config.eval_draws, density=density)

    def check_start(self) -> ReferenceWatch | None:
        """Refuses a start at which policy and reference differ; without pairs there is no reference, and one forward.

        That one is for whoever watches how the model computes.
        """
        if not self._splits.train:
            with torch.no_grad():
                clip_errors(
                    self._model,
                    self._source.clips(self._inputs.clips, [Visit(index=0, draw=0)], self._train_draws),
                )
            return None
        visits = [Visit(index=index, draw=0) for index in _by_size(self._splits.train)[0][:2]]
        batch = self._source.pairs(self._splits.train, visits, self._train_draws)
        require_reference(self._model, batch, self._config, self._beside_cache)
        return ReferenceWatch(self._beside_cache, batch)

    def task(self) -> Task:
        """What the steps minimise."""
        if self._config.objective == "sft":
            return SftTask(self._model, self._source, self._inputs.clips, self._train_draws, self._config)
        train = self._splits.train
        cache = None
        if isinstance(self._config.draws, int):
            order = order_of(train, self._config, self._train_draws)
            num_draws = order.num_draws(self._config.num_steps, accumulation=self._config.accumulation)
            cache, self.first_logit = self._cache(
                train, self._train_draws, num_draws, in_forward=self._config.batch_pairs
            )
            require_small_logit(self.first_logit, self._config)
        return self._preference_task(train, self._train_draws, cache)

    def evaluation(self) -> Evaluation | None:
        """The measure on validation pairs; None where there are none, or none is asked for."""
        pairs = self._splits.validation
        if not pairs or not self._config.eval_every:
            return None
        cache: CachedReference | None
        cache, logit = self._cache(pairs, self._eval_draws, self._config.eval_draws, in_forward=1)
        if logit > MAX_FIRST_LOGIT:
            _log.warning(
                "evaluations run the reference anew: with cached errors |u| is up to %.3f before the first step", logit
            )
            cache = None
        return Evaluation(self._preference_task(pairs, self._eval_draws, cache), self._source, pairs, self._config)

    def left_out_margins(self) -> list[SegmentMargins]:
        """What the trained model thinks of the part of the training pairs that it has not seen."""
        pairs = self._splits.left_out
        config = self._config.model_copy(update={"eval_draws": self._config.fold_draws})
        draws = replace(self._eval_draws, count=config.eval_draws)
        evaluation = Evaluation(self._preference_task(pairs, draws, None), self._source, pairs, config)
        return [
            segment_margins(pair.labels, reward, beta=config.beta)
            for pair, reward in zip(pairs, evaluation.rewards(len(pairs), self._poll), strict=True)
        ]

    def _preference_task(
        self, pairs: Sequence[LabelledPair], draws: Draws, cache: CachedReference | None
    ) -> PreferenceTask:
        reference = self._reference if cache is None else self._beside_cache
        return PreferenceTask(self._model, self._source, pairs, draws, self._config, cache, reference)

    def _cache(
        self, pairs: Sequence[LabelledPair], draws: Draws, num_draws: int, *, in_forward: int
    ) -> tuple[CachedReference, float]:
        """The filled cache, and the largest |u| before the first step with so many pairs in a forward."""
        inputs, config = self._inputs, self._config
        assert inputs.pairs_folder is not None
        folder = cache_folder(
            inputs.pairs_folder,
            draws,
            fingerprint=inputs.fingerprint,
            content=content_hash(inputs.pairs_folder, inputs.project),
            precision=_precision_of_cache(config),
            device=config.device,
        )
        cache = CachedReference(pairs, draws, folder)
        in_fill = pairs_in_fill(config, in_forward, self._team.size)
        try:
            share = cache.fill(
                self._model, self._source, num_draws, self._poll, self._team, self._beside_cache, in_forward=in_fill
            )
            logits = []
            for same in _by_size(pairs):
                # as many as a process has in a forward: those of all together may not fit one GPU
                visits = [Visit(index=index, draw=0) for index in same[: -(-in_forward // self._team.size)]]
                logits.append(first_logit(self._model, self._source.pairs(pairs, visits, draws), visits, cache, config))
        except torch.OutOfMemoryError as error:
            raise out_of_memory(config, error) from error
        logit = max(logits)
        _log.info(
            "reference errors of %d pairs x %d draws: %.0f %% computed; largest |u| before the first step %.1e",
            len(pairs), num_draws, 100 * share, logit,
        )  # fmt: skip
        return cache, logit
