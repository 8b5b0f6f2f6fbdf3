"""Clips between uint8 frames and an autoencoder: layout, range, and how many pass it at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import torch

from densedpo.core.errors import BadInput

if TYPE_CHECKING:
    from diffusers import AutoencoderKLCogVideoX, AutoencoderKLHunyuanVideo
    from jaxtyping import Float, UInt8
    from torch import Tensor

    from densedpo.adapters.base import Geometry

    ScaledAutoencoder: TypeAlias = AutoencoderKLCogVideoX | AutoencoderKLHunyuanVideo

AUTOENCODER_PIXELS: Final = 1_200_000


def encode_clips(
    frames: UInt8[np.ndarray, "batch time row column 3"],
    encode: Callable[[Tensor], Tensor],
    *,
    geometry: Geometry,
    device: torch.device,
) -> Float[Tensor, "batch c f h w"]:
    """The latents of clips, a few clips at a time.

    Args:
        encode: takes float32 video B C F H W in [-1, 1] on the device.

    Raises:
        BadInput: the clips do not have the model's geometry.
    """
    expected = (geometry.num_frames, geometry.height, geometry.width, 3)
    if frames.ndim != 5 or frames.shape[1:] != expected or frames.dtype != np.uint8:
        raise BadInput(f"clips are {frames.dtype} {frames.shape}; the model takes uint8 clips of shape {expected}")
    parts = torch.split(torch.from_numpy(np.ascontiguousarray(frames)), clips_at_once(geometry))
    return torch.cat([encode(part.to(device).permute(0, 4, 1, 2, 3).float() / 127.5 - 1) for part in parts])


def encode_frames(
    frames: UInt8[np.ndarray, "batch row column 3"],
    encode: Callable[[Tensor], Tensor],
    *,
    geometry: Geometry,
    device: torch.device,
) -> Float[Tensor, "batch c 1 h w"]:
    """The latents of single frames, each as a clip of one frame: what a causal autoencoder makes of a clip's first.

    Raises:
        BadInput: the model takes no first frame, or the frames do not have its size.
    """
    if not geometry.num_given_frames:
        raise no_first_frame()
    single = replace(geometry, num_frames=1, num_given_frames=0)
    return encode_clips(frames[:, None], encode, geometry=single, device=device)


def no_first_frame() -> BadInput:
    """What a text-to-video model says when it is given a first frame."""
    return BadInput("this model is text-to-video: it takes no first frame")


def decode_clips(
    latents: Float[Tensor, "batch c f h w"],
    decode: Callable[[Tensor], Tensor],
    *,
    geometry: Geometry,
    device: torch.device,
) -> UInt8[np.ndarray, "batch time row column 3"]:
    """The clips of latents, rounded to uint8, a few clips at a time.

    Args:
        decode: takes float32 latents on the device and gives video B C F H W in [-1, 1].
    """
    clips = []
    for some in torch.split(latents.to(device, torch.float32), clips_at_once(geometry)):
        scaled = ((decode(some) / 2 + 0.5).clamp(0, 1) * 255).round()
        clips.append(scaled.to("cpu", torch.uint8).permute(0, 2, 3, 4, 1).contiguous().numpy())
    return np.concatenate(clips)


def encode_scaled(
    vae: ScaledAutoencoder, frames: UInt8[np.ndarray, "batch time row column 3"], *, geometry: Geometry
) -> Float[Tensor, "batch c f h w"]:
    """The latents of clips by an autoencoder that is normalised by one factor: the posterior's mode times it.

    Raises:
        BadInput: the clips do not have the model's geometry.
    """

    def encode(video: Tensor) -> Tensor:
        raw: Tensor = vae.encode(video).latent_dist.mode()
        return raw * float(vae.config.scaling_factor)

    return encode_clips(frames, encode, geometry=geometry, device=vae.device)


def decode_scaled(
    vae: ScaledAutoencoder, latents: Float[Tensor, "batch c f h w"], *, geometry: Geometry
) -> UInt8[np.ndarray, "batch time row column 3"]:
    """The clips of what `encode_scaled` gives, rounded to uint8."""

    def decode(some: Tensor) -> Tensor:
        video: Tensor = vae.decode(some / float(vae.config.scaling_factor)).sample
        return video

    return decode_clips(latents, decode, geometry=geometry, device=vae.device)


def clips_at_once(geometry: Geometry) -> int:
    """Clips that pass the autoencoder together: it is the memory peak of a real model, which takes one."""
    return max(1, AUTOENCODER_PIXELS // (geometry.num_frames * geometry.height * geometry.width))
