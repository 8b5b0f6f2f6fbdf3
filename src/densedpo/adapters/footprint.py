"""How large a model is and what memory its use will take, from its configs and the headers of its weights (no torch).

The memory is arithmetic, not a measurement: weights, the LoRA with its gradient and Adam's moments, and the activations
of a transformer's layer, 34 bytes per token and channel in 16 bit without the attention matrix, which no attention
backend in use keeps (Korthikanti et al., 2205.05198, equation 2). What the autoencoder takes at its peak is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from densedpo.adapters.base import Geometry
from densedpo.adapters.directory import Family
from densedpo.adapters.files import WITHOUT_WEIGHTS, read_header, read_json
from densedpo.core.errors import BadInput

LAYER_BYTES_16_BIT: Final = 34
LORA_BYTES: Final = 16  # float32: the weight, its gradient and two moments


@dataclass(frozen=True, kw_only=True, slots=True)
class ComponentSize:
    """One component with weights: how many, and whether they were counted from files."""

    folder: str
    num_parameters: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryNeed:
    """Bytes for one use of a model, by what takes them."""

    weights: int
    adapter: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.adapter + self.activations


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """What a model directory says about its size.

    Attributes:
        num_tokens: of the denoiser for one clip, of a UNet at its finest.
        largest_layer: numbers that pass the largest layer for one clip: tokens times channels.
        all_layers: the same summed over all layers.
        lora_per_rank: parameters of a LoRA on the family's layers for each unit of its rank.
        missing: why the model cannot be loaded; None where it can.
    """

    family: str
    geometry: Geometry
    components: tuple[ComponentSize, ...]
    denoisers: tuple[str, ...]
    num_tokens: int
    largest_layer: int
    all_layers: int
    lora_per_rank: int
    missing: str | None

    @property
    def denoiser_parameters(self) -> int:
        """Of the denoiser, or of both where a model has two."""
        return sum(size.num_parameters for size in self.components if size.folder in self.denoisers)

    def _weights(self, value_bytes: int, denoisers: tuple[str, ...], *, decodes: bool) -> int:
        """The most that is held at once: captions are encoded first, and their encoders let go (`encode_ahead`).

        The autoencoder is in float32 whatever the rest is in.

        Args:
            denoisers: those that are loaded.
        """
        denoising = sum(size.num_parameters for size in self.components if size.folder in denoisers)
        text = sum(size.num_parameters for size in self.components if size.folder.startswith("text_encoder"))
        vae = sum(size.num_parameters for size in self.components if size.folder == "vae")
        return max(value_bytes * text, value_bytes * denoising + (4 * vae if decodes else 0))

    def for_pairs(self, *, value_bytes: int, clips: int = 2) -> MemoryNeed:
        """To make pairs: denoiser and autoencoder loaded, and one layer's activations at a time.

        Args:
            value_bytes: of one number of the denoiser and the text encoder.
            clips: in one forward; the two halves of a pair.
        """
        return MemoryNeed(
            weights=self._weights(value_bytes, self.denoisers, decodes=True),
            adapter=0,
            activations=clips * _kept_bytes(self.largest_layer, value_bytes),
        )

    def for_training(self, *, value_bytes: int, rank: int, recomputed: bool, clips: int = 2) -> MemoryNeed:
        """To train a LoRA: its denoiser loaded, the last one, and the activations that the backward needs.

        Args:
            recomputed: whether layers keep only their inputs and compute the rest again in the backward.
        """
        kept = self.all_layers * value_bytes if recomputed else _kept_bytes(self.all_layers, value_bytes)
        once_more = _kept_bytes(self.largest_layer, value_bytes) if recomputed else 0
        return MemoryNeed(
            weights=self._weights(value_bytes, self.denoisers[-1:], decodes=False),
            adapter=LORA_BYTES * rank * self.lora_per_rank,
            activations=clips * (kept + once_more),
        )


def _kept_bytes(numbers: int, value_bytes: int) -> int:
    """What the backward of layers needs, by the numbers that pass them."""
    return numbers * LAYER_BYTES_16_BIT * value_bytes // 2


def read_footprint(folder: Path, family: Family) -> Footprint:
    """The size of a model of a known family.

    Weights that are not there are counted from the config where diffusers is installed, else as 0.

    Raises:
        BadInput: a config is missing or is not what the family's is.
    """
    missing = None
    try:
        family.check(folder)
    except BadInput as error:
        missing = str(error)
    geometry, denoisers = family.geometry(folder), family.denoisers(folder)
    shapes = {
        name: tensor_shapes(folder / name) for name in family.components(folder) if not name.startswith(WITHOUT_WEIGHTS)
    }
    config = read_json(folder / denoisers[0] / "config.json")
    layers = (_unet_layers if "block_out_channels" in config else _layers)(config, geometry, folder)
    return Footprint(
        family=family.name,
        geometry=geometry,
        components=tuple(
            ComponentSize(folder=name, num_parameters=sum(math.prod(shape) for shape in found.values()))
            for name, found in shapes.items()
        ),
        denoisers=denoisers,
        num_tokens=_num_tokens(config, geometry),
        largest_layer=max(layers),
        all_layers=sum(layers),
        lora_per_rank=_lora_per_rank(shapes[denoisers[-1]], family.lora_targets),
        missing=missing,
    )


def tensor_shapes(folder: Path) -> Mapping[str, tuple[int, ...]]:
    """Name and shape of every tensor of a component; a second copy in half precision is counted once.

    Raises:
        BadInput: a file is not safetensors.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        for name, entry in read_header(file).items():
            shapes.setdefault(name, tuple(entry["shape"]))
    return shapes or _shapes_from_config(folder)


