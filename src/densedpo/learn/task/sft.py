"""The plain flow-matching error over real clips: supervised fine-tuning, the control beside every preference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from densedpo.learn.errors import clip_errors
from densedpo.learn.feed.order import Order, Visit
from densedpo.learn.task.protocol import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from densedpo.adapters.base import VideoModel
    from densedpo.learn.config import LearnConfig
    from densedpo.learn.feed.batch import Draws, Source
    from densedpo.learn.feed.inputs import RealClip


class SftTask:
    """The flow-matching error over real clips, twice as many as pairs: the same number of clips in a forward."""

    def __init__(
        self, model: VideoModel, source: Source, clips: Sequence[RealClip], draws: Draws, config: LearnConfig
    ) -> None:
        """Nothing is read yet."""
        self._model, self._source, self._clips, self._draws, self._config = model, source, clips, draws, config
        self._order = Order([None] * len(clips), size=2 * config.batch_pairs, seed=config.seed, draws="fresh")

    def window(self, step: int) -> tuple[tuple[Visit, ...], ...]:
        """See `Task`."""
        return self._order.window(step, accumulation=self._config.accumulation)

    def largest(self) -> tuple[Visit, ...]:
        """See `Task`; real clips are of one size."""
        return self.window(1)[0]

    def weight(self, visits: Sequence[Visit]) -> float:
        """See `Task`."""
        return float(len(visits))

    def outcome(self, visits: Sequence[Visit]) -> Outcome:
        """See `Task`."""
        batch = self._source.clips(self._clips, visits, self._draws)
        loss = clip_errors(self._model, batch)
        return Outcome(loss=loss, weight=torch.ones_like(loss), t=batch.t, metrics=None)

    def backward(self, visits: Sequence[Visit], divisor: float) -> Outcome:
        """See `Task`."""
        return self.outcome(visits).backward(divisor)

    def ids(self, visits: Sequence[Visit]) -> tuple[str, ...]:
        """See `Task`."""
        return tuple(self._clips[visit.index].id for visit in visits)
