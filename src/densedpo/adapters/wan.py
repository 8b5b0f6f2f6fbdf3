"""Wan text-to-video models, from the classes of diffusers: the shipped toy and Wan 2.1 run through the same lines."""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import ftfy
import numpy as np
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanTransformer3DModel
from diffusers.loaders import WanLoraLoaderMixin
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedTokenizerBase, UMT5EncoderModel
from transformers.utils import logging as hf_logging

from densedpo.adapters import wan_files
from densedpo.adapters.base import TextCondition
from densedpo.core.errors import BadInput
from densedpo.core.files import naming_disk_errors, write_atomic

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

_log = logging.getLogger("densedpo")

ADAPTER_FILE: Final = "pytorch_lora_weights.safetensors"
ADAPTER_NAME: Final = "default"
AUTOENCODER_PIXELS: Final = 1_200_000
# every linear layer of a block, as the public Wan LoRAs adapt: a motion is not in the attention alone
LORA_TARGETS: Final = ("to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2")


@dataclass(frozen=True, kw_only=True, slots=True)
class WanParts:
    """The loaded components of a `WanPipeline` directory."""

    transformer: WanTransformer3DModel
    vae: AutoencoderKLWan
    text_encoder: UMT5EncoderModel
    tokenizer: PreTrainedTokenizerBase
    scheduler: FlowMatchEulerDiscreteScheduler


