"""A `WanPipeline` directory as files: what must be there, its geometry, its defaults and its fingerprint (no torch)."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from densedpo.adapters.base import Geometry, SamplingDefaults
from densedpo.core.errors import BadInput

WEIGHT_FOLDERS: Final = ("transformer", "vae", "text_encoder")
COMPONENTS: Final[dict[str, tuple[str, ...]]] = {
    "transformer": ("WanTransformer3DModel",),
    "vae": ("AutoencoderKLWan",),
    "text_encoder": ("UMT5EncoderModel",),
    "scheduler": ("FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"),
}
PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
SETTINGS_FILE: Final = "densedpo.json"

Positive = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """`densedpo.json` beside `model_index.json`: how this model is used. The defaults are Wan 2.1's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_frames: Positive = 81
    height: Positive = 480
    width: Positive = 832
    fps: Annotated[float, Field(gt=0)] = 16.0
    max_sequence_length: Positive = 512
    num_steps: Positive = 50
    guidance_scale: Annotated[float, Field(ge=0)] = 5.0
    eta_min: Annotated[float, Field(gt=0, le=1)] = 0.65
    eta_max: Annotated[float, Field(gt=0, le=1)] = 0.8


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


def read_settings(folder: Path) -> Settings:
    """The model's `densedpo.json`, or Wan's defaults where there is none."""
    path = folder / SETTINGS_FILE
    if not path.exists():
        return Settings()
    try:
        settings = Settings.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        keys = ", ".join(Settings.model_fields)
        raise BadInput(f"{path}: key {key!r}: {first['msg']}; the keys are {keys}") from None
    if settings.eta_min > settings.eta_max:
        raise BadInput(f"{path}: eta_min = {settings.eta_min} is above eta_max = {settings.eta_max}")
    return settings


def read_geometry(folder: Path) -> Geometry:
    """Sizes from `densedpo.json`, compression factors and channels from the checkpoint's own configs."""
    settings = read_settings(folder)
    vae = read_json(folder / "vae" / "config.json")
    transformer = read_json(folder / "transformer" / "config.json")
    patch = transformer.get("patch_size", [1, 2, 2])
    return Geometry(
        num_frames=settings.num_frames,
        height=settings.height,
        width=settings.width,
        fps=settings.fps,
        temporal_stride=_integer(vae, "scale_factor_temporal", 4, folder),
        spatial_stride=_integer(vae, "scale_factor_spatial", 8, folder),
        latent_channels=_integer(vae, "z_dim", 16, folder),
        max_sequence_length=settings.max_sequence_length,
        patch=int(patch[1]) if isinstance(patch, list) else 2,
    )


def read_defaults(folder: Path) -> SamplingDefaults:
    """The model's sampling defaults."""
    settings = read_settings(folder)
    return SamplingDefaults(
        num_steps=settings.num_steps,
        guidance_scale=settings.guidance_scale,
        eta_min=settings.eta_min,
        eta_max=settings.eta_max,
    )


def check_files(folder: Path) -> None:
    """Refuses, before anything is loaded, a directory of another layout and weights that are not safetensors.

    Raises:
        BadInput: names the component or the file.
    """
    index = read_json(folder / "model_index.json")
    # the two layouts of Wan 2.2 need a second expert, or a timestep per token: better refused than half supported
    if index.get("boundary_ratio") is not None or index.get("transformer_2") not in (None, [None, None]):
        raise BadInput(f"{folder} is a two-expert Wan 2.2 model, which is not supported yet; Wan 2.1 text-to-video is")
    if index.get("expand_timesteps"):
        raise BadInput(f"{folder} is a Wan 2.2 TI2V model, which is not supported yet; Wan 2.1 text-to-video is")
    for component, classes in COMPONENTS.items():
        entry = index.get(component)
        found = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
        if found not in classes:
            raise BadInput(f"{folder}/model_index.json: {component} is {found}, supported: {', '.join(classes)}")
    for name in WEIGHT_FOLDERS:
        _check_weights(folder / name)


def fingerprint(folder: Path, components: tuple[str, ...] = (*COMPONENTS, "tokenizer")) -> str:
    """sha256 over the config and weight files of the components, in the order of their names.

    The content of a file is hashed once per process while its size and modification time stay the same.
    """
    digest = hashlib.sha256()
    for component in sorted(components):
        for path in sorted((folder / component).glob("*")):
            if path.is_file() and path.suffix in (".json", ".safetensors", ".model", ".txt"):
                stat = path.stat()
                content = _sha256(path.resolve(), stat.st_size, stat.st_mtime_ns)
                digest.update(f"{component}/{path.name}:{content}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:  # noqa: ARG001
    """The file's hash; size and time are only the cache's key."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _integer(config: dict[str, object], key: str, default: int, folder: Path) -> int:
    value = config.get(key, default)
    if not isinstance(value, int):
        raise BadInput(f"{folder}/vae/config.json: {key} is {value!r}, not a whole number")
    return value


def _check_weights(folder: Path) -> None:
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
    for index_path in folder.glob("*.index.json"):
        shards = read_json(index_path).get("weight_map", {})
        names = sorted(set(shards.values())) if isinstance(shards, dict) else []
        for name in names:
            # an index may name any file: one that is not safetensors would be unpickled
            if not str(name).endswith(".safetensors") or Path(str(name)).name != name:
                raise BadInput(f"{index_path} names {name!r} as weights: only .safetensors beside it are loaded")
            if not (folder / name).is_file():
                raise BadInput(f"{folder / name} is missing: the model directory is not complete")
