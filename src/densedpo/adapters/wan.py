"""Wan models, from the classes of diffusers: the shipped toy, Wan 2.1 and 2.2 run through the same lines.

Wan 2.2 A14B has two denoisers, of high and of low noise, with a boundary between them. The one of low noise is trained:
guided pairs start below the boundary. TI2V-5B takes a timestep for each token: 0 for those of a first frame that is
given, which are clean, and the same for all others. The image-to-video checkpoints of Wan 2.1 and A14B take that frame
as channels beside x_t, and Wan 2.1's an image encoder's embeddings with it.
"""

from __future__ import annotations

import html
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import ftfy
import numpy as np
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanTransformer3DModel
from diffusers.loaders import WanLoraLoaderMixin
from transformers import CLIPImageProcessorPil, CLIPVisionModel, PreTrainedTokenizerBase, UMT5EncoderModel

from densedpo.adapters import files
from densedpo.adapters.base import FirstFrame, Target, TextCondition
from densedpo.adapters.layouts import wan as layout
from densedpo.adapters.loading import Opened, UnknownWords
from densedpo.adapters.lora import load_lora, save_lora
from densedpo.adapters.pixels import decode_clips, encode_clips, encode_frames
from densedpo.adapters.sparse_causal import set_num_frames, use_sparse_causal
from densedpo.core.errors import BadInput

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor


