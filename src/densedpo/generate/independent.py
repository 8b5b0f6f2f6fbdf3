"""Where independent pairs start: two noises, nothing in common but the prompt (VanillaDPO, DenseDPO section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from densedpo.core.paths import without_signal
from densedpo.core.seeds import noise
from densedpo.generate.sampler import PairStart

if TYPE_CHECKING:
    from densedpo.adapters.base import VideoModel
    from densedpo.core.records import Pair


def independent_start(model: VideoModel, pair: Pair) -> PairStart:
    """Both halves from pure noise, over the sampler's whole schedule."""
    shape, sigmas = model.geometry.latent_shape, model.sigmas(pair.num_steps).cpu()
    eps = torch.stack([noise(shape, pair.noise_key_a), noise(shape, pair.noise_key_b)])
    start = without_signal(eps, sigmas[:1].expand(2))
    return PairStart(a=start[0], b=start[1], sigmas=sigmas)
