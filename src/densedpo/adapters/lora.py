"""A denoiser's LoRA to a file that the family's own pipeline reads, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import torch
from diffusers.loaders import (
    CogVideoXLoraLoaderMixin,
    HunyuanVideoLoraLoaderMixin,
    LTXVideoLoraLoaderMixin,
    StableDiffusionLoraLoaderMixin,
    WanLoraLoaderMixin,
)
from diffusers.models.modeling_utils import ModelMixin
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError

from densedpo.adapters.files import PICKLES
from densedpo.core.errors import BadInput
from densedpo.core.files import naming_disk_errors, write_atomic

ADAPTER_FILE: Final = "pytorch_lora_weights.safetensors"
ADAPTER_NAME: Final = "default"

Loader = (
    type[WanLoraLoaderMixin]
    | type[CogVideoXLoraLoaderMixin]
    | type[LTXVideoLoraLoaderMixin]
    | type[HunyuanVideoLoraLoaderMixin]
    | type[StableDiffusionLoraLoaderMixin]
)


def save_lora(loader: Loader, denoiser: ModelMixin, path: Path) -> Path:
    """Writes the LoRA so that the pipeline's `load_lora_weights` reads it; returns the file.

    Args:
        loader: the part of the pipeline that knows its LoRA files.
        path: a `.safetensors` file, or a folder, which gets diffusers' usual file name.

    Raises:
        BadInput: the disk is full or may not be written; an adapter that was there still is.
    """
    file = path if path.suffix == ".safetensors" else path / ADAPTER_FILE
    part = file.with_name(f".{file.stem}.part.safetensors")
    # sorted, since the order of a set differs from process to process and the file's hash would too
    metadata = {
        key: sorted(value) if isinstance(value, set) else value
        for key, value in denoiser.peft_config[ADAPTER_NAME].to_dict().items()
    }
    try:
        with naming_disk_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            kind = _kind(loader)
            loader.save_lora_weights(
                file.parent,
                weight_name=part.name,
                **{
                    f"{kind}_lora_layers": get_peft_model_state_dict(denoiser),
                    f"{kind}_lora_adapter_metadata": metadata,
                },
            )
        write_atomic(file, _in_order(part.read_bytes()))
    except SafetensorError as error:  # how it reports a disk that refuses, without the error's number
        raise BadInput(f"cannot write {file}: {error}; nothing was lost, free space and rerun") from error
    finally:
        part.unlink(missing_ok=True)
    return file


def _kind(loader: Loader) -> str:
    """What the family's files call the denoiser, before the name of each layer."""
    return "unet" if issubclass(loader, StableDiffusionLoraLoaderMixin) else "transformer"


def _in_order(safetensors: bytes) -> bytes:
    """The same file with its metadata sorted: safetensors writes them in an order that differs from call to call."""
    size = int.from_bytes(safetensors[:8], "little")
    header = json.loads(safetensors[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    padded = text.ljust(-(-len(text) // 8) * 8)  # the tensors' bytes begin at a multiple of 8
    return len(padded).to_bytes(8, "little") + padded + safetensors[8 + size :]


def load_lora(loader: Loader, denoiser: ModelMixin, path: Path) -> None:
    """Puts a saved LoRA on the denoiser, in place of the one that is there.

    Raises:
        BadInput: no safetensors file there, or not a LoRA of this model; the one that was there still is.
    """
    file = path / ADAPTER_FILE if path.is_dir() else path
    state, metadata = _read(loader, file)
    _check_fits(state, denoiser, file, kind=_kind(loader))
    if denoiser._hf_peft_config_loaded and ADAPTER_NAME in denoiser.peft_config:
        denoiser.delete_adapters(ADAPTER_NAME)
    try:
        if issubclass(loader, StableDiffusionLoraLoaderMixin):
            loader.load_lora_into_unet(state, None, denoiser, adapter_name=ADAPTER_NAME, metadata=metadata)
        else:
            loader.load_lora_into_transformer(state, denoiser, adapter_name=ADAPTER_NAME, metadata=metadata)
    except (RuntimeError, ValueError) as error:
        line = str(error).strip().splitlines()[0]
        raise BadInput(f"{file} does not fit this model: {line}") from None
    denoiser.enable_adapters()  # a layer that was switched off stays off under a new adapter


def _read(loader: Loader, file: Path) -> tuple[dict[str, torch.Tensor], dict[str, object] | None]:
    if file.suffix in PICKLES:
        raise BadInput(f"{file} is a pickle, which can run code when loaded: it was not opened; use safetensors")
    if not file.is_file():
        raise BadInput(f"{file} is missing: no adapter to load")
    try:
        state, *others, metadata = loader.lora_state_dict(
            str(file.parent),
            weight_name=file.name,
            use_safetensors=True,
            local_files_only=True,
            return_lora_metadata=True,
        )
    except SafetensorError as error:
        raise BadInput(f"{file} is not a whole safetensors file: {error}") from None
    if not state or not all("lora" in key for key in state) or any(others):  # a UNet's may bring another tool's alphas
        raise BadInput(f"{file} is not a LoRA in diffusers' format: a key without 'lora' in its name")
    return state, metadata


def _check_fits(state: dict[str, torch.Tensor], denoiser: ModelMixin, file: Path, *, kind: str) -> None:
    """Refuses layers that the denoiser lacks, which the loader would leave out with a warning, and other widths."""
    shapes = {
        name.replace(".base_layer.", ".").removesuffix(".weight"): tuple(parameter.shape)
        for name, parameter in denoiser.named_parameters()
        if name.endswith(".weight")
    }
    for key, tensor in state.items():
        layer, _, half = key.removeprefix(f"{kind}.").partition(".lora_")
        shape = shapes.get(layer)
        if not key.startswith(f"{kind}.") or shape is None:
            raise BadInput(f"{file} does not fit this model: the denoiser has no layer {layer}")
        if tensor.ndim != 2 or len(shape) != 2 or half not in ("A.weight", "B.weight"):
            continue
        width, expected = (tensor.shape[1], shape[1]) if half == "A.weight" else (tensor.shape[0], shape[0])
        if width != expected:
            raise BadInput(f"{file} does not fit this model: {layer} is {expected} wide, the file's {width}")
