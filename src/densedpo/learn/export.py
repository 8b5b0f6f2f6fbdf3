"""What a run leaves for others: the adapter, the denoiser or chosen weights of it; and where in time it learned."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from densedpo.adapters.trained import ADAPTER_FILE, CHOSEN_FILE, DENOISER_FOLDER, WEIGHTS_FILE
from densedpo.core.files import naming_disk_errors, sync_folder, write_atomic
from densedpo.core.provenance import sha256_file
from densedpo.core.records import write_jsonl

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from densedpo.adapters.base import VideoModel
    from densedpo.learn.watch.evaluate import Evaluation, FrameReward

WHERE_FILE: Final = "where.jsonl"


def where_learned(evaluation: Evaluation | None, num_pairs: int, poll: Callable[[], None]) -> list[FrameReward]:
    """What where.jsonl holds of the first validation pairs; nothing where there are none or none can be told."""
    return [] if evaluation is None or not num_pairs else evaluation.rewards(num_pairs, poll)


def write_where(rewards: Sequence[FrameReward], folder: Path) -> None:
    """Writes where.jsonl if there is anything for it."""
    if rewards:
        write_jsonl(folder / WHERE_FILE, rewards)


def export_adapter(model: VideoModel, folder: Path) -> None:
    """Writes adapter.safetensors from the adapter on the model."""
    model.save_adapter(folder / ADAPTER_FILE)


def export_denoiser(denoiser: torch.nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Writes `transformer/`, which diffusers loads in the place of the base model's: float32, 10 GB in a file at most.

    `weights.json` beside it is written last and lists its files with their hashes.

    Args:
        denoiser: was loaded by diffusers; its own weights are not read, since they may be cut over processes.
        weights: the whole ones, by name, on CPU.
    """
    from diffusers import ModelMixin
    from huggingface_hub import save_torch_state_dict

    assert isinstance(denoiser, ModelMixin)
    base = Path(str(denoiser.config["_name_or_path"]))
    target = folder / DENOISER_FOLDER
    part = folder / f".{DENOISER_FOLDER}.part"
    with naming_disk_errors(target):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        shutil.copyfile(base / "config.json", part / "config.json")
        pattern = "diffusion_pytorch_model{suffix}.safetensors"
        save_torch_state_dict(dict(weights), part, filename_pattern=pattern, max_shard_size="10GB")
        sync_folder(part)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
        sync_folder(folder)
    _list_weights(sorted(target.iterdir()), folder)


def export_chosen(weights: Mapping[str, Tensor], folder: Path) -> None:
    """Writes `chosen.safetensors`, the weights that moved by their names in the denoiser, and `weights.json` last.

    Args:
        weights: whole ones, float32, on CPU.
    """
    from safetensors.torch import save

    tensors = {name: tensor.detach().contiguous() for name, tensor in sorted(weights.items())}
    write_atomic(folder / CHOSEN_FILE, save(tensors))
    _list_weights([folder / CHOSEN_FILE], folder)


def _list_weights(files: Sequence[Path], folder: Path) -> None:
    hashes = {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}
    write_atomic(folder / WEIGHTS_FILE, json.dumps(hashes, indent=2) + "\n")
