"""Where independent pairs start: two noises, nothing in common but the prompt (VanillaDPO, DenseDPO section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from densedpo.core.seeds import noise
from densedpo.generate.sampler import PairStart

if TYPE_CHECKING:
    from densedpo.adapters.base import VideoModel
    from densedpo.core.records import Pair


def independent_start(model: VideoModel, pair: Pair) -> PairStart:
    """Both halves from pure noise, over the sampler's whole schedule."""
    shape = model.geometry.latent_shape
    return PairStart(
        a=noise(shape, pair.noise_key_a),
        b=noise(shape, pair.noise_key_b),
        sigmas=model.sigmas(pair.num_steps).cpu(),
    )
