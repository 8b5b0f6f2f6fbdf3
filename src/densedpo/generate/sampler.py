"""The sampler: Euler steps along the flow, with classifier-free guidance, from noise or from a noised clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from densedpo.adapters.base import require_first_frame

if TYPE_CHECKING:
    from densedpo.adapters.base import TextCondition, VideoModel


@dataclass(frozen=True, kw_only=True, slots=True)
class PairStart:
    """Latents at the first noise level of the schedule that both halves of a pair share."""

    a: Float[Tensor, "c f h w"]
    b: Float[Tensor, "c f h w"]
    sigmas: Float[Tensor, " step"]


def guided_sigmas(sigmas: Float[Tensor, " step"], eta: float) -> Float[Tensor, " guided_step"]:
    """The schedule of a guided clip: eta itself, then every noise level of the sampler that lies below it.

    DenseDPO (2506.03517, section 3.2) starts at step n = round(eta * N), which with a shifted schedule is another noise
    level than eta; here the first level equals eta exactly (in float32) and the rest is the sampler's own.

    Raises:
        ValueError: eta is not in (0, 1].
    """
    if not 0 < eta <= 1:
        raise ValueError(f"eta is in (0, 1], not {eta!r}")
    first = torch.tensor([eta], dtype=sigmas.dtype, device=sigmas.device)
    return torch.cat([first, sigmas[sigmas < first]])


def stack_schedules(schedules: Sequence[Float[Tensor, " _"]]) -> Float[Tensor, "row longest"]:
    """Schedules of different lengths as rows of one table, padded with their last level, 0."""
    return torch.nn.utils.rnn.pad_sequence(list(schedules), batch_first=True)


@torch.no_grad()
def sample(
    model: VideoModel,
    *,
    start: Float[Tensor, "batch c f h w"],
    sigmas: Float[Tensor, " step"] | Float[Tensor, "batch step"],
    text: TextCondition,
    null_text: TextCondition,
    guidance_scale: float,
) -> Float[Tensor, "batch c f h w"]:
    """Denoises latents from their first noise level to 0.

    First frames that are given with the captions are held clean at every level, and guide both passes of guidance.

    Args:
        start: latents at the first level of their schedule.
        sigmas: descending noise levels that end in 0; one schedule for all rows, or one per row (`stack_schedules`).
        text: one condition per row, with its first frame where the model continues one.
        null_text: the condition without a prompt, one row; of no first frame.
        guidance_scale: 1 or less switches guidance off, as in diffusers.

    Returns:
        float32 latents; a row does not depend on the others beyond float tolerance.
    """
    require_first_frame(model.geometry, text)
    x = text.hold(start.to(text.embeds.device, torch.float32))
    schedule = sigmas.to(x).expand(x.shape[0], -1)
    for step in range(schedule.shape[1] - 1):
        rows = (schedule[:, step] > 0).nonzero()[:, 0]  # a row whose schedule was shorter is done
        t, t_next = schedule[rows, step], schedule[rows, step + 1]
        present = text.rows(rows)
        velocity = _guided_velocity(model, x[rows], t, present, null_text, guidance_scale)
        x = x.index_copy(0, rows, present.hold(x[rows] + (t_next - t)[:, None, None, None, None] * velocity))
    return x


def _guided_velocity(
    model: VideoModel,
    x_t: Float[Tensor, "batch c f h w"],
    t: Float[Tensor, " batch"],
    text: TextCondition,
    null_text: TextCondition,
    guidance_scale: float,
) -> Float[Tensor, "batch c f h w"]:
    """Velocity with classifier-free guidance; two passes, so that guidance does not double the peak of memory."""
    conditional = model.predict(x_t, t, text)
    if guidance_scale <= 1:
        return conditional
    unconditional = model.predict(x_t, t, null_text.expand(x_t.shape[0]).given(text.first))
    return unconditional + guidance_scale * (conditional - unconditional)
