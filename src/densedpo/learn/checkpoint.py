"""Checkpoints: safetensors and JSON, a manifest written last, a rename, and never a silent start from nothing."""

from __future__ import annotations

import json
import logging
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from pydantic import ConfigDict
from safetensors.torch import load_file, save

from densedpo.core.errors import BadInput
from densedpo.core.files import naming_disk_errors, sync_folder, write_atomic
from densedpo.core.provenance import provenance, sha256_file
from densedpo.core.records import from_row
from densedpo.learn.processes.pieces import PIECES, is_cut, read_pieces, write_pieces
from densedpo.learn.processes.shard import like
from densedpo.learn.processes.team import ALONE, Team

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_log = logging.getLogger("densedpo")
SCHEMA: Final = 1
_MANIFEST: Final = "manifest.json"
_PART: Final = ".tmp-"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainState:
    """All of a run's state that is not a tensor; order, noise and t follow from the step and the config's seeds."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    step: int = 0
    updates: int = 0
    skipped_in_row: int = 0
    num_skipped: int = 0
    num_without_signal: int = 0
    evaluated_step: int | None = None
    best_step: int | None = None
    best_loss: float | None = None
    evaluations_since_best: int = 0
    alarmed_step: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """The state of a run after a step.

    `best` is the adapter of the lowest validation loss and `average` the moving average of adapters, empty if not kept.
    """

    state: TrainState
    adapter: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    best: Mapping[str, Tensor]
    average: Mapping[str, Tensor] = field(default_factory=dict)


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, identity: str, keep: int, team: Team = ALONE) -> Path:
    """Writes a checkpoint whole or not at all, then removes the oldest beyond `keep`; every process must call this.

    What is whole is written by the first process, what is cut over the processes by each of them.

    Args:
        identity: the hash of what the run was made from; a checkpoint of another run is not loaded.

    Raises:
        BadInput: the disk refused, on all processes; the checkpoints that were there still are.
    """
    step = checkpoint.state.step
    target = folder / f"step-{step:06d}"
    part = folder / team.told(f"{_PART}{step:06d}-{uuid.uuid4().hex[:8]}")
    flat = _flat(checkpoint)
    cut = {name: tensor for name, tensor in flat.items() if is_cut(tensor)}
    # a damaged one, which load_latest has gone past, is written again
    if team.maximum(team.is_first and _fault(target, identity) is None):
        return target

    def commit() -> None:
        with naming_disk_errors(target):
            # contiguous copies: safetensors refuses views that share memory
            tensors = {name: tensor.cpu().clone() for name, tensor in flat.items() if name not in cut}
            write_atomic(part / "state.safetensors", save(tensors))
            write_atomic(part / "state.json", json.dumps(asdict(checkpoint.state), indent=2) + "\n")
            if cut:
                sync_folder(part / PIECES)
            manifest = _manifest(part, step, identity, team.size)
            write_atomic(part / _MANIFEST, json.dumps(manifest, indent=2) + "\n")
            sync_folder(part)
            if target.exists():
                shutil.rmtree(target)
            part.rename(target)
            sync_folder(folder)

    try:
        team.first_does(lambda: _make(part))
        if cut:
            write_pieces(part / PIECES, cut)
        team.first_does(commit)
    finally:
        if team.is_first:
            shutil.rmtree(part, ignore_errors=True)
    if team.is_first:
        for old in _steps(folder)[:-keep]:
            shutil.rmtree(old)
    return target


def _make(part: Path) -> None:
    with naming_disk_errors(part):
        part.mkdir(parents=True)


def load_latest(
    folder: Path, *, identity: str, patterns: Mapping[str, Tensor] | None = None, goes_back: bool = True
) -> Checkpoint | None:
    """The newest valid checkpoint; None where none was ever written.

    A damaged one is named in a warning and the one before it is taken. What a killed process left half written is
    removed; the caller holds the run's lock, and the processes of one run may all call this at once.

    Args:
        patterns: the parameters, by name: what was cut over processes comes back cut as they are, or whole.
        goes_back: whether an older one is taken where the newest is damaged.

    Raises:
        BadInput: there are checkpoints and none of them is valid, or the newest is not and none else may be taken.
    """
    for part in list(folder.glob(f"{_PART}*")):
        shutil.rmtree(part, ignore_errors=True)  # another process of the run may be faster
    found = _steps(folder)
    for path in reversed(found):
        fault = _fault(path, identity)
        if fault is None:
            return _load(path, patterns or {})
        if not goes_back:
            raise BadInput(f"checkpoint {path} is not used: {fault}; damaged_checkpoint = 'go_back' takes an older one")
        _log.warning("checkpoint %s is not used: %s", path, fault)
    if found:
        raise BadInput(f"{folder}: no valid checkpoint; remove the folder to start this run again from its first step")
    return None


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """The optimizer's state as named tensors, empty before its first step.

    Args:
        names: of the parameters, in the optimizer's order.
    """
    state = optimizer.state_dict()["state"]
    return {f"{names[index]}|{key}": tensor for index, row in state.items() for key, tensor in row.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, names: list[str], tensors: Mapping[str, Tensor]) -> None:
    """Puts back what `optimizer_tensors` gave."""
    restored = optimizer.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        parameter, _, key = name.rpartition("|")
        # load_state_dict keeps the very tensors, and the optimizer writes into them
        index = names.index(parameter)
        state.setdefault(index, {})[key] = like(tensor.clone(), parameters[index])
    restored["state"] = state
    optimizer.load_state_dict(restored)


def _flat(checkpoint: Checkpoint) -> dict[str, Tensor]:
    parts = {
        "adapter": checkpoint.adapter,
        "optimizer": checkpoint.optimizer,
        "best": checkpoint.best,
        "average": checkpoint.average,
    }
    return {f"{part}/{name}": tensor.detach() for part, row in parts.items() for name, tensor in row.items()}


def _manifest(folder: Path, step: int, identity: str, world_size: int) -> dict[str, object]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        "schema": SCHEMA,
        "step": step,
        "identity": identity,
        "world_size": world_size,
        "random_state": "none: order, noise and t are functions of (seed, step)",
        "files": {
            path.relative_to(folder).as_posix(): {"sha256": sha256_file(path), "size": path.stat().st_size}
            for path in files
        },
        "made": provenance(),
    }


def _fault(path: Path, identity: str) -> str | None:
    """Why a checkpoint cannot be used, None if it can."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"]
        if manifest["schema"] != SCHEMA:
            return f"its schema is {manifest['schema']}, this version reads {SCHEMA}"
        if manifest["identity"] != identity:
            return "it belongs to a run with another config or other inputs"
        for name, recorded in files.items():
            size = (path / name).stat().st_size
            if size != recorded["size"]:
                return f"{name} has {size} bytes instead of {recorded['size']}"
            if sha256_file(path / name) != recorded["sha256"]:
                return f"{name} is damaged"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        return f"{_MANIFEST} is damaged"
    return None if {"state.safetensors", "state.json"} <= set(files) else f"{_MANIFEST} is incomplete"


def _load(path: Path, patterns: Mapping[str, Tensor]) -> Checkpoint:
    tensors = load_file(path / "state.safetensors")
    if (path / PIECES).is_dir():
        tensors |= read_pieces(path / PIECES, patterns)
    row = json.loads((path / "state.json").read_text(encoding="utf-8"))

    def part(name: str) -> dict[str, Tensor]:
        return {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}

    return Checkpoint(
        state=from_row(TrainState, row, str(path / "state.json")),
        adapter=part("adapter"),
        optimizer=part("optimizer"),
        best=part("best"),
        average=part("average"),
    )


def _steps(folder: Path) -> list[Path]:
    """The checkpoint folders in the order of their steps: not of their names, which grow a digit, nor of the clock."""
    found = [path for path in folder.glob("step-*") if path.is_dir() and path.name[5:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[5:]))
