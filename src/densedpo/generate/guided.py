"""Where guided pairs start: one real clip, noised to eta by two noises (StructuralDPO; DenseDPO equation 6).

x_eta = (1 - eta) x + eta eps for each half, same clip, same eta, same schedule: only the noise differs. Clips of one
pair with different eta would teach the model to tell eta apart (DenseDPO A.2, C.4), so a pair has one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from densedpo.core.errors import BadInput
from densedpo.core.paths import noised
from densedpo.core.seeds import noise
from densedpo.generate.sampler import PairStart, guided_sigmas

if TYPE_CHECKING:
    from pathlib import Path

    from jaxtyping import Float
    from torch import Tensor

    from densedpo.adapters.base import VideoModel
    from densedpo.core.records import Pair


def guided_start(model: VideoModel, pair: Pair, clip: Float[Tensor, "c f h w"]) -> PairStart:
    """Both halves from the noised clip; the first noise level of the schedule equals the pair's eta exactly."""
    sigmas = sigmas_of(model, pair)
    eps = torch.stack([noise(tuple(clip.shape), key) for key in (pair.noise_key_a, pair.noise_key_b)])
    start = noised(clip.expand_as(eps), eps, sigmas[:1].expand(2))
    return PairStart(a=start[0], b=start[1], sigmas=sigmas)


def sigmas_of(model: VideoModel, pair: Pair) -> Float[Tensor, " step"]:
    """The schedule of a pair that starts from a noised clip, on the CPU."""
    if pair.eta is None:
        raise ValueError(f"pair {pair.id} has no eta: it does not start from a noised clip")
    return guided_sigmas(model.sigmas(pair.num_steps).cpu(), pair.eta)


def read_clip_latents(path: Path, shape: tuple[int, int, int, int]) -> Float[Tensor, "c f h w"]:
    """The cached latents of a real clip.

    Raises:
        BadInput: the file is damaged or holds latents of another shape.
    """
    again = "delete it and run `densedpo data add` again"
    try:
        latents = load_file(path).get("latents")
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path} is not a whole safetensors file ({error}); {again}") from None
    if latents is None or tuple(latents.shape) != shape:
        found = None if latents is None else tuple(latents.shape)
        raise BadInput(f"{path} holds latents {found}, the model's are {shape}; {again}")
    return latents.float()
