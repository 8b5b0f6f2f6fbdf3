"""AnimateDiff: an image model with motion modules, variance preserving and trained on eps, brought to the flow path.

With n = sqrt((1-t)^2 + t^2), the flow point x_t = (1-t) x + t eps divided by n is the variance-preserving point
z = alpha x + sigma eps with alpha = (1-t)/n and sigma = t/n: the same ratio of noise to signal, by which an eta on the
flow path finds its place in this schedule: sqrt(1 - abar) / sqrt(abar) = eta / (1 - eta). The denoiser gives eps, so
x = (z - sigma eps) / alpha and eps - x = (eps - x_t) / (1 - t). A DDIM step in z is an Euler step in x_t.

The schedule ends short of pure noise: its last level has t = 0.93 to 0.96 on the flow path. Sampling starts there, from
noise of unit variance that is taken for the last level, as diffusers' pipeline does; above it nothing was trained.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNetMotionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from transformers import CLIPTextModel

from densedpo.adapters import files
from densedpo.adapters.base import FirstFrame, Target, TextCondition
from densedpo.adapters.layouts import animatediff as layout
from densedpo.adapters.loading import Opened, UnknownWords, without_hints
from densedpo.adapters.lora import load_lora, save_lora
from densedpo.adapters.pixels import decode_clips, encode_clips, encode_frames
from densedpo.adapters.sparse_causal import set_num_frames, use_sparse_causal
from densedpo.core.paths import noise_levels, path_norm, timestep_at

if TYPE_CHECKING:
    from diffusers import AnimateDiffPipeline
    from jaxtyping import Float, UInt8
    from torch import Tensor

IMAGES_AT_ONCE: Final = 4  # through the autoencoder, which is of images
SCHEDULE: Final = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas",
                   "timestep_spacing", "steps_offset")  # fmt: skip


class AnimateDiffModel:
    """An AnimateDiff model as a `VideoModel` (see `densedpo.adapters.base`)."""

    target: Target = "eps"
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
        self._scheduler = ddim_scheduler(opened.folder)
        self._levels = noise_levels(self._scheduler.alphas_cumprod).to(self._device)
        self.trained_t = (float(self._levels[0]), float(self._levels[-1]))

    @cached_property
    def _unet(self) -> UNetMotionModel:
        unet = self._opened.denoiser(UNetMotionModel.from_pretrained, "unet")
        if self._sparse_causal is not None:
            use_sparse_causal(unet, num_frames=self.geometry.num_frames, kernel=self._sparse_causal)
        return unet

    @cached_property
    def _vae(self) -> AutoencoderKL:
        return self._opened.autoencoder(AutoencoderKL.from_pretrained)

    @cached_property
    def _text(self) -> AnimateDiffPipeline:
        """The pipeline as far as it encodes captions."""
        with without_hints():
            from diffusers import AnimateDiffPipeline

        return AnimateDiffPipeline(
            tokenizer=self._opened.tokenizer(),
            text_encoder=self._opened.text_encoder(CLIPTextModel.from_pretrained),
            vae=None,
            unet=None,
            motion_adapter=None,
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
    def denoiser(self) -> UNetMotionModel:
        """The UNet with its motion modules; its base weights are frozen."""
        return self._unet

    @torch.no_grad()
    def encode_video(self, frames: UInt8[np.ndarray, "batch time row column 3"]) -> Float[Tensor, "batch c f h w"]:
        """Scaled latents of clips, frame by frame, by the posterior's mode; float32.

        Raises:
            BadInput: the clips do not have the model's geometry.
        """
        return encode_clips(frames, self._encode, geometry=self.geometry, device=self._device)

    @torch.no_grad()
    def encode_first(self, frames: UInt8[np.ndarray, "batch row column 3"]) -> FirstFrame:
        """See `VideoModel`."""
        return FirstFrame(held=encode_frames(frames, self._encode, geometry=self.geometry, device=self._device))

    def _encode(self, video: Float[Tensor, "batch 3 time row column"]) -> Float[Tensor, "batch c f h w"]:
        """Scaled latents of video in [-1, 1]."""
        images = video.transpose(1, 2).flatten(0, 1)
        raw = torch.cat([self._vae.encode(some).latent_dist.mode() for some in torch.split(images, IMAGES_AT_ONCE)])
        return _as_clips(raw, len(video)) * float(self._vae.config.scaling_factor)

    @torch.no_grad()
    def decode_latents(self, latents: Float[Tensor, "batch c f h w"]) -> UInt8[np.ndarray, "batch time row column 3"]:
        """The clips of scaled latents, frame by frame, rounded to uint8."""

        def decode(some: Tensor) -> Tensor:
            raw = some.transpose(1, 2).flatten(0, 1) / float(self._vae.config.scaling_factor)
            images = torch.cat([self._vae.decode(few).sample for few in torch.split(raw, IMAGES_AT_ONCE)])
            return _as_clips(images, len(some))

        return decode_clips(latents, decode, geometry=self.geometry, device=self._device)

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
        embeds, _ = self._text.encode_prompt(captions, self._device, 1, do_classifier_free_guidance=False)
        return TextCondition(embeds=embeds)

    def predict(
        self, x_t: Float[Tensor, "batch c f h w"], t: Float[Tensor, " batch"], text: TextCondition
    ) -> Float[Tensor, "batch c f h w"]:
        """The velocity of the flow path from the denoiser's eps, in float32; gradients flow where they are enabled.

        A t above the last trained level is taken for that level, with the same ratio of noise to x: at t = 1 the
        velocity would be eps - x with an x that nothing is known of.
        """
        rows = t.to(self._device, torch.float32)[:, None, None, None, None]
        z = x_t.to(self._device, torch.float32) / path_norm(rows)
        if self._sparse_causal is not None:
            set_num_frames(self._unet, x_t.shape[2])  # a batch of images does not say how many of them are a clip
        eps: Tensor = self._unet(
            sample=text.hold(z).to(self._dtype),  # a first frame that is given is clean, and not scaled with the rest
            timestep=timestep_at(self._levels, rows.flatten()),
            encoder_hidden_states=text.embeds.to(self._dtype).repeat_interleave(x_t.shape[2], dim=0),
            return_dict=False,
        )[0]
        level = rows.clamp(max=self._levels[-1])
        norm, eps = path_norm(level), eps.float()
        return eps - (z * norm - level * eps) / (1 - level)

    def sigmas(self, num_steps: int) -> Float[Tensor, " step"]:
        """The noise levels of the scheduler's timesteps on the flow path, and 0; the first is below 1.

        With the spacing `linspace`, or where `num_steps` does not divide 1000, diffusers' DDIM steps to levels between
        its own timesteps, and these levels do not. The last step goes to 0 whatever `set_alpha_to_one` says.
        """
        self._scheduler.set_timesteps(num_steps)
        steps = self._levels[self._scheduler.timesteps.to(self._device)]
        return torch.cat([steps, steps.new_zeros(1)])

    def save_adapter(self, path: Path) -> Path:
        """Writes the LoRA so that `AnimateDiffPipeline.load_lora_weights` reads it; see `save_lora`."""
        return save_lora(StableDiffusionLoraLoaderMixin, self.denoiser, path)

    def load_adapter(self, path: Path) -> None:
        """Puts a saved LoRA on the UNet, in place of the one that is there; see `load_lora`."""
        load_lora(StableDiffusionLoraLoaderMixin, self.denoiser, path)


def _as_clips(images: Float[Tensor, "image c h w"], num_clips: int) -> Float[Tensor, "clip c frame h w"]:
    return images.reshape(num_clips, -1, *images.shape[1:]).transpose(1, 2)


def ddim_scheduler(folder: Path) -> DDIMScheduler:
    """The deterministic scheduler with the checkpoint's noise levels and spacing."""
    config = files.read_json(folder / "scheduler" / "scheduler_config.json")
    return DDIMScheduler(**{key: config[key] for key in SCHEDULE if key in config})
