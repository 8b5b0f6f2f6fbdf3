"""A diffusers model directory as files, whatever the family: its JSON, settings, weights and fingerprint (no torch)."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from densedpo.adapters.base import Geometry, SamplingDefaults
from densedpo.core.errors import BadInput

PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
SETTINGS_FILE: Final = "densedpo.json"
WITHOUT_WEIGHTS: Final = ("scheduler", "tokenizer", "image_processor")

MAX_HEADER_BYTES: Final = 100_000_000  # as safetensors bounds it

Positive = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """`densedpo.json` beside `model_index.json`: how this model is used; what it leaves out is the family's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_frames: Positive
    height: Positive
    width: Positive
    fps: Annotated[float, Field(gt=0)]
    max_sequence_length: Positive
    num_steps: Positive
    guidance_scale: Annotated[float, Field(ge=0)]
    eta_min: Annotated[float, Field(gt=0, le=1)] = 0.65
    eta_max: Annotated[float, Field(gt=0, le=1)] = 0.8
    first_frame: bool = False
    """Whether a clip's first frame is given: image-to-video."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Factors:
    """What a checkpoint's configs say of its latents: compression, channels, and the side of a token in cells."""

    temporal_stride: int
    spatial_stride: int
    latent_channels: int
    patch: int


AnySettings = TypeVar("AnySettings", bound=Settings)


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """What can be asked of a model directory of one family before anything is loaded.

    Attributes:
        name: as people write it.
        pipeline: the class in `model_index.json`.
        classes: by component, those that are supported.
        settings: the model's `densedpo.json` over the defaults of its layout.
        factors: compression and channels, from the checkpoint's own configs.
        lora_targets: the linear layers of the denoiser that a LoRA adapts.
        refuse: raises BadInput for a layout of the same classes that is not supported.
        recorded: settings that change what the denoiser computes; they are part of the fingerprint.
        denoisers: the folders of what denoises, the one of the highest noise first; two where a model has two experts.
        first_frame: what the setting of that name may be: a checkpoint is text-to-video, image-to-video or both.
        image_parts: components that only a layout has which looks at an image, with their classes.
    """

    name: str
    pipeline: str
    classes: Mapping[str, tuple[str, ...]]
    settings: Callable[[Path], Settings]
    factors: Callable[[Path], Factors]
    lora_targets: tuple[str, ...]
    refuse: Callable[[Path], None] = lambda folder: None  # noqa: ARG005
    recorded: Callable[[Path], Mapping[str, object]] = lambda folder: {}  # noqa: ARG005
    denoisers: Callable[[Path], tuple[str, ...]] = lambda folder: ("transformer",)  # noqa: ARG005
    first_frame: Callable[[Path], tuple[bool, ...]] = lambda folder: (False,)  # noqa: ARG005
    image_parts: Callable[[Path], Mapping[str, tuple[str, ...]]] = lambda folder: {}  # noqa: ARG005

    def check(self, folder: Path) -> None:
        """Refuses, before anything is loaded, another layout and weights that are not safetensors.

        Raises:
            BadInput: names the component or the file.
        """
        check_components(folder, self.classes)
        check_components(folder, self.image_parts(folder))
        check_components(folder, dict.fromkeys(self.denoisers(folder), self.classes[self.denoisers(folder)[0]]))
        self.refuse(folder)
        if (asked := self.settings(folder).first_frame) not in self.first_frame(folder):
            takes = "continues a first frame always" if not asked else "takes no first frame"
            raise BadInput(f"{folder / SETTINGS_FILE}: first_frame = {str(asked).lower()}, but this model {takes}")
        for name in self.components(folder):
            if not name.startswith(WITHOUT_WEIGHTS):
                check_weights(folder / name)

    def geometry(self, folder: Path) -> Geometry:
        """Sizes from `densedpo.json`, compression factors and channels from the checkpoint's own configs.

        Raises:
            BadInput: a size that the autoencoder or the denoiser would round, a config that is missing or damaged.
        """
        settings, factors = self.settings(folder), self.factors(folder)
        return Geometry(
            num_frames=settings.num_frames,
            height=settings.height,
            width=settings.width,
            fps=settings.fps,
            max_sequence_length=settings.max_sequence_length,
            temporal_stride=factors.temporal_stride,
            spatial_stride=factors.spatial_stride,
            latent_channels=factors.latent_channels,
            patch=factors.patch,
            num_given_frames=int(settings.first_frame),
        )

    def defaults(self, folder: Path) -> SamplingDefaults:
        """The model's sampling defaults."""
        settings = self.settings(folder)
        return SamplingDefaults(
            num_steps=settings.num_steps,
            guidance_scale=settings.guidance_scale,
            eta_min=settings.eta_min,
            eta_max=settings.eta_max,
        )

    def components(self, folder: Path) -> tuple[str, ...]:
        """The folders that the model is made of: `classes`, a second denoiser, a tokenizer per encoder, image parts."""
        text = (name for name in self.text if name not in self.classes)
        return (*self.classes, *self.denoisers(folder)[1:], *text, *self.image_parts(folder))

    @property
    def text(self) -> tuple[str, ...]:
        """The folders that a caption's embedding depends on."""
        encoders = [name for name in self.classes if name.startswith("text_encoder")]
        return (*encoders, *(name.replace("text_encoder", "tokenizer") for name in encoders))

    def fingerprint(self, folder: Path) -> str:
        """sha256 over every config and weight file of the model, and the settings that its denoiser takes."""
        recorded = dict(self.recorded(folder))
        if self.settings(folder).first_frame:
            recorded["first_frame"] = True
        return fingerprint(folder, self.components(folder), recorded)

    def text_fingerprint(self, folder: Path, how: Mapping[str, object]) -> str:
        """sha256 over what the embedding of a caption depends on.

        Args:
            how: it is computed: what else changes its bits.
        """
        length = self.settings(folder).max_sequence_length
        return fingerprint(folder, self.text, {**self.recorded(folder), **how, "max_sequence_length": length})