def _shapes_from_config(folder: Path) -> Mapping[str, tuple[int, ...]]:
    """What diffusers would make from the config, built without memory; nothing for a text encoder."""
    if not (folder / "config.json").is_file() or "_class_name" not in read_json(folder / "config.json"):
        return {}
    if find_spec("diffusers") is None:
        return {}
    import torch
    from diffusers import AutoModel

    with torch.device("meta"):
        model = AutoModel.from_config(read_json(folder / "config.json"))
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _lora_per_rank(shapes: Mapping[str, tuple[int, ...]], targets: tuple[str, ...]) -> int:
    """A LoRA on a layer from n to m channels has rank x (n + m) parameters."""
    endings = tuple(f".{target}.weight" for target in targets)
    return sum(sum(shape) for name, shape in shapes.items() if len(shape) == 2 and name.endswith(endings))


def _num_tokens(config: Mapping[str, object], geometry: Geometry) -> int:
    """Tokens of one clip; a patch in time stands first in a list of three, or under its own name."""
    _, num_frames, height, width = geometry.latent_shape
    patch = config.get("patch_size")
    in_time = patch[0] if isinstance(patch, list) else config.get("patch_size_t")
    num_in_time = num_frames // in_time if isinstance(in_time, int) else num_frames
    return num_in_time * (height // geometry.patch) * (width // geometry.patch)


def _layers(config: Mapping[str, object], geometry: Geometry, folder: Path) -> list[int]:
    """Tokens times channels of each layer of a transformer, a second kind of layers among them."""
    width = _number(config, "num_attention_heads", folder) * _number(config, "attention_head_dim", folder)
    num_layers = _number(config, "num_layers", folder)
    num_layers += _number({"num_single_layers": 0, **config}, "num_single_layers", folder)
    return [_num_tokens(config, geometry) * width] * num_layers


def _unet_layers(config: Mapping[str, object], geometry: Geometry, folder: Path) -> list[int]:
    """Cells times channels of each part of a UNet, each part counted as a layer: convolutions, places, time.

    A level has `layers_per_block` blocks on the way down and one more on the way up; the middle is at the last.

    Raises:
        BadInput: the config does not say what the levels are.
    """
    widths, kinds = config["block_out_channels"], config.get("down_block_types")
    if not isinstance(widths, list) or not isinstance(kinds, list) or len(widths) != len(kinds):
        raise BadInput(f"{folder}: the denoiser's config does not say its levels by block_out_channels")
    num_blocks = 2 * _number(config, "layers_per_block", folder) + 1
    _, num_frames, rows, columns = geometry.latent_shape
    layers: list[int] = []
    for level, (width, kind) in enumerate(zip(widths, kinds, strict=True)):
        numbers = num_frames * -(-rows >> level) * -(-columns >> level) * width
        layers += [numbers] * (num_blocks * (3 if str(kind).startswith("CrossAttn") else 2))
    return layers + layers[-1:] * 4  # the middle: two of convolutions, one over places, one over time


def _number(config: Mapping[str, object], key: str, folder: Path) -> int:
    value = config.get(key)
    if not isinstance(value, int):
        raise BadInput(f"{folder}: {key} of the denoiser's config is {value!r}, not a whole number")
    return value
