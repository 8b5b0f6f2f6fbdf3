"""The model families that are known, and how a name becomes a loaded model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from densedpo.adapters import files
from densedpo.adapters.footprint import tensor_shapes
from densedpo.adapters.layouts import animatediff, cogvideox, hunyuan, ltx, wan
from densedpo.core.errors import BadInput

if TYPE_CHECKING:
    import torch

    from densedpo.adapters.base import Geometry, SamplingDefaults, VideoModel
    from densedpo.adapters.directory import Family

FAMILIES: Final[dict[str, Family]] = {
    family.pipeline: family for layout in (wan, cogvideox, ltx, hunyuan, animatediff) for family in layout.FAMILIES
}
SHIPPED: Final = Path(__file__).parent / "tiny" / "model"


def load(
    name: str | Path, *, device: str = "cpu", dtype: torch.dtype | None = None, captions: Path | None = None
) -> VideoModel:
    """Loads a model from the local disk; nothing is downloaded.

    Args:
        name: a diffusers model directory, `tiny` for the shipped one, or `owner/name` of one in the local cache.
        dtype: of the denoiser; float32 unless given.
        captions: a folder in which embeddings of captions are kept (`Project.captions`), so that a text encoder is
            loaded for new ones only.

    Raises:
        BadInput: no such model here, a family that is not known, weights that are not safetensors.
    """
    folder = find(name)

    import torch

    from densedpo.adapters.loading import Opened

    family = family_of(folder)
    opened = Opened(folder, family, device=device, dtype=dtype or torch.float32, captions=captions)
    match family.name:
        case "Wan":
            from densedpo.adapters.wan import WanModel

            return WanModel(opened)
        case "CogVideoX":
            from densedpo.adapters.cogvideox import CogVideoXModel

            return CogVideoXModel(opened)
        case "LTX-Video":
            from densedpo.adapters.ltx import LTXModel

            return LTXModel(opened)
        case "HunyuanVideo":
            from densedpo.adapters.hunyuan import HunyuanModel

            return HunyuanModel(opened)
        case "AnimateDiff":
            from densedpo.adapters.animatediff import AnimateDiffModel

            return AnimateDiffModel(opened)
        case unknown:
            raise ValueError(f"the family {unknown} is described and has no adapter")


def geometry(name: str | Path) -> Geometry:
    """The clip size of a model, without loading it and without torch."""
    folder = find(name)
    return family_of(folder).geometry(folder)


def defaults(name: str | Path) -> SamplingDefaults:
    """The sampling defaults of a model, without loading it and without torch."""
    folder = find(name)
    return family_of(folder).defaults(folder)


def fingerprint(name: str | Path) -> str:
    """The `fingerprint` of the model that `load` would give, without torch."""
    folder = find(name)
    return family_of(folder).fingerprint(folder)


def denoisers(name: str | Path) -> tuple[str, ...]:
    """What a model's pipeline calls its denoisers, the one that is trained last; the weights need not be there."""
    folder = locate(name)
    return family_of(folder).denoisers(folder)


def beyond_pipeline(name: str | Path) -> tuple[str, ...]:
    """What a model does by its settings that its pipeline in diffusers does not, in sentences."""
    folder = locate(name)
    return family_of(folder).beyond(folder)


def weight_names(name: str | Path) -> tuple[str, ...]:
    """The names of the weights of the denoiser that is trained, from the heads of its files."""
    folder = find(name)
    return tuple(tensor_shapes(folder / family_of(folder).denoisers(folder)[-1]))


def vae_fingerprint(name: str | Path) -> str:
    """The `vae_fingerprint` of the model that `load` would give, without torch."""
    return files.fingerprint(find(name), ("vae",))


def find(name: str | Path) -> Path:
    """The directory of a model of a known family; whatever asks about a model goes through here.

    Raises:
        BadInput: there is none, and how to get one; or it is not complete, or offers a pickle for weights.
    """
    folder = locate(name)
    family_of(folder).check(folder)
    return folder


def locate(name: str | Path) -> Path:
    """The directory of a model, whatever is in it.

    Raises:
        BadInput: there is none, and how to get one.
    """
    folder = SHIPPED if str(name) == "tiny" else Path(name).expanduser()
    if not folder.exists():
        folder = _cached(str(name))
    if not folder.is_dir():
        raise BadInput(f"{folder} is a file; a model is a diffusers directory with a model_index.json")
    return folder


def family_of(folder: Path) -> Family:
    """The family of a model directory, from its `model_index.json` alone.

    Raises:
        BadInput: no such file, or a family that is not known.
    """
    if not (folder / "model_index.json").is_file():
        raise BadInput(f"{folder} has no model_index.json: a model is a diffusers directory")
    pipeline = files.read_json(folder / "model_index.json").get("_class_name")
    family = FAMILIES.get(str(pipeline))
    if family is None:
        raise BadInput(f"{folder} is a {pipeline}; the families known are {', '.join(FAMILIES)}")
    return family


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
