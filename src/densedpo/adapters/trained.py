"""What runs leave, and how it gets onto a model: an adapter or weights, and those of the run that it stands on.

A run's folder holds an adapter, or a `weights.json` that lists files of weights with their hashes: a whole denoiser, or
chosen weights of one. With a `base.json` the run started from the weights of another run of the same project, which are
put on the model first; it records their hash, so that they cannot change under it unseen.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from densedpo.adapters import catalogue
from densedpo.core.errors import BadInput
from densedpo.core.files import read_object, write_atomic
from densedpo.core.provenance import sha256_file, sha256_json
from densedpo.core.workspace import Project, checked_name, require_fresh

if TYPE_CHECKING:
    import torch

    from densedpo.adapters.base import VideoModel

ADAPTER_FILE: Final = "adapter.safetensors"
WEIGHTS_FILE: Final = "weights.json"
BASE_FILE: Final = "base.json"
DENOISER_FOLDER: Final = "transformer"
CHOSEN_FILE: Final = "chosen.safetensors"


def trained_file(run: Path) -> Path:
    """The file that stands for what a run has trained: its adapter, or the list of its files of weights."""
    weights = run / WEIGHTS_FILE
    return weights if weights.is_file() else run / ADAPTER_FILE


def trained_by(project: Project, run: str, *, model: str | Path, allow_stale: bool = False) -> Path:
    """The `trained_file` of a finished run on this model.

    Raises:
        BadInput: there is no such run, it is stale or not finished, or it trained another model.
    """
    folder = project.run(run)
    require_fresh(folder, project, allow_stale=allow_stale)
    file = trained_file(folder)
    if not file.is_file():
        raise BadInput(f"run {run!r} has no {file.name}: it is unfinished; run `densedpo learn` again")
    record = folder / "run.json"
    if record.is_file():
        identity = read_object(record).get("identity")
        trained = identity.get("model") if isinstance(identity, dict) else None
        if trained not in (None, fingerprint_with(catalogue.fingerprint(model), started_from(file))):
            raise BadInput(f"{project.relative(folder)} was trained on another model than {model}; name that one")
    return file


def write_base(folder: Path, run: str, trained: Path) -> None:
    """Says in a run's folder which run of the same project it started from."""
    row = {"run": run, "sha256": trained_hash(trained)}
    write_atomic(folder / BASE_FILE, json.dumps(row, indent=2) + "\n")


def started_from(path: Path) -> Path | None:
    """The `trained_file` of the run that the run of a trained file started from; None where it was the base model.

    Raises:
        BadInput: that run is gone or has changed since.
    """
    file = path.parent / BASE_FILE
    if not file.is_file():
        return None
    row = read_object(file)
    name = checked_name(str(row.get("run")))
    found = trained_file(path.parent.parent / name)
    if not found.is_file():
        raise BadInput(f"{path.parent} started from run {name!r}, which is gone")
    if trained_hash(found) != row.get("sha256"):
        raise BadInput(f"{path.parent} started from run {name!r}, which has changed since; train it again")
    return found


def trained_hash(path: Path) -> str:
    """sha256 of what a run has left and of all that it stands on."""
    base = started_from(path)
    own = sha256_file(path)
    return own if base is None else sha256_json([own, trained_hash(base)])


def fingerprint_with(model: str, trained: Path | None) -> str:
    """The fingerprint of a model with what a run has left on it.

    Args:
        model: the fingerprint of the base model.
    """
    return model if trained is None else sha256_json([model, trained_hash(trained)])


def load_trained(model: VideoModel, path: Path) -> None:
    """Puts on a freshly loaded model what a run has left, on top of what that run started from.

    Args:
        path: a `trained_file`.

    Raises:
        BadInput: the files are not there, are damaged, or are another model's.
    """
    base = started_from(path)
    if base is not None:
        load_trained(model, base)
    if path.name == WEIGHTS_FILE:
        _load_weights(model, path)
    else:
        model.load_adapter(path)


def _load_weights(model: VideoModel, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    names = [str(name) for name in read_object(path) if str(name).endswith(".safetensors")]
    state: dict[str, torch.Tensor] = {}
    for name in names:
        try:
            state |= load_file(path.parent / name)
        except (FileNotFoundError, SafetensorError) as error:
            raise BadInput(f"{path.parent / name} does not load: {error}") from None
    own = {key: tensor.shape for key, tensor in model.denoiser.state_dict().items()}
    is_whole = names != [CHOSEN_FILE]
    if not state or any(own.get(key) != tensor.shape for key, tensor in state.items()):
        raise BadInput(f"{path}: these weights are not of this model")
    if is_whole and state.keys() != own.keys():
        raise BadInput(f"{path}: these weights are not all of this model's")
    model.denoiser.load_state_dict(state, strict=is_whole)
