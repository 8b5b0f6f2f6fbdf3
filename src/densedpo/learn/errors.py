"""A model's squared errors in its own training target: where tensors meet the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from densedpo.adapters.base import require_first_frame, target_scale
from densedpo.core import paths
from densedpo.learn.objectives import PairErrors

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from densedpo.adapters.base import VideoModel
    from densedpo.learn.feed.batch import ClipBatch, PairBatch

    # a grid of 1 x 1 for labels in time only, else that of the latents
    FrameErrors = Float[Tensor, "batch frame cell_row cell_column"]
    Residuals = Float[Tensor, "batch channel frame row column"]


def residuals(model: VideoModel, batch: ClipBatch) -> Residuals:
    """Predicted minus true, in the model's own training target and float32; 0 in frames that are given."""
    require_first_frame(model.geometry, batch.text)
    x_t = batch.text.hold(paths.noised(batch.latents, batch.noise, batch.t))
    predicted = model.predict(x_t, batch.t, batch.text)
    target = paths.velocity(batch.latents, batch.noise).to(predicted.device)
    scale = target_scale(model.target, batch.t).to(predicted.device)
    residual = (predicted.float() - target) * scale[:, None, None, None, None]
    num_given = model.geometry.num_given_frames
    if not num_given:
        return residual
    # cut off and not multiplied by 0: what a denoiser says of a clean frame may be anything, NaN too
    return torch.cat([torch.zeros_like(residual[:, :, :num_given]), residual[:, :, num_given:]], dim=2)


def clip_errors(model: VideoModel, batch: ClipBatch) -> Float[Tensor, "batch"]:
    """The squared error of each clip, averaged over the latent frames that the model makes."""
    return frame_errors(model, batch)[:, model.geometry.num_given_frames :].flatten(1).mean(1)


def squared_by_frame(residual: Residuals) -> FrameErrors:
    """The squared error of each latent frame, averaged over channels, rows and columns."""
    return torch.square(residual).mean((1, 3, 4))[:, :, None, None]


def squared_errors(residual: Residuals, batch: ClipBatch) -> FrameErrors:
    """The squared error of each latent frame, or of each of its cells where the batch has labels in space."""
    return torch.square(residual).mean(1) if batch.by_cell else squared_by_frame(residual)


def frame_errors(model: VideoModel, batch: ClipBatch) -> FrameErrors:
    """The squared errors of `squared_errors` in the model's own target, float32."""
    return squared_errors(residuals(model, batch), batch)


def pair_errors(model: VideoModel, batch: PairBatch, reference: FrameErrors) -> PairErrors:
    """The policy's errors on both clips in one packed forward, beside the reference's.

    Args:
        reference: the reference's `frame_errors` of `batch.packed()`: all a, then all b.
    """
    return beside_reference(frame_errors(model, batch.packed()), reference, batch)


def beside_reference(policy: FrameErrors, reference: FrameErrors, batch: PairBatch) -> PairErrors:
    """What an objective takes, from the packed errors of both models: all a, then all b."""
    policy_a, policy_b = policy.chunk(2)
    reference_a, reference_b = reference.to(policy_a.device).chunk(2)
    return PairErrors(
        policy_a=policy_a,
        policy_b=policy_b,
        reference_a=reference_a,
        reference_b=reference_b,
        valid=batch.valid.to(policy_a.device),
    )
