"""HunyuanVideo text-to-video models: guidance as an input of the denoiser, two text encoders, a prompt template."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)
from diffusers.loaders import HunyuanVideoLoraLoaderMixin
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from transformers import CLIPTextModel, LlamaModel

from densedpo.adapters import files
from densedpo.adapters.base import FirstFrame, Target, TextCondition
from densedpo.adapters.layouts import hunyuan as layout
from densedpo.adapters.loading import Opened, UnknownWords
from densedpo.adapters.lora import load_lora, save_lora
from densedpo.adapters.pixels import decode_scaled, encode_scaled, no_first_frame

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor


class HunyuanModel:
    """A HunyuanVideo text-to-video model as a `VideoModel` (see `densedpo.adapters.base`)."""

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
    def _transformer(self) -> HunyuanVideoTransformer3DModel:
        return self._opened.denoiser(HunyuanVideoTransformer3DModel.from_pretrained)

    @cached_property
    def _vae(self) -> AutoencoderKLHunyuanVideo:
        return self._opened.autoencoder(AutoencoderKLHunyuanVideo.from_pretrained)

    @cached_property
    def _text(self) -> HunyuanVideoPipeline:
        """The pipeline as far as it encodes captions."""
        opened = self._opened
        return HunyuanVideoPipeline(
            tokenizer=opened.tokenizer(),
            text_encoder=opened.text_encoder(LlamaModel.from_pretrained),
            tokenizer_2=opened.tokenizer("tokenizer_2"),
            text_encoder_2=opened.text_encoder(CLIPTextModel.from_pretrained, "text_encoder_2"),
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
    def denoiser(self) -> HunyuanVideoTransformer3DModel:
        """The transformer; its base weights are frozen."""
        return self._transformer

    @torch.no_grad()
    def encode_video(self, frames: UInt8[np.ndarray, "batch time row column 3"]) -> Float[Tensor, "batch c f h w"]:
        """Scaled latents of clips, by the posterior's mode; float32.

        Raises:
            BadInput: the clips do not have the model's geometry.
        """
        return encode_scaled(self._vae, frames, geometry=self.geometry)

    def encode_first(self, frames: UInt8[np.ndarray, "batch row column 3"]) -> FirstFrame:  # noqa: ARG002
        """See `VideoModel`."""
        raise no_first_frame()

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
        """The first encoder's embeddings with their mask, and the second's vector of the whole caption."""
        self._unknown_words.warn(captions)
        settings = self._settings
        template = {"template": settings.prompt_template, "crop_start": settings.prompt_crop}
        embeds, pooled, mask = self._text.encode_prompt(
            captions,
            prompt_template=DEFAULT_PROMPT_TEMPLATE if settings.prompt_template is None else template,
            max_sequence_length=self.geometry.max_sequence_length,
            device=self._device,
        )
        return TextCondition(embeds=embeds, mask=mask.bool(), pooled=pooled)

    def predict(
        self, x_t: Float[Tensor, "batch c f h w"], t: Float[Tensor, " batch"], text: TextCondition
    ) -> Float[Tensor, "batch c f h w"]:
        """The transformer's velocity at the recorded guidance, in float32; gradients flow where they are enabled."""
        if text.mask is None or text.pooled is None:
            raise ValueError("this model's captions come with a mask and a vector: encode them by its own encode_text")
        guidance = torch.full((len(x_t),), self._settings.embedded_guidance * 1000, device=self._device)
        velocity: Tensor = self._transformer(
            hidden_states=x_t.to(self._device, self._dtype),
            timestep=t.to(self._device, torch.float32) * 1000,
            encoder_hidden_states=text.embeds.to(self._dtype),
            encoder_attention_mask=text.mask.to(self._dtype),
            pooled_projections=text.pooled.to(self._dtype),
            guidance=guidance.to(self._dtype),
            return_dict=False,
        )[0]
        return velocity.float()

    def sigmas(self, num_steps: int) -> Float[Tensor, " step"]:
        """The scheduler's noise levels with its shift, from 1 down to 0."""
        scheduler = self._scheduler
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, num_steps + 1)[:-1])
        sigmas: Tensor = scheduler.sigmas
        return sigmas.to(self._device, torch.float32)

    def save_adapter(self, path: Path) -> Path:
        """Writes the LoRA so that `HunyuanVideoPipeline.load_lora_weights` reads it; see `save_lora`."""
        return save_lora(HunyuanVideoLoraLoaderMixin, self.denoiser, path)

    def load_adapter(self, path: Path) -> None:
        """Puts a saved LoRA on the transformer, in place of the one that is there; see `load_lora`."""
        load_lora(HunyuanVideoLoraLoaderMixin, self.denoiser, path)
