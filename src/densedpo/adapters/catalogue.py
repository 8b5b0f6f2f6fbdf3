"""The model families that are known, and how a name becomes a loaded model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from densedpo.adapters import wan_files
from densedpo.core.errors import BadInput

if TYPE_CHECKING:
    import torch

    from densedpo.adapters.base import Geometry, SamplingDefaults, VideoModel

FAMILIES: Final = ("WanPipeline",)
SHIPPED: Final = Path(__file__).parent / "tiny" / "model"


def load(name: str | Path, *, device: str = "cpu", dtype: torch.dtype | None = None) -> VideoModel:
    """Loads a model from the local disk; nothing is downloaded.

    Args:
        name: a diffusers model directory, `tiny` for the shipped one, or `owner/name` of one in the local cache.
        dtype: of the denoiser; float32 unless given.

    Raises:
        BadInput: no such model here, a family that is not known, weights that are not safetensors.
    """
    folder = find(name)

    import torch

    from densedpo.adapters.wan import WanModel

    return WanModel(folder, device=device, dtype=dtype or torch.float32)


def geometry(name: str | Path) -> Geometry:
    """The clip size of a model, without loading it and without torch."""
    return wan_files.read_geometry(find(name))


def defaults(name: str | Path) -> SamplingDefaults:
    """The sampling defaults of a model, without loading it and without torch."""
    return wan_files.read_defaults(find(name))


def fingerprint(name: str | Path) -> str:
    """The `fingerprint` of the model that `load` would give, without torch."""
    return wan_files.fingerprint(find(name))


def vae_fingerprint(name: str | Path) -> str:
    """The `vae_fingerprint` of the model that `load` would give, without torch."""
    return wan_files.fingerprint(find(name), ("vae",))


def find(name: str | Path) -> Path:
    """The directory of a model of a known family; whatever asks about a model goes through here.

    Raises:
        BadInput: there is none, and how to get one; or it is not complete, or offers a pickle for weights.
    """
    folder = SHIPPED if str(name) == "tiny" else Path(name).expanduser()
    if not folder.exists():
        folder = _cached(str(name))
    if not folder.is_dir():
        raise BadInput(f"{folder} is a file; a model is a diffusers directory with a model_index.json")
    if not (folder / "model_index.json").is_file():
        raise BadInput(f"{folder} has no model_index.json: a model is a diffusers directory")
    family = wan_files.read_json(folder / "model_index.json").get("_class_name")
    if family not in FAMILIES:
        raise BadInput(f"{folder} is a {family}; the families known are {', '.join(FAMILIES)}")
    wan_files.check_files(folder)
    return folder


def _cached(name: str) -> Path:
    """The snapshot of `owner/name` in the local Hugging Face cache."""
    if name == "tiny":
        raise BadInput(f"the shipped model is missing from {SHIPPED}: reinstall densedpo")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise BadInput(
            f"no model at {name}: give a diffusers directory, 'tiny', or owner/name after, for example, "
            "`hf download Wan-AI/Wan2.1-T2V-1.3B-Diffusers`"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        raise BadInput(f"{name} is neither a folder nor in the local cache; get it by `hf download {name}`") from None