def read_json(path: Path) -> dict[str, object]:
    """A JSON object from a file of the model.

    Raises:
        BadInput: the file is absent, or is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path} is missing: {path.parent} is not a complete model directory") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadInput(f"{path} does not hold a JSON object")
    return value


def read_settings(folder: Path, defaults: AnySettings) -> AnySettings:
    """The model's `densedpo.json` over its family's defaults.

    Raises:
        BadInput: a key that is not known, or a value out of range.
    """
    path = folder / SETTINGS_FILE
    if not path.exists():
        return defaults
    kind = type(defaults)
    try:
        settings = kind.model_validate(defaults.model_dump() | read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        keys = ", ".join(kind.model_fields)
        raise BadInput(f"{path}: key {key!r}: {first['msg']}; the keys are {keys}") from None
    if settings.eta_min > settings.eta_max:
        raise BadInput(f"{path}: eta_min = {settings.eta_min} is above eta_max = {settings.eta_max}")
    return settings


def integer(path: Path, key: str, default: int) -> int:
    """A whole number of a component's config, or what the class of diffusers has where the config leaves it out.

    Raises:
        BadInput: it is something else, or the file is missing.
    """
    value = read_json(path).get(key, default)
    if not isinstance(value, int):
        raise BadInput(f"{path}: {key} is {value!r}, not a whole number")
    return value


def refuse_long_tokens(folder: Path) -> None:
    """Refuses a denoiser whose tokens span several latent frames, to which no one label belongs.

    Raises:
        BadInput: names the key.
    """
    transformer = folder / "transformer" / "config.json"
    if integer(transformer, "patch_size_t", 1) != 1:
        raise BadInput(f"{transformer}: patch_size_t is not 1: a token of several latent frames is not supported")


def check_components(folder: Path, components: Mapping[str, tuple[str, ...]]) -> None:
    """Refuses a directory whose index names another class for a component than those that are supported.

    Raises:
        BadInput: names the component.
    """
    index = read_json(folder / "model_index.json")
    for component, classes in components.items():
        entry = index.get(component)
        found = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
        if found not in classes:
            raise BadInput(f"{folder}/model_index.json: {component} is {found}, supported: {', '.join(classes)}")


def check_weights(folder: Path) -> None:
    """Refuses a component whose weights are not there in full, or are not safetensors; reads their headers alone.

    Raises:
        BadInput: names the file.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} is missing: the model directory is not complete")
    if not any(folder.glob("*.safetensors")):
        pickles = [path.name for path in sorted(folder.iterdir()) if path.suffix in PICKLES]
        if pickles:
            raise BadInput(
                f"{folder / pickles[0]} is a pickle, which can run code when it is loaded: it was not opened; "
                "convert it to safetensors"
            )
        raise BadInput(f"{folder} holds no .safetensors file: the model directory is not complete")
    for file in sorted(folder.glob("*.safetensors")):
        read_header(file)
    for index_path in folder.glob("*.index.json"):
        shards = read_json(index_path).get("weight_map", {})
        names = sorted(set(shards.values())) if isinstance(shards, dict) else []
        for name in names:
            # an index may name any file: one that is not safetensors would be unpickled
            if not str(name).endswith(".safetensors") or Path(str(name)).name != name:
                raise BadInput(f"{index_path} names {name!r} as weights: only .safetensors beside it are loaded")
            if not (folder / name).is_file():
                raise BadInput(f"{folder / name} is missing: the model directory is not complete")


def read_header(file: Path) -> dict[str, dict[str, list[int]]]:
    """What a safetensors file holds, by name, from its head: JSON behind its length in 8 bytes.

    Raises:
        BadInput: the file is not one, or is shorter than its head says.
    """
    with file.open("rb") as opened:
        start = opened.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else MAX_HEADER_BYTES
        text = opened.read(length) if length < MAX_HEADER_BYTES else b""
    try:
        header = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError):
        header = None
    if not isinstance(header, dict):
        raise BadInput(f"{file} is not a whole safetensors file")
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    if file.stat().st_size != 8 + length + end:
        raise BadInput(f"{file} is not a whole safetensors file: its head tells of another size; copy it again")
    return tensors


def fingerprint(folder: Path, components: tuple[str, ...], recorded: Mapping[str, object] | None = None) -> str:
    """sha256 over the config and weight files of the components, in the order of their names.

    The content of a file is hashed once per process while its size and modification time stay the same.

    Args:
        recorded: settings that count as content.
    """
    digest = hashlib.sha256()
    for component in sorted(components):
        for path in sorted((folder / component).glob("*")):
            if path.is_file() and path.suffix in (".json", ".safetensors", ".model", ".txt"):
                stat = path.stat()
                content = _sha256(path.resolve(), stat.st_size, stat.st_mtime_ns)
                digest.update(f"{component}/{path.name}:{content}\n".encode())
    if recorded:
        digest.update(json.dumps(recorded, sort_keys=True).encode())
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:  # noqa: ARG001
    """The file's hash; size and time are only the cache's key."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
