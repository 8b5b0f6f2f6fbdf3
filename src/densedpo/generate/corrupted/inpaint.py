"""A clip made anew inside a mask only: the sampler's own steps, with the real clip put back outside after each.

LocalDPO (arXiv 2601.04068): the clip is noised to eta and denoised; outside the mask the real latents, noised by the
same noise to the level that the step has reached, are put back, so that at the end they are the real clip's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from densedpo.core.paths import noised
from densedpo.generate.sampler import sample

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from densedpo.adapters.base import TextCondition, VideoModel


@torch.no_grad()
def regenerate(
    model: VideoModel,
    *,
    clips: Float[Tensor, "batch c f h w"],
    noise: Float[Tensor, "batch c f h w"],
    masks: Bool[Tensor, "batch f h w"],
    sigmas: Float[Tensor, "batch step"],
    text: TextCondition,
    null_text: TextCondition,
    guidance_scale: float,
) -> Float[Tensor, "batch c f h w"]:
    """The clips with other contents inside their masks; outside they are what they were, bit for bit.

    Args:
        clips: latents of real clips.
        masks: true in the cells that are made anew.
        sigmas: a schedule per row (`stack_schedules`), whose first level is the row's eta.
        text: one condition per row.
        null_text: the condition without a prompt, one row.

    Returns:
        float32 latents on the CPU.
    """
    clips, noise = clips.cpu().float(), noise.cpu().float()
    inside = masks.cpu()[:, None]
    x = noised(clips, noise, sigmas[:, 0])
    for step in range(sigmas.shape[1] - 1):
        made = sample(
            model,
            start=x,
            sigmas=sigmas[:, step : step + 2],
            text=text,
            null_text=null_text,
            guidance_scale=guidance_scale,
        ).cpu()
        x = torch.where(inside, made, noised(clips, noise, sigmas[:, step + 1]))
    return x
