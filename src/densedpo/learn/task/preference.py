"""Preference over labelled pairs: the policy's errors beside the reference's, under the configured objective."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from densedpo.learn.errors import beside_reference, frame_errors, residuals, squared_errors
from densedpo.learn.feed.order import Order, Visit
from densedpo.learn.objectives import LossOutput, PairErrors, with_winner_anchor
from densedpo.learn.reference import AdapterOff
from densedpo.learn.task.objective import label_weight, preference_loss
from densedpo.learn.task.protocol import Outcome
from densedpo.learn.task.safeguard import loser_scale, with_scaled_gradient

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from densedpo.adapters.base import VideoModel
    from densedpo.learn.cache import CachedReference
    from densedpo.learn.config import LearnConfig
    from densedpo.learn.errors import FrameErrors, Residuals
    from densedpo.learn.feed.batch import Draws, PairBatch, Source
    from densedpo.learn.feed.inputs import LabelledPair
    from densedpo.learn.reference import Reference


def order_of(pairs: Sequence[LabelledPair], config: LearnConfig, draws: Draws) -> Order:
    """In which order a run visits its pairs; those of one size are a bucket."""
    buckets = [pair.latent_shape for pair in pairs]
    return Order(buckets, size=config.batch_pairs, seed=config.seed, draws=draws.count)


class PreferenceTask:
    """One of the preference objectives over labelled pairs."""

    def __init__(
        self,
        model: VideoModel,
        source: Source,
        pairs: Sequence[LabelledPair],
        draws: Draws,
        config: LearnConfig,
        cache: CachedReference | None,
        reference: Reference | None = None,
    ) -> None:
        """Nothing is read yet.

        Args:
            cache: the reference's errors of every draw; without one they are computed with each forward.
            reference: by default the model with its adapter switched off.
        """
        self._reference = reference or AdapterOff(model)
        self._model, self._source, self._pairs, self._config, self._cache = model, source, pairs, config, cache
        self.draws = draws
        self._order = order_of(pairs, config, draws)

    def window(self, step: int) -> tuple[tuple[Visit, ...], ...]:
        """See `Task`."""
        return self._order.window(step, accumulation=self._config.accumulation)

    def largest(self) -> tuple[Visit, ...]:
        """See `Task`."""
        return self._order.largest(lambda index: math.prod(self._pairs[index].latent_shape or ()))

    def weight(self, visits: Sequence[Visit]) -> float:
        """See `Task`."""
        total = 0.0
        for visit in visits:
            pair = self._pairs[visit.index]
            total += label_weight(self._config, pair, self._cell_weight([pair]))
        return total

    def outcome(self, visits: Sequence[Visit]) -> Outcome:
        """See `Task`."""
        batch = self._source.pairs(self._pairs, visits, self.draws)
        output = self.loss(self.errors(batch, visits), batch, visits)
        return Outcome(loss=output.loss, weight=output.weight, t=batch.t, metrics=output.metrics)

    def backward(self, visits: Sequence[Visit], divisor: float) -> Outcome:
        """See `Task`; with memory = "apart" one clip of each pair after the other, else both in one forward."""
        if self._config.memory == "apart":
            return self._backward_apart(visits, divisor)
        return self.outcome(visits).backward(divisor)

    def _backward_apart(self, visits: Sequence[Visit], divisor: float) -> Outcome:
        """The same gradient with the activations of one clip at a time, for one forward of each clip more.

        By the chain rule the gradient is the sum over clips of dL/de(clip) * de(clip)/dtheta. A pass without a graph
        gives the errors e of both clips and with them the coefficients dL/de, which are numbers; then each clip has its
        own forward and backward.
        """
        batch = self._source.pairs(self._pairs, visits, self.draws)
        clips = batch.apart()
        if self._cache is None:
            reference = torch.cat([squared_errors(self._reference.residuals(clip), clip) for clip in clips])
        else:
            reference = self._cache.of(visits)
        with torch.no_grad():
            policy = torch.cat([residuals(self._model, clip) for clip in clips])
        errors = squared_errors(policy, clips[0]).requires_grad_()
        output = self.loss(self._beside(errors, policy, reference, batch), batch, visits)
        coefficients = torch.autograd.grad(output.loss.sum() / divisor, errors)[0]
        for clip, coefficient in zip(clips, coefficients.chunk(2), strict=True):
            (coefficient * frame_errors(self._model, clip)).sum().backward()  # type: ignore[no-untyped-call]
        return Outcome(loss=output.loss, weight=output.weight, t=batch.t, metrics=output.metrics).detached()

    def errors(self, batch: PairBatch, visits: Sequence[Visit]) -> PairErrors:
        """The policy's errors with their graph, beside the reference's, which come first.

        The other order breaks gradient checkpointing: recomputing would find the adapters switched.
        """
        if self._cache is None:
            packed = batch.packed()
            reference = squared_errors(self._reference.residuals(packed), packed)
        else:
            reference = self._cache.of(visits)
        return self.errors_of(residuals(self._model, batch.packed()), reference, batch)

    def errors_and_drift(
        self, batch: PairBatch, visits: Sequence[Visit]
    ) -> tuple[PairErrors, Float[Tensor, "batch"] | None]:
        """The errors, and how far the policy's prediction is from the reference's: (v_policy - v_reference)^2.

        The drift is the mean over both clips' elements; it takes one forward of the reference more than `errors`. None
        where no reference is held that could run it.
        """
        if not self._reference.is_live:
            return self.errors(batch, visits), None
        reference = self._reference.residuals(batch.packed())
        policy = residuals(self._model, batch.packed())
        made = (policy - reference)[:, :, self._model.geometry.num_given_frames :]
        drift_a, drift_b = torch.square(made).mean((1, 2, 3, 4)).chunk(2)
        known = squared_errors(reference, batch.packed()) if self._cache is None else self._cache.of(visits)
        return self.errors_of(policy, known, batch), (drift_a + drift_b) / 2

    def errors_of(self, policy: Residuals, reference: FrameErrors, batch: PairBatch) -> PairErrors:
        """The same from the policy's packed residuals."""
        return self._beside(squared_errors(policy, batch.packed()), policy, reference, batch)

    def _beside(self, errors: FrameErrors, policy: Residuals, reference: FrameErrors, batch: PairBatch) -> PairErrors:
        """Beside the reference's, the loser's gradient scaled where a safeguard is set."""
        mu = self._config.loser_safeguard
        if mu is not None and errors.requires_grad:
            errors = with_scaled_gradient(errors, self._loser_scale(policy, batch, mu))
        return beside_reference(errors, reference, batch)

    def _loser_scale(self, policy: Residuals, batch: PairBatch, mu: float) -> FrameErrors:
        """The scales of both clips' gradients, packed; one for each group of cells that the loss weights alike."""
        residual_a, residual_b = policy.chunk(2)
        by_sign = batch.sign[:, None, None, None].expand_as(batch.field)
        match self._config.objective:
            case "dpo":
                groups = [by_sign]
            case "dpo_levels":
                # where the levels disagree, the finest that has a label says who won
                coarse = torch.where(batch.segment != 0, batch.segment, by_sign)
                groups = [batch.region, torch.where(batch.region != 0, torch.zeros_like(coarse), coarse)]
            case _:
                groups = [batch.field]
        by_clip = self._config.objective == "dpo"
        scale = torch.ones((), device=policy.device)
        for winner in groups:
            both = loser_scale(residual_a, residual_b, winner.to(policy.device), mu=mu, by_clip=by_clip)
            scale = scale * torch.cat(both)
        return scale

    def loss(self, errors: PairErrors, batch: PairBatch, visits: Sequence[Visit]) -> LossOutput:
        """The configured objective of a batch that these visits made."""
        weight = self._cell_weight([self._pairs[visit.index] for visit in visits])
        output = preference_loss(self._config, errors, batch, weight)
        strength = self._config.winner_anchor
        if not strength or self._config.objective == "dpo_levels":  # which anchors each of its levels
            return output
        by_clip = self._config.objective == "dpo"
        field = batch.sign[:, None, None, None].expand_as(batch.field) if by_clip else batch.field
        return with_winner_anchor(output, errors, field.to(errors.valid.device), strength=strength)

    def _cell_weight(self, pairs: Sequence[LabelledPair]) -> Float[Tensor, "batch frame 1 1"] | None:
        return None if self._config.cell_weight == "none" else self._source.differences(pairs)

    def ids(self, visits: Sequence[Visit]) -> tuple[str, ...]:
        """See `Task`."""
        return tuple(self._pairs[visit.index].id for visit in visits)
