"""CogVideoX models: variance preserving and trained on v, brought to the flow path at the edge.

With n = sqrt((1-t)^2 + t^2), the flow point x_t = (1-t) x + t eps divided by n is the variance-preserving point
z = alpha x + sigma eps with alpha = (1-t)/n and sigma = t/n: the same ratio of noise to signal. The denoiser gives
v = alpha eps - sigma x (Salimans and Ho, 2202.00512), so eps - x = (alpha + sigma) v + (sigma - alpha) z. A DDIM step
in z is an Euler step in x_t.

The image-to-video checkpoints take a first frame that is given as channels beside z, not scaled with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
)
from diffusers.loaders import CogVideoXLoraLoaderMixin
from transformers import T5EncoderModel

from densedpo.adapters import files
from densedpo.adapters.base import FirstFrame, Target, TextCondition
from densedpo.adapters.layouts import cogvideox as layout
from densedpo.adapters.loading import Opened, UnknownWords
from densedpo.adapters.lora import load_lora, save_lora
from densedpo.adapters.pixels import decode_scaled, encode_frames, encode_scaled
from densedpo.core.paths import noise_levels, path_norm, timestep_at

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor


OFS: Final = 2.0  # what the pipeline tells a denoiser of 1.5 that has an input of this name


@dataclass(frozen=True, kw_only=True, slots=True)
class Rotary:
    """The rotary position embedding of every clip of one size: cosines and sines."""

    cos: Float[Tensor, "token half"]
    sin: Float[Tensor, "token half"]


class CogVideoXModel:
    """A CogVideoX model as a `VideoModel` (see `densedpo.adapters.base`)."""

    target: Target = "v_prediction"
    lora_targets: tuple[str, ...] = layout.LORA_TARGETS
    trained_t: tuple[float, float] = (0.0, 1.0)

    def __init__(self, opened: Opened) -> None:
        """Nothing is loaded yet.

        Args:
            opened: a directory of this family.
        """
        self.geometry, self.defaults = opened.geometry, opened.defaults
        self.fingerprint, self.vae_fingerprint = opened.fingerprint, opened.vae_fingerprint
        self._opened, self._device, self._dtype = opened, opened.device, opened.dtype
        self._scheduler = ddim_scheduler(opened.folder)
        self._levels = noise_levels(self._scheduler.alphas_cumprod).to(self._device)
        self._rotaries: dict[tuple[int, int, int], Rotary] = {}

    @cached_property
    def _transformer(self) -> CogVideoXTransformer3DModel:
        return self._opened.denoiser(CogVideoXTransformer3DModel.from_pretrained)

    @cached_property
    def _vae(self) -> AutoencoderKLCogVideoX:
        return self._opened.autoencoder(AutoencoderKLCogVideoX.from_pretrained)

    @cached_property
    def _text(self) -> CogVideoXPipeline:
        """The pipeline as far as it encodes captions."""
        return CogVideoXPipeline(
            tokenizer=self._opened.tokenizer(),
            text_encoder=self._opened.text_encoder(T5EncoderModel.from_pretrained),
            vae=None,
            transformer=None,
            scheduler=self._scheduler,
        )

    @cached_property
    def _unknown_words(self) -> UnknownWords:
        return UnknownWords(self._text.tokenizer)

    def free_encoders(self) -> None:
        """See `VideoModel`."""
        for name in ("_vae", "_text"):
            self.__dict__.pop(name, None)

    @property
    def denoiser(self) -> CogVideoXTransformer3DModel:
        """The transformer; its base weights are frozen."""
        return self._transformer

    @torch.no_grad()
    def encode_video(self, frames: UInt8[np.ndarray, "batch time row column 3"]) -> Float[Tensor, "batch c f h w"]:
        """Scaled latents of clips, by the posterior's mode; float32.

        Raises:
            BadInput: the clips do not have the model's geometry.
        """
        return encode_scaled(self._vae, frames, geometry=self.geometry)

    def encode_first(self, frames: UInt8[np.ndarray, "batch row column 3"]) -> FirstFrame:
        """See `VideoModel`."""
        geometry = self.geometry

        def encode(video: Tensor) -> Tensor:
            raw: Tensor = self._vae.encode(video).latent_dist.mode()
            config = self._vae.config
            # 1.5 was trained on images that were divided by the factor, and its config says so
            scale = 1 / config.scaling_factor if config.invert_scale_latents else config.scaling_factor
            return torch.nn.functional.pad(raw * scale, (0, 0, 0, 0, 0, geometry.num_latent_frames - 1))

        with torch.no_grad():
            return FirstFrame(channels=encode_frames(frames, encode, geometry=geometry, device=self._device))

    @torch.no_grad()
    def decode_latents(self, latents: Float[Tensor, "batch c f h w"]) -> UInt8[np.ndarray, "batch time row column 3"]:
        """The clips of scaled latents, rounded to uint8."""
        return decode_scaled(self._vae, latents, geometry=self.geometry)

    def encode_text(self, captions: list[str]) -> TextCondition:
        """See `VideoModel`."""
        return self._opened.captions.encode(captions, self._encode_text)

    def encode_ahead(self, captions: list[str]) -> None:
        """See `VideoModel`."""
        self._opened.captions.fill(captions, self._encode_text)
        self.free_encoders()

    @torch.no_grad()
    def _encode_text(self, captions: list[str]) -> TextCondition:
        """Embeddings of captions as the pipeline makes them: padded, and padding attended to."""
        self._unknown_words.warn(captions)
        embeds, _ = self._text.encode_prompt(
            captions,
            do_classifier_free_guidance=False,
            max_sequence_length=self.geometry.max_sequence_length,
            device=self._device,
        )
        return TextCondition(embeds=embeds)

    def predict(
        self, x_t: Float[Tensor, "batch c f h w"], t: Float[Tensor, " batch"], text: TextCondition
    ) -> Float[Tensor, "batch c f h w"]:
        """The velocity of the flow path from the transformer's v, in float32; gradients flow where they are enabled."""
        t = t.to(self._device, torch.float32)
        rows = t[:, None, None, None, None]
        norm = path_norm(rows)
        z = x_t.to(self._device, torch.float32) / norm
        rotary = self._rotary(*z.shape[2:])
        channels = None if text.first is None else text.first.channels
        seen = z if channels is None else torch.cat([z, channels.to(z)], dim=1)
        v: Tensor = self._transformer(
            hidden_states=seen.permute(0, 2, 1, 3, 4).to(self._dtype),
            encoder_hidden_states=text.embeds.to(self._dtype),
            timestep=timestep_at(self._levels, t),
            ofs=None if self.denoiser.config.ofs_embed_dim is None else seen.new_full((1,), OFS),
            image_rotary_emb=None if rotary is None else (rotary.cos, rotary.sin),
            return_dict=False,
        )[0]
        return v.float().permute(0, 2, 1, 3, 4) / norm + (2 * rows - 1) / norm * z

    def sigmas(self, num_steps: int) -> Float[Tensor, " step"]:
        """The noise levels of the scheduler's timesteps on the flow path, from 1 down to 0.

        The scheduler steps to `timestep - 1000 // num_steps`, which is its next timestep where `num_steps` divides
        1000; elsewhere it lands between two of its own timesteps, and these levels do not.
        """
        scheduler = self._scheduler
        scheduler.set_timesteps(num_steps)
        steps = self._levels[scheduler.timesteps.to(self._device)]
        return torch.cat([steps, steps.new_zeros(1)])

    def save_adapter(self, path: Path) -> Path:
        """Writes the LoRA so that `CogVideoXPipeline.load_lora_weights` reads it; see `save_lora`."""
        return save_lora(CogVideoXLoraLoaderMixin, self.denoiser, path)

    def load_adapter(self, path: Path) -> None:
        """Puts a saved LoRA on the transformer, in place of the one that is there; see `load_lora`."""
        load_lora(CogVideoXLoraLoaderMixin, self.denoiser, path)

    def _rotary(self, frames: int, rows: int, columns: int) -> Rotary | None:
        """As the pipeline makes it for latents of a size; the smaller model has positions in its transformer."""
        if not self.denoiser.config.use_rotary_positional_embeddings:
            return None
        size = (frames, rows, columns)
        if size not in self._rotaries:
            pipeline = CogVideoXPipeline(
                tokenizer=None, text_encoder=None, vae=None, transformer=self.denoiser, scheduler=self._scheduler
            )
            stride = pipeline.vae_scale_factor_spatial = self.geometry.spatial_stride
            cos, sin = pipeline._prepare_rotary_positional_embeddings(
                rows * stride, columns * stride, frames, self._device
            )
            self._rotaries[size] = Rotary(cos=cos, sin=sin)
        return self._rotaries[size]


def ddim_scheduler(folder: Path) -> CogVideoXDDIMScheduler:
    """The deterministic scheduler with the checkpoint's schedule.

    The larger checkpoints name one that adds noise at each step; the two halves of a pair differ by their start alone.
    """
    config = files.read_json(folder / "scheduler" / "scheduler_config.json")
    return CogVideoXDDIMScheduler.from_config({**config, "_class_name": "CogVideoXDDIMScheduler"})