class WanModel:
    """A Wan model as a `VideoModel` (see `densedpo.adapters.base`)."""

    target: Target = "velocity"
    lora_targets: tuple[str, ...] = layout.LORA_TARGETS

    def __init__(self, opened: Opened) -> None:
        """Nothing is loaded yet.

        Args:
            opened: a directory of this family.
        """
        self.geometry, self.defaults = opened.geometry, opened.defaults
        self.fingerprint, self.vae_fingerprint = opened.fingerprint, opened.vae_fingerprint
        self._opened, self._device, self._dtype = opened, opened.device, opened.dtype
        self._sparse_causal = layout.settings_of(opened.folder).sparse_causal
        self._boundary = layout.boundary(opened.folder)
        self.trained_t = (0.0, 1.0 if self._boundary is None else self._boundary)
        self._token_timesteps = layout.has_token_timesteps(opened.folder)
        self._has_image_encoder = bool(layout.image_parts(opened.folder))
        self._scheduler = flow_scheduler(opened.folder)

    @cached_property
    def _low_noise(self) -> WanTransformer3DModel:
        return self._expert(-1)

    @cached_property
    def _high_noise(self) -> WanTransformer3DModel:
        """Only asked for at and above the boundary, and so never loaded where t stays below, as in training."""
        return self._expert(0)

    def _expert(self, index: int) -> WanTransformer3DModel:
        name = layout.denoisers(self._opened.folder)[index]
        expert = self._opened.denoiser(WanTransformer3DModel.from_pretrained, name)
        if self._sparse_causal is not None:
            use_sparse_causal(expert, num_frames=self.geometry.latent_shape[1], kernel=self._sparse_causal)
        return expert

    @cached_property
    def _vae(self) -> AutoencoderKLWan:
        return self._opened.autoencoder(AutoencoderKLWan.from_pretrained)

    @cached_property
    def _text_encoder(self) -> UMT5EncoderModel:
        return self._opened.text_encoder(UMT5EncoderModel.from_pretrained)

    @cached_property
    def _image_encoder(self) -> CLIPVisionModel:
        return self._opened.image_encoder(CLIPVisionModel.from_pretrained)

    @cached_property
    def _image_processor(self) -> CLIPImageProcessorPil:
        return self._opened.image_processor()

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return self._opened.tokenizer()

    @cached_property
    def _unknown_words(self) -> UnknownWords:
        return UnknownWords(self._tokenizer)

    def free_encoders(self) -> None:
        """See `VideoModel`."""
        for name in ("_vae", "_text_encoder", "_image_encoder"):
            self.__dict__.pop(name, None)

    @property
    def denoiser(self) -> WanTransformer3DModel:
        """The transformer, of two experts the one of low noise; its base weights are frozen."""
        return self._low_noise

    @torch.no_grad()
    def encode_video(self, frames: UInt8[np.ndarray, "batch time row column 3"]) -> Float[Tensor, "batch c f h w"]:
        """Normalised latents of clips, by the posterior's mode, as `WanPipeline` expects them; float32.

        Raises:
            BadInput: the clips do not have the model's geometry.
        """
        return encode_clips(frames, self._encode, geometry=self.geometry, device=self._device)

    @torch.no_grad()
    def encode_first(self, frames: UInt8[np.ndarray, "batch row column 3"]) -> FirstFrame:
        """See `VideoModel`."""
        if self._token_timesteps:
            return FirstFrame(held=encode_frames(frames, self._encode, geometry=self.geometry, device=self._device))
        channels = encode_frames(frames, self._channels, geometry=self.geometry, device=self._device)
        if not self._has_image_encoder:
            return FirstFrame(channels=channels)
        images = self._image_processor(images=list(frames), return_tensors="pt")["pixel_values"]
        found = self._image_encoder(images.to(self._device), output_hidden_states=True)
        return FirstFrame(channels=channels, embeds=found.hidden_states[-2])

    def _channels(self, frames: Float[Tensor, "batch 3 1 row column"]) -> Float[Tensor, "batch beside f h w"]:
        """What says of each cell whether it is given, and the latents of a clip of the frame and then grey."""
        geometry = self.geometry
        grey = (0, 0, 0, 0, 0, geometry.num_frames - 1)
        latents = torch.cat([self._encode(torch.nn.functional.pad(one[None], grey)) for one in frames])
        is_given = latents.new_zeros(len(latents), geometry.temporal_stride, *latents.shape[2:])
        is_given[:, :, : geometry.num_given_frames] = 1
        return torch.cat([is_given, latents], dim=1)

    def _encode(self, video: Float[Tensor, "batch 3 time row column"]) -> Float[Tensor, "batch c f h w"]:
        """Normalised latents of video in [-1, 1]."""
        raw: Tensor = self._vae.encode(video).latent_dist.mode()
        return (raw - self._statistic("latents_mean")) / self._statistic("latents_std")

    @torch.no_grad()
    def decode_latents(self, latents: Float[Tensor, "batch c f h w"]) -> UInt8[np.ndarray, "batch time row column 3"]:
        """The clips of normalised latents, rounded to uint8."""

        def decode(some: Tensor) -> Tensor:
            raw = some * self._statistic("latents_std") + self._statistic("latents_mean")
            video: Tensor = self._vae.decode(raw).sample
            return video

        return decode_clips(latents, decode, geometry=self.geometry, device=self._device)

    def _statistic(self, name: str) -> Float[Tensor, "1 c 1 1 1"]:
        """A statistic of the raw latents by channel, from the autoencoder's config."""
        return torch.tensor(self._vae.config[name], device=self._device).view(1, -1, 1, 1, 1)

    def encode_text(self, captions: list[str]) -> TextCondition:
        """See `VideoModel`."""
        return self._opened.captions.encode(captions, self._encode_text)

    def encode_ahead(self, captions: list[str]) -> None:
        """See `VideoModel`."""
        self._opened.captions.fill(captions, self._encode_text)
        self.free_encoders()

    @torch.no_grad()
    def _encode_text(self, captions: list[str]) -> TextCondition:
        """Embeddings of captions, zero after the last token up to `max_sequence_length`, as `WanPipeline` has them."""
        clean = [clean_caption(caption) for caption in captions]
        self._unknown_words.warn(clean)
        inputs = self._tokenizer(
            clean,
            padding="max_length",
            max_length=self.geometry.max_sequence_length,
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        mask = inputs.attention_mask.to(self._device)
        embeds = self._text_encoder(inputs.input_ids.to(self._device), mask).last_hidden_state
        return TextCondition(embeds=embeds.masked_fill(~mask.bool()[..., None], 0.0))

    def predict(
        self, x_t: Float[Tensor, "batch c f h w"], t: Float[Tensor, " batch"], text: TextCondition
    ) -> Float[Tensor, "batch c f h w"]:
        """The transformer's velocity, in float32; gradients flow where they are enabled.

        With two experts each row is for the one on whose side of the boundary its t lies.
        """
        if self._boundary is None:
            return self._predict_by(self.denoiser, x_t, t, text)
        # as the pipeline compares: timesteps, not t
        is_high = t.to(torch.float32) * 1000 >= self._boundary * 1000
        if not bool(is_high.any()):
            return self._predict_by(self._low_noise, x_t, t, text)
        if bool(is_high.all()):
            return self._predict_by(self._high_noise, x_t, t, text)
        above, below = is_high.nonzero()[:, 0], (~is_high).nonzero()[:, 0]
        parts = [
            self._predict_by(expert, x_t[rows.to(x_t.device)], t[rows], text.rows(rows.to(text.embeds.device)))
            for expert, rows in ((self._high_noise, above), (self._low_noise, below))
        ]
        order = torch.argsort(torch.cat([above, below]))
        return torch.cat(parts)[order.to(parts[0].device)]

    def _predict_by(
        self,
        transformer: WanTransformer3DModel,
        x_t: Float[Tensor, "batch c f h w"],
        t: Float[Tensor, " batch"],
        text: TextCondition,
    ) -> Float[Tensor, "batch c f h w"]:
        timestep = t.to(self._device, torch.float32) * 1000
        in_time, in_row, in_column = transformer.config.patch_size
        _, _, frames, rows, columns = x_t.shape
        if self._sparse_causal is not None:
            set_num_frames(transformer, frames // in_time)  # tokens alone do not say how many frames they are
        if self._token_timesteps:
            frame_tokens = (rows // in_row) * (columns // in_column)
            timestep = timestep[:, None].expand(-1, (frames // in_time) * frame_tokens)
            if text.first is not None:
                num_held = self.geometry.num_given_frames * frame_tokens
                timestep = torch.cat([torch.zeros_like(timestep[:, :num_held]), timestep[:, num_held:]], dim=1)
        channels, embeds = (None, None) if text.first is None else (text.first.channels, text.first.embeds)
        x_t = x_t.to(self._device, self._dtype)
        velocity: Tensor = transformer(
            hidden_states=x_t if channels is None else torch.cat([x_t, channels.to(x_t)], dim=1),
            timestep=timestep,
            encoder_hidden_states=text.embeds.to(self._dtype),
            encoder_hidden_states_image=None if embeds is None else embeds.to(x_t),
            return_dict=False,
        )[0]
        return velocity.float()

    def sigmas(self, num_steps: int) -> Float[Tensor, " step"]:
        """The flow-matching scheduler's noise levels, with the checkpoint's shift, from 1 down to 0."""
        self._scheduler.set_timesteps(num_steps)
        sigmas: Tensor = self._scheduler.sigmas
        return sigmas.to(self._device, torch.float32)

    def save_adapter(self, path: Path) -> Path:
        """Writes the LoRA so that the pipeline's `load_lora_weights` reads it; see `save_lora`.

        With two experts it is that of `transformer_2`: load it with `load_into_transformer_2=True`.
        """
        return save_lora(WanLoraLoaderMixin, self.denoiser, path)

    def load_adapter(self, path: Path) -> None:
        """Puts a saved LoRA on the transformer, in place of the one that is there; see `load_lora`."""
        load_lora(WanLoraLoaderMixin, self.denoiser, path)


def flow_scheduler(folder: Path) -> FlowMatchEulerDiscreteScheduler:
    """The Euler flow-matching scheduler with the checkpoint's shift.

    Wan 2.1 ships UniPC in flow mode; its `flow_shift` is the same shift, and Euler steps are what the guided schedule
    of a pair is defined for.
    """
    path = folder / "scheduler" / "scheduler_config.json"
    config = files.read_json(path)
    if config.get("_class_name") == "FlowMatchEulerDiscreteScheduler":
        return FlowMatchEulerDiscreteScheduler.from_config(config)
    if config.get("prediction_type") != "flow_prediction" or not isinstance(config.get("flow_shift"), int | float):
        raise BadInput(f"{path}: only flow-matching schedulers are supported (prediction_type = 'flow_prediction')")
    return FlowMatchEulerDiscreteScheduler(shift=config["flow_shift"])


def clean_caption(caption: str) -> str:
    """The caption as `WanPipeline` tokenizes it: broken text repaired, entities resolved, white space collapsed."""
    return re.sub(r"\s+", " ", html.unescape(html.unescape(ftfy.fix_text(caption)))).strip()
