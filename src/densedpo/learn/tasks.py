"""What a step minimises: preference over pairs, or the plain error over real clips, behind one small protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, assert_never

import torch

from densedpo.learn.errors import beside_reference, clip_errors, frame_errors, residuals, squared_errors
from densedpo.learn.feed.order import Order, Visit
from densedpo.learn.objectives import (
    LevelFields,
    LevelWeights,
    LossOutput,
    PairErrors,
    dense_dpo,
    dense_dpo_summed,
    dense_dpo_summed_weight,
    dense_dpo_ties,
    dense_dpo_ties_weight,
    dense_dpo_weight,
    dense_ipo,
    dense_robust,
    dpo,
    dpo_levels,
    dpo_levels_weight,
    dpo_weight,
    with_winner_anchor,
)
from densedpo.learn.outcome import Outcome
from densedpo.learn.reference import AdapterOff
from densedpo.learn.safeguard import loser_scale, with_scaled_gradient

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from densedpo.adapters.base import VideoModel
    from densedpo.learn.cache import CachedReference
    from densedpo.learn.config import LearnConfig
    from densedpo.learn.errors import FrameErrors, Residuals
    from densedpo.learn.feed.batch import Draws, PairBatch, Source
    from densedpo.learn.feed.inputs import LabelledPair, RealClip
    from densedpo.learn.reference import Reference


class Task(Protocol):
    """What the step needs to know of an objective."""

    def window(self, step: int) -> tuple[tuple[Visit, ...], ...]:
        """The forwards of a step, each a few visits to items of one size."""

    def largest(self) -> tuple[Visit, ...]:
        """A forward of the largest items: what fits it fits every forward."""

    def weight(self, visits: Sequence[Visit]) -> float:
        """The total weight that `outcome` will return, from labels alone."""

    def outcome(self, visits: Sequence[Visit]) -> Outcome:
        """One forward of the policy, with its graph."""

    def backward(self, visits: Sequence[Visit], divisor: float) -> Outcome:
        """Adds the gradient of the visits' loss over a divisor to the parameters; the outcome has no graph."""

    def ids(self, visits: Sequence[Visit]) -> tuple[str, ...]:
        """The names of what is visited, for the quarantine list."""


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
        return _backward(self.outcome(visits), divisor)

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
        return _backward(self.outcome(visits), divisor)

    def ids(self, visits: Sequence[Visit]) -> tuple[str, ...]:
        """See `Task`."""
        return tuple(self._clips[visit.index].id for visit in visits)


def _backward(outcome: Outcome, divisor: float) -> Outcome:
    (outcome.loss.sum() / divisor).backward()  # type: ignore[no-untyped-call]
    return outcome.detached()


def preference_loss(
    config: LearnConfig,
    errors: PairErrors,
    batch: PairBatch,
    cell_weight: Float[Tensor, "batch frame 1 1"] | None = None,
) -> LossOutput:
    """The configured objective; sft has no preference loss and is measured as dense_dpo would be."""
    device = errors.policy_a.device
    field, sign = batch.field.to(device), batch.sign.to(device)
    weight = None if cell_weight is None else cell_weight.to(device).expand_as(field)
    match config.objective:
        case "dense_dpo" | "sft":
            confidence = batch.confidence.to(device) if config.use_confidence else None
            return dense_dpo(errors, field, beta=config.beta, confidence=confidence, cell_weight=weight)
        case "dense_ipo":
            return dense_ipo(errors, field, beta=config.beta, cell_weight=weight)
        case "dense_robust":
            return dense_robust(errors, field, beta=config.beta, flip_rate=config.flip_rate, cell_weight=weight)
        case "dense_dpo_ties":
            judged = batch.judged.to(device)
            return dense_dpo_ties(errors, field, beta=config.beta, nu=config.nu, judged=judged, cell_weight=weight)
        case "dense_dpo_summed":
            return dense_dpo_summed(errors, field, beta=config.beta)
        case "dpo":
            return dpo(errors, sign, beta=config.beta)
        case "dpo_levels":
            fields = LevelFields(sign=sign, segment=batch.segment.to(device), region=batch.region.to(device))
            weights, anchor = level_weights(config), config.winner_anchor
            return dpo_levels(errors, fields, beta=config.beta, weights=weights, winner_anchor=anchor)
        case _ as unknown:
            assert_never(unknown)


def level_weights(config: LearnConfig) -> LevelWeights:
    """The configured weights of clip, segments and region."""
    clip, segment, region = config.level_weights
    return LevelWeights(clip=clip, segment=segment, region=region)


def label_weight(
    config: LearnConfig, pair: LabelledPair, cell_weight: Float[Tensor, "1 frame 1 1"] | None = None
) -> float:
    """The weight of a pair in the loss, from its labels alone (and its own clips, where cells are weighted)."""
    labels = pair.labels
    field = torch.from_numpy(labels.cells.copy())[None]
    valid = torch.from_numpy(labels.over_cells(labels.valid).copy())[None]
    cell_weight = None if cell_weight is None else cell_weight.expand_as(field)
    match config.objective:
        case "dense_dpo" | "dense_ipo" | "dense_robust" | "sft":
            weight = dense_dpo_weight(field, valid, cell_weight)
        case "dense_dpo_ties":
            judged = torch.from_numpy(labels.over_cells(labels.judged).copy())[None]
            weight = dense_dpo_ties_weight(field, valid, judged, cell_weight)
        case "dense_dpo_summed":
            weight = dense_dpo_summed_weight(field, valid)
        case "dpo":
            weight = dpo_weight(torch.tensor([labels.sign]), valid)
        case "dpo_levels":
            fields = LevelFields(
                sign=torch.tensor([labels.sign]),
                segment=torch.from_numpy(labels.over_cells(labels.field).copy())[None],
                region=torch.from_numpy(labels.region)[None],
            )
            weight = dpo_levels_weight(fields, valid, weights=level_weights(config))
        case _ as unknown:
            assert_never(unknown)
    return float(weight.sum())
