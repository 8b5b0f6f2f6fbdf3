"""The noise path of rectified flow and the conversions between what models predict.

x_t = (1 - t) x_0 + t eps with t in [0, 1] and 1 = noise; velocity = eps - x_0 (Liu et al., 2209.03003, with time
reversed to the direction that diffusers and Wan use). Variance-preserving models meet it by signal-to-noise ratio.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def _over_batch(t: Float[Tensor, " batch"], like: Float[Tensor, "batch *rest"]) -> Float[Tensor, "batch *ones"]:
    return t.to(like).reshape(-1, *(1,) * (like.ndim - 1))


def noised(
    x0: Float[Tensor, "batch *rest"], eps: Float[Tensor, "batch *rest"], t: Float[Tensor, " batch"]
) -> Float[Tensor, "batch *rest"]:
    """The point of the path at t: clean at 0, noise at 1."""
    t = _over_batch(t, x0)
    return (1 - t) * x0 + t * eps


def path_norm(t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """n: what a variance-preserving point is multiplied by to lie on the flow path at t, at the same ratio of noise.

    x_t = (1-t) x + t eps is n times z = alpha x + sigma eps with alpha = (1-t)/n and sigma = t/n.
    """
    return ((1 - t) ** 2 + t**2).sqrt()


def without_signal(eps: Float[Tensor, "batch *rest"], t: Float[Tensor, " batch"]) -> Float[Tensor, "batch *rest"]:
    """Where sampling from noise begins at t: noise of the variance that the path has there.

    That is (1-t)^2 + t^2 for clean ends of unit variance, so that a variance-preserving model gets the unit noise that
    its pipeline begins with. At t = 1 it is eps itself, bit for bit.
    """
    return eps * path_norm(_over_batch(t, eps))


def velocity(x0: Float[Tensor, "batch *rest"], eps: Float[Tensor, "batch *rest"]) -> Float[Tensor, "batch *rest"]:
    """d x_t / d t, the training target of rectified-flow models."""
    return eps - x0


def x0_from_velocity(
    x_t: Float[Tensor, "batch *rest"], v: Float[Tensor, "batch *rest"], t: Float[Tensor, " batch"]
) -> Float[Tensor, "batch *rest"]:
    """The clean end of the path through x_t with slope v."""
    return x_t - _over_batch(t, x_t) * v


def eps_from_velocity(
    x_t: Float[Tensor, "batch *rest"], v: Float[Tensor, "batch *rest"], t: Float[Tensor, " batch"]
) -> Float[Tensor, "batch *rest"]:
    """The noisy end of the path through x_t with slope v."""
    return x_t + (1 - _over_batch(t, x_t)) * v


def eta_to_alpha_bar(eta: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The cumulative alpha of a variance-preserving model with the noise-to-signal ratio of the flow path at eta.

    sqrt(1 - abar) / sqrt(abar) = eta / (1 - eta), solved without dividing by 1 - eta, so that eta = 1 gives 0.

    Raises:
        ValueError: an eta outside [0, 1].
    """
    if bool(((eta < 0) | (eta > 1)).any()):
        raise ValueError(f"eta is in [0, 1], got {torch.aminmax(eta)}")
    signal = torch.square(1 - eta)
    return signal / (signal + torch.square(eta))


def noise_levels(alphas_cumprod: Float[Tensor, " timestep"]) -> Float[Tensor, " timestep"]:
    """t of the flow path at each training timestep, ascending; 1 where nothing of the signal is left."""
    alpha_bar = alphas_cumprod.double()
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    levels: Tensor = (sigma / (alpha + sigma)).float()
    return levels


def timestep_at(levels: Float[Tensor, " timestep"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """The timestep at t, interpolated between two of the levels that the model was trained on.

    Below the lowest level it is 0, above the highest the last.
    """
    above = torch.searchsorted(levels, t).clamp(1, len(levels) - 1)
    low, high = levels[above - 1], levels[above]
    return above - 1 + ((t - low) / (high - low)).clamp(0, 1)
