"""LTX-Video models: latents as a row of tokens, positions in seconds, a decoder that takes a timestep.

The same weights continue a first frame that is given: its tokens are clean and have timestep 0.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXPipeline,
    LTXVideoTransformer3DModel,
)
from diffusers.loaders import LTXVideoLoraLoaderMixin
from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift
from transformers import T5EncoderModel

from densedpo.adapters import files
from densedpo.adapters.base import FirstFrame, Target, TextCondition
from densedpo.adapters.layouts import ltx as layout
from densedpo.adapters.loading import Opened, UnknownWords
from densedpo.adapters.lora import load_lora, save_lora
from densedpo.adapters.pixels import decode_clips, encode_clips, encode_frames
from densedpo.core.errors import BadInput
from densedpo.core.seeds import derive_seed, noise, seeded_init

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor


class LTXModel:
    """An LTX-Video model as a `VideoModel` (see `densedpo.adapters.base`)."""

    target: Target = "velocity"
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
        self._settings = layout.settings_of(opened.folder)
        config = files.read_json(opened.folder / "scheduler" / "scheduler_config.json")
        self._scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)

    @cached_property
    def _transformer(self) -> LTXVideoTransformer3DModel:
        return self._opened.denoiser(LTXVideoTransformer3DModel.from_pretrained)

    @cached_property
    def _vae(self) -> AutoencoderKLLTXVideo:
        return self._opened.autoencoder(AutoencoderKLLTXVideo.from_pretrained)

    @cached_property
    def _text(self) -> LTXPipeline:
        """The pipeline as far as it encodes captions."""
        return LTXPipeline(
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
    def denoiser(self) -> LTXVideoTransformer3DModel:
        """The transformer; its base weights are frozen."""
        return self._transformer

    @torch.no_grad()
    def encode_video(self, frames: UInt8[np.ndarray, "batch time row column 3"]) -> Float[Tensor, "batch c f h w"]:
        """Normalised latents of clips, by the posterior's mode; float32.

        Raises:
            BadInput: the clips do not have the model's geometry.
        """
        return encode_clips(frames, self._encode, geometry=self.geometry, device=self._device)

    @torch.no_grad()
    def encode_first(self, frames: UInt8[np.ndarray, "batch row column 3"]) -> FirstFrame:
        """See `VideoModel`."""
        return FirstFrame(held=encode_frames(frames, self._encode, geometry=self.geometry, device=self._device))

    def _encode(self, video: Float[Tensor, "batch 3 time row column"]) -> Float[Tensor, "batch c f h w"]:
        """Normalised latents of video in [-1, 1]."""
        raw: Tensor = self._vae.encode(video).latent_dist.mode()
        mean, std = self._statistics()
        return (raw - mean) / std

    @torch.no_grad()
    def decode_latents(self, latents: Float[Tensor, "batch c f h w"]) -> UInt8[np.ndarray, "batch time row column 3"]:
        """The clips of normalised latents, rounded to uint8.

        A decoder that takes a timestep is given latents with a little noise, the same for every clip; what noise it
        draws itself is drawn from one seed.
        """

        def decode(some: Tensor) -> Tensor:
            mean, std = self._statistics()
            raw = some * std + mean
            vae, timestep = self._vae, None
            if vae.config.timestep_conditioning:
                scale = self._settings.decode_noise
                raw = (1 - scale) * raw + scale * noise(self.geometry.latent_shape, "decode").to(raw)
                timestep = raw.new_full((len(raw),), self._settings.decode_timestep)
            with seeded_init(derive_seed("decode")):
                video: Tensor = vae.decode(raw, timestep, return_dict=False)[0]
            return video

        return decode_clips(latents, decode, geometry=self.geometry, device=self._device)

    def _statistics(self) -> tuple[Float[Tensor, "1 c 1 1 1"], Float[Tensor, "1 c 1 1 1"]]:
        """Mean and deviation of the raw latents by channel, from the autoencoder's weights and its scaling factor."""
        vae = self._vae
        return vae.latents_mean.view(1, -1, 1, 1, 1), vae.latents_std.view(1, -1, 1, 1, 1) / vae.config.scaling_factor

    def encode_text(self, captions: list[str]) -> TextCondition:
        """See `VideoModel`."""
        return self._opened.captions.encode(captions, self._encode_text)

    def encode_ahead(self, captions: list[str]) -> None:
        """See `VideoModel`."""
        self._opened.captions.fill(captions, self._encode_text)
        self.free_encoders()

    @torch.no_grad()
    def _encode_text(self, captions: list[str]) -> TextCondition:
        """Embeddings of captions and the mask of their tokens, as the pipeline makes them."""
        self._unknown_words.warn(captions)
        embeds, mask, _, _ = self._text.encode_prompt(
            captions,
            do_classifier_free_guidance=False,
            max_sequence_length=self.geometry.max_sequence_length,
            device=self._device,
        )
        return TextCondition(embeds=embeds, mask=mask)

    def predict(
        self, x_t: Float[Tensor, "batch c f h w"], t: Float[Tensor, " batch"], text: TextCondition
    ) -> Float[Tensor, "batch c f h w"]:
        """The transformer's velocity, in float32; gradients flow where they are enabled."""
        if text.mask is None:
            raise ValueError("this model's captions come with a mask: encode them by its own encode_text")
        geometry = self.geometry
        num_frames, height, width = x_t.shape[2:]
        patch = geometry.patch
        timestep = t.to(self._device, torch.float32) * 1000
        if text.first is not None:
            frame_tokens = (height // patch) * (width // patch)
            is_made = (torch.arange(num_frames * frame_tokens) >= geometry.num_given_frames * frame_tokens).to(timestep)
            timestep = timestep[:, None] * is_made
        tokens: Tensor = self._transformer(
            hidden_states=LTXPipeline._pack_latents(x_t.to(self._device, self._dtype), patch),
            encoder_hidden_states=text.embeds.to(self._dtype),
            timestep=timestep,
            encoder_attention_mask=text.mask,
            num_frames=num_frames,
            height=height // patch,
            width=width // patch,
            rope_interpolation_scale=(
                geometry.temporal_stride / geometry.fps,
                geometry.spatial_stride,
                geometry.spatial_stride,
            ),
            return_dict=False,
        )[0]
        velocity: Tensor = LTXPipeline._unpack_latents(
            tokens.float(), num_frames, height // patch, width // patch, patch
        )
        return velocity

    def sigmas(self, num_steps: int) -> Float[Tensor, " step"]:
        """The scheduler's noise levels from 1 down to 0; their shift depends on the number of tokens.

        Raises:
            BadInput: one step, where the schedule is stretched to a lowest noise level: it needs a first and a last.
        """
        scheduler, geometry = self._scheduler, self.geometry
        config = scheduler.config
        if num_steps < 2 and config.get("shift_terminal"):
            raise BadInput("num_steps = 1: LTX-Video's schedule is stretched between two noise levels; take 2 or more")
        _, num_frames, height, width = geometry.latent_shape
        mu = calculate_shift(
            num_frames * height * width,
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.5),
            config.get("max_shift", 1.15),
        )
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / num_steps, num_steps), mu=mu)
        sigmas: Tensor = scheduler.sigmas
        return sigmas.to(self._device, torch.float32)

    def save_adapter(self, path: Path) -> Path:
        """Writes the LoRA so that `LTXPipeline.load_lora_weights` reads it; see `save_lora`."""
        return save_lora(LTXVideoLoraLoaderMixin, self.denoiser, path)

    def load_adapter(self, path: Path) -> None:
        """Puts a saved LoRA on the transformer, in place of the one that is there; see `load_lora`."""
        load_lora(LTXVideoLoraLoaderMixin, self.denoiser, path)
