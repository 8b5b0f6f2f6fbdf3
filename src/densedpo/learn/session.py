"""A run with torch: loads the model, checks the start, trains, exports."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from densedpo.adapters import catalogue
from densedpo.core.records import write_jsonl
from densedpo.core.workspace import content_hash
from densedpo.learn.audit.margins import LEFT_OUT_FILE, SegmentMargins, segment_margins
from densedpo.learn.export import export_run
from densedpo.learn.feed.batch import Draws, Source
from densedpo.learn.feed.order import TimeDensity, Visit, num_draws_visited
from densedpo.learn.loop import Workbench, train
from densedpo.learn.reference import (
    CachedReference,
    ReferenceWatch,
    attach_lora,
    cache_folder,
    require_cache,
    require_reference,
)
from densedpo.learn.run import RunInputs, RunSummary
from densedpo.learn.step import build_optimizer
from densedpo.learn.stop import stop_on_signals
from densedpo.learn.tasks import PreferenceTask, SftTask
from densedpo.learn.watch.evaluate import Evaluation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from densedpo.adapters.base import VideoModel
    from densedpo.learn.feed.inputs import LabelledPair
    from densedpo.learn.tasks import Task

_log = logging.getLogger("densedpo")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def run_session(inputs: RunInputs, *, identity: str) -> RunSummary:
    """Trains what the inputs say, into their folder.

    Args:
        identity: the hash of the run's config and inputs, which its checkpoints carry.

    Raises:
        Interrupted, BadInput: see `learn_offline`.
    """
    config = inputs.config
    with stop_on_signals() as flag:
        model, parameters = load_model(inputs)
        started = time.monotonic()
        builder = Builder(inputs, model, flag.poll)
        watch = builder.check_start()
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
            poll=flag.poll,
        )
        trained = train(bench)
        watch.require_unmoved()
        if inputs.splits.left_out:
            write_jsonl(inputs.folder / LEFT_OUT_FILE, builder.left_out_margins())
        export_run(model, evaluation, inputs.folder, num_pairs=config.where_pairs, poll=flag.poll)
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
        train_seconds=round(trained.seconds, 2),
    )


def load_model(inputs: RunInputs) -> tuple[VideoModel, dict[str, torch.nn.Parameter]]:
    """The run's model with a fresh adapter, and the adapter's parameters by name."""
    config = inputs.config
    model = catalogue.load(inputs.model, device=config.device, dtype=_DTYPES[config.precision])
    return model, attach_lora(model, config)


class Builder:
    """Puts together what the loop works with; the adapter is still fresh."""

    def __init__(self, inputs: RunInputs, model: VideoModel, poll: Callable[[], None]) -> None:
        """Args: `poll` is called before each forward of a fill; may raise to stop."""
        self._inputs, self._model, self._poll = inputs, model, poll
        self._config, self._splits = inputs.config, inputs.splits
        self._source = Source(model)
        density = TimeDensity.of(inputs.config)
        self._train_draws = Draws(
            noise_seed=self._config.noise_seed, count=self._config.draws, density=density, noise=self._config.noise
        )
        self._eval_draws = Draws(noise_seed=self._config.noise_seed, count=self._config.eval_draws, density=density)

    def check_start(self) -> ReferenceWatch:
        """Refuses a start at which policy and reference differ."""
        visits = [Visit(index=index, draw=0) for index in range(min(2, len(self._splits.train)))]
        batch = self._source.pairs(self._splits.train, visits, self._train_draws)
        require_reference(self._model, batch, self._config)
        return ReferenceWatch(self._model, batch)

    def task(self) -> Task:
        """What the steps minimise."""
        if self._config.objective == "sft":
            return SftTask(self._model, self._source, self._inputs.clips, self._train_draws, self._config)
        train = self._splits.train
        cache = None
        if isinstance(self._config.draws, int):
            num_draws = num_draws_visited(
                num_steps=self._config.num_steps,
                num_items=len(train),
                size=self._config.window_pairs,
                draws=self._config.draws,
            )
            cache = self._cache(train, self._train_draws, num_draws)
        return self._preference_task(train, self._train_draws, cache)

    def evaluation(self) -> Evaluation | None:
        """The measure on validation pairs; None where there are none."""
        pairs = self._splits.validation
        if not pairs:
            return None
        cache = self._cache(pairs, self._eval_draws, self._config.eval_draws)
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
        return PreferenceTask(self._model, self._source, pairs, draws, self._config, cache)

    def _cache(self, pairs: Sequence[LabelledPair], draws: Draws, num_draws: int) -> CachedReference:
        inputs = self._inputs
        folder = cache_folder(
            inputs.pairs_folder,
            pairs,
            draws,
            fingerprint=inputs.fingerprint,
            content=content_hash(inputs.pairs_folder, inputs.project),
            precision=self._config.precision,
        )
        cache = CachedReference(pairs, draws, folder)
        share = cache.fill(self._model, self._source, num_draws, self._poll)
        _log.info("reference errors of %d pairs x %d draws: %.0f %% computed", len(pairs), num_draws, 100 * share)
        visits = [Visit(index=index, draw=0) for index in range(min(2, len(pairs)))]
        require_cache(self._model, self._source.pairs(pairs, visits, draws), visits, cache)
        return cache