class WanModel:
    """A Wan 2.1 text-to-video model as a `VideoModel` (see `densedpo.adapters.base`)."""

    target: Literal["velocity"] = "velocity"
    lora_targets: tuple[str, ...] = LORA_TARGETS

    def __init__(self, folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        """Loads the model from local safetensors; nothing is fetched and no pickle is opened.

        Args:
            dtype: of the denoiser and the text encoder; the autoencoder stays in float32, as Wan needs.

        Raises:
            BadInput: the folder is not a complete Wan 2.1 text-to-video directory of safetensors.
        """
        wan_files.check_files(folder)
        self.geometry = wan_files.read_geometry(folder)
        self.defaults = wan_files.read_defaults(folder)
        self.fingerprint = wan_files.fingerprint(folder)
        self.vae_fingerprint = wan_files.fingerprint(folder, ("vae",))
        self._parts = load_parts(folder, device=device, dtype=dtype)
        self._device = torch.device(device)
        self._dtype = dtype
        self._known_unknown: set[str] = set()
        channels = (1, self.geometry.latent_channels, 1, 1, 1)
        config = self._parts.vae.config
        self._mean = torch.tensor(config.latents_mean, device=device).view(channels)
        self._std = torch.tensor(config.latents_std, device=device).view(channels)

    @property
    def denoiser(self) -> WanTransformer3DModel:
        """The transformer; its base weights are frozen."""
        return self._parts.transformer

    @torch.no_grad()
    def encode_video(self, frames: UInt8[np.ndarray, "batch time row column 3"]) -> Float[Tensor, "batch c f h w"]:
        """Normalised latents of clips, by the posterior's mode, as `WanPipeline` expects them; float32.

        Raises:
            BadInput: the clips do not have the model's geometry.
        """
        geometry = self.geometry
        expected = (geometry.num_frames, geometry.height, geometry.width, 3)
        if frames.ndim != 5 or frames.shape[1:] != expected or frames.dtype != np.uint8:
            raise BadInput(f"clips are {frames.dtype} {frames.shape}; the model takes uint8 clips of shape {expected}")
        latents = []
        for clips in torch.split(torch.from_numpy(np.ascontiguousarray(frames)), self._clips_at_once()):
            video = clips.to(self._device).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
            latents.append(self._parts.vae.encode(video).latent_dist.mode())
        return (torch.cat(latents) - self._mean) / self._std

    @torch.no_grad()
    def decode_latents(self, latents: Float[Tensor, "batch c f h w"]) -> UInt8[np.ndarray, "batch time row column 3"]:
        """The clips of normalised latents, rounded to uint8."""
        clips = []
        for some in torch.split(latents.to(self._device, torch.float32), self._clips_at_once()):
            video = self._parts.vae.decode(some * self._std + self._mean).sample
            scaled = ((video / 2 + 0.5).clamp(0, 1) * 255).round()
            clips.append(scaled.to("cpu", torch.uint8).permute(0, 2, 3, 4, 1).contiguous().numpy())
        return np.concatenate(clips)

    def _clips_at_once(self) -> int:
        """Clips that pass the autoencoder together: it is the memory peak of a real model, which takes one."""
        geometry = self.geometry
        return max(1, AUTOENCODER_PIXELS // (geometry.num_frames * geometry.height * geometry.width))

    @torch.no_grad()
    def encode_text(self, captions: list[str]) -> TextCondition:
        """Embeddings of captions, zero after the last token up to `max_sequence_length`, as `WanPipeline` has them."""
        length = self.geometry.max_sequence_length
        clean = [clean_caption(caption) for caption in captions]
        self._warn_unknown(clean)
        inputs = self._parts.tokenizer(
            clean,
            padding="max_length",
            max_length=length,
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        mask = inputs.attention_mask.to(self._device)
        embeds = self._parts.text_encoder(inputs.input_ids.to(self._device), mask).last_hidden_state
        return TextCondition(embeds=embeds.masked_fill(~mask.bool()[..., None], 0.0))

    def predict(
        self, x_t: Float[Tensor, "batch c f h w"], t: Float[Tensor, " batch"], text: TextCondition
    ) -> Float[Tensor, "batch c f h w"]:
        """The transformer's velocity, in float32; gradients flow where they are enabled."""
        velocity: Tensor = self._parts.transformer(
            hidden_states=x_t.to(self._device, self._dtype),
            timestep=t.to(self._device, torch.float32) * 1000,
            encoder_hidden_states=text.embeds.to(self._dtype),
            return_dict=False,
        )[0]
        return velocity.float()

    def sigmas(self, num_steps: int) -> Float[Tensor, " step"]:
        """The flow-matching scheduler's noise levels, with the checkpoint's shift, from 1 down to 0."""
        self._parts.scheduler.set_timesteps(num_steps)
        sigmas: Tensor = self._parts.scheduler.sigmas
        return sigmas.to(self._device, torch.float32)

    def save_adapter(self, path: Path) -> Path:
        """Writes the LoRA so that `WanPipeline.load_lora_weights` reads it; returns the file.

        Args:
            path: a `.safetensors` file, or a folder, which gets diffusers' usual file name.

        Raises:
            BadInput: the disk is full or may not be written; an adapter that was there still is.
        """
        file = path if path.suffix == ".safetensors" else path / ADAPTER_FILE
        part = file.with_name(f".{file.stem}.part.safetensors")
        # sorted, since the order of a set differs from process to process and the file's hash would too
        metadata = {
            key: sorted(value) if isinstance(value, set) else value
            for key, value in self.denoiser.peft_config[ADAPTER_NAME].to_dict().items()
        }
        try:
            with naming_disk_errors(file):
                file.parent.mkdir(parents=True, exist_ok=True)
                WanLoraLoaderMixin.save_lora_weights(
                    file.parent,
                    transformer_lora_layers=get_peft_model_state_dict(self.denoiser),
                    weight_name=part.name,
                    transformer_lora_adapter_metadata=metadata,
                )
            write_atomic(file, part.read_bytes())
        except SafetensorError as error:  # how it reports a disk that refuses, without the error's number
            raise BadInput(f"cannot write {file}: {error}; nothing was lost, free space and rerun") from error
        finally:
            part.unlink(missing_ok=True)
        return file

    def load_adapter(self, path: Path) -> None:
        """Puts a saved LoRA on the transformer, in place of the one that is there.

        Raises:
            BadInput: no safetensors file there, or not a LoRA of this model.
        """
        file = path / ADAPTER_FILE if path.is_dir() else path
        if file.suffix in wan_files.PICKLES:
            raise BadInput(f"{file} is a pickle, which can run code when loaded: it was not opened; use safetensors")
        if not file.is_file():
            raise BadInput(f"{file} is missing: no adapter to load")
        try:
            state, metadata = WanLoraLoaderMixin.lora_state_dict(
                str(file.parent),
                weight_name=file.name,
                use_safetensors=True,
                local_files_only=True,
                return_lora_metadata=True,
            )
        except SafetensorError as error:
            raise BadInput(f"{file} is not a whole safetensors file: {error}") from None
        if not state or not all("lora" in key for key in state):
            raise BadInput(f"{file} is not a LoRA in diffusers' format: a key without 'lora' in its name")
        if self.denoiser._hf_peft_config_loaded and ADAPTER_NAME in self.denoiser.peft_config:
            self.denoiser.delete_adapters(ADAPTER_NAME)
        try:
            WanLoraLoaderMixin.load_lora_into_transformer(
                state, self.denoiser, adapter_name=ADAPTER_NAME, metadata=metadata
            )
        except (RuntimeError, ValueError) as error:
            line = str(error).strip().splitlines()[0]
            raise BadInput(f"{file} does not fit this model: {line}") from None
        self.denoiser.enable_adapters()  # a layer that was switched off stays off under a new adapter

    def _warn_unknown(self, captions: list[str]) -> None:
        unknown = [word for caption in captions for word in unknown_words(self._parts.tokenizer, caption)]
        new = [word for word in dict.fromkeys(unknown) if word not in self._known_unknown]
        if new:
            self._known_unknown.update(new)
            _log.warning("the model's vocabulary lacks these words and reads them as <unk>: %s", ", ".join(new))


def load_parts(folder: Path, *, device: str, dtype: torch.dtype) -> WanParts:
    """The components of a checked directory, frozen and in evaluation mode."""
    local = {"local_files_only": True, "use_safetensors": True}
    try:
        with _without_progress_bars():
            transformer = WanTransformer3DModel.from_pretrained(folder / "transformer", torch_dtype=dtype, **local)
            vae = AutoencoderKLWan.from_pretrained(folder / "vae", torch_dtype=torch.float32, **local)
            text_encoder = UMT5EncoderModel.from_pretrained(folder / "text_encoder", dtype=dtype, **local)
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True, trust_remote_code=False)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise BadInput(f"{folder} does not load as a Wan model: {str(error).strip().splitlines()[0]}") from None
    for module in (transformer, vae, text_encoder):
        module.eval().requires_grad_(False).to(device)
    return WanParts(
        transformer=transformer,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=flow_scheduler(folder),
    )


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Keeps the loader's own bars off the screen: loading is one line of our progress, not three."""
    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()


def flow_scheduler(folder: Path) -> FlowMatchEulerDiscreteScheduler:
    """The Euler flow-matching scheduler with the checkpoint's shift.

    Wan 2.1 ships UniPC in flow mode; its `flow_shift` is the same shift, and Euler steps are what the guided schedule
    of a pair is defined for.
    """
    path = folder / "scheduler" / "scheduler_config.json"
    config = wan_files.read_json(path)
    if config.get("_class_name") == "FlowMatchEulerDiscreteScheduler":
        return FlowMatchEulerDiscreteScheduler.from_config(config)
    if config.get("prediction_type") != "flow_prediction" or not isinstance(config.get("flow_shift"), int | float):
        raise BadInput(f"{path}: only flow-matching schedulers are supported (prediction_type = 'flow_prediction')")
    return FlowMatchEulerDiscreteScheduler(shift=config["flow_shift"])


def clean_caption(caption: str) -> str:
    """The caption as `WanPipeline` tokenizes it: broken text repaired, entities resolved, white space collapsed."""
    return re.sub(r"\s+", " ", html.unescape(html.unescape(ftfy.fix_text(caption)))).strip()


def unknown_words(tokenizer: PreTrainedTokenizerBase, caption: str) -> list[str]:
    """The words of a caption that the vocabulary lacks, in order."""
    if tokenizer.unk_token_id is None:
        return []
    encoded = tokenizer(caption, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast)
    if tokenizer.unk_token_id not in encoded.input_ids:
        return []
    if not tokenizer.is_fast:
        return [f"(in {caption!r})"]
    pairs = zip(encoded.input_ids, encoded.offset_mapping, strict=True)
    return [caption[start:stop] for token, (start, stop) in pairs if token == tokenizer.unk_token_id]
