"""What the loop works with, put together from a run's settings: what is minimised, what is measured, the reference."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from densedpo.core.workspace import content_hash
from densedpo.learn.audit.margins import SegmentMargins, segment_margins
from densedpo.learn.cache import MAX_FIRST_LOGIT, CachedReference, cache_folder, first_logit, require_small_logit
from densedpo.learn.errors import clip_errors
from densedpo.learn.feed.batch import Draws, Source
from densedpo.learn.feed.order import TimeDensity, Visit
from densedpo.learn.full import BeforeTraining, FrozenCopy
from densedpo.learn.memory import out_of_memory, pairs_in_fill
from densedpo.learn.models import load_copy
from densedpo.learn.processes.team import ALONE, Team
from densedpo.learn.reference import AdapterOff, ReferenceWatch, require_reference
from densedpo.learn.task.preference import PreferenceTask, order_of
from densedpo.learn.task.sft import SftTask
from densedpo.learn.watch.evaluate import Evaluation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from densedpo.adapters.base import VideoModel
    from densedpo.learn.config import LearnConfig
    from densedpo.learn.feed.inputs import LabelledPair
    from densedpo.learn.reference import Reference
    from densedpo.learn.run import RunInputs
    from densedpo.learn.task.protocol import Task

_log = logging.getLogger("densedpo")


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
        self._reference = reference or (FrozenCopy(lambda: load_copy(inputs, team)) if is_full else AdapterOff(model))
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


def tried(inputs: RunInputs, model: VideoModel) -> Task:
    """What the steps minimise, to be tried before a run: the reference is live, and nothing is cached for it."""
    config = inputs.config
    # with cached draws no copy of the model is held
    own = BeforeTraining(model) if config.train == "full" and config.draws != "fresh" else None
    fresh = replace(inputs, config=config.model_copy(update={"draws": "fresh"}))
    return Builder(fresh, model, poll=lambda: None, reference=own).task()


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
