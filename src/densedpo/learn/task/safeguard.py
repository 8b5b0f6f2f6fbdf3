"""The loser-gradient safeguard of Diffusion-SDPO (arXiv 2511.03317): widening the margin must not cost the winner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Bool, Int
    from torch import Tensor

    from densedpo.learn.errors import FrameErrors, Residuals

    Winner = Int[Tensor, "batch frame cell_row cell_column"]
    Lost = Bool[Tensor, "batch frame cell_row cell_column"]


def loser_scale(
    residual_a: Residuals, residual_b: Residuals, winner: Winner, *, mu: float, by_clip: bool
) -> tuple[FrameErrors, FrameErrors]:
    """How much of the gradient of each clip's error to keep: 1 for the winner, lambda for the loser, 1 both on a tie.

        lambda = clip((1 - mu) |g_w|^2 / <g_w, g_l>, 0, 1) if <g_w, g_l> > 0, else 1

    with g_w and g_l the gradients of the winner's and the loser's error with respect to the model's outputs. A
    preference loss descends along c (g_w - lambda g_l) with c > 0, which changes the winner's error, to first order, by
    -c (|g_w|^2 - lambda <g_w, g_l>) <= -c mu |g_w|^2 <= 0: that is the paper's bound (its closed form for lambda).
    The error is a mean of squares, so a gradient is the residual times one factor, which cancels in the ratio.

    It holds only to first order, for outputs in place of parameters, and for plain gradient descent: Adam rescales what
    comes out. Deviations: the authors' code takes one lambda per batch and device; here it is one per latent frame,
    which is where labels can differ and what makes a run independent of how a step is cut into forwards (with labels in
    space, one for those of its cells that each clip won), or one per clip with the clip objectives, whose winner is the
    whole clip.

    Args:
        residual_a: prediction minus target; no gradient flows through the scale.
        winner: +1 where a is better, -1 where b is, 0 for a tie or no label; of frames, or of each of their cells.
        mu: in [0, 1]: 0 lets the winner's error stand still, 1 lets the loser's gradient do nothing against it.
        by_clip: one lambda for all labelled frames of a pair that a wins, and one for those that b wins.
    """
    a, b = residual_a.detach(), residual_b.detach()
    by_cell = tuple(winner.shape[2:]) != (1, 1)
    square_a, square_b, product = (_products(x, y, by_cell=by_cell) for x, y in ((a, a), (b, b), (a, b)))
    lambda_a_lost = _lambda(square_b, product, winner == -1, mu=mu, by_clip=by_clip)
    lambda_b_lost = _lambda(square_a, product, winner == 1, mu=mu, by_clip=by_clip)
    return lambda_a_lost, lambda_b_lost


def with_scaled_gradient(errors: FrameErrors, scale: FrameErrors) -> FrameErrors:
    """The same errors, bit for bit, whose gradient is multiplied."""
    still = errors.detach()
    return still + scale * (errors - still)


def _products(x: Residuals, y: Residuals, *, by_cell: bool) -> FrameErrors:
    """<x, y> of each latent frame, or of each of its cells."""
    return (x * y).sum(1) if by_cell else (x * y).sum((1, 3, 4))[:, :, None, None]


def _lambda(square: FrameErrors, product: FrameErrors, lost: Lost, *, mu: float, by_clip: bool) -> FrameErrors:
    """Lambda where the clip lost, 1 elsewhere."""
    dims = (1, 2, 3) if by_clip else (2, 3)
    square, product = ((value * lost).sum(dims, keepdim=True).expand_as(value) for value in (square, product))
    agrees = lost & (product > 0)
    ratio = (1 - mu) * square / torch.where(agrees, product, torch.ones_like(product))
    return torch.where(agrees, ratio.clamp(0, 1), torch.ones_like(ratio))
