"""The course of a run, whatever it learns from: one writer, one identity, a record before its first step, a stamp last.

Importing this imports no torch, so that what is refused is refused in a moment.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from densedpo.adapters import catalogue
from densedpo.core.config import Config, dump_toml
from densedpo.core.errors import BadInput
from densedpo.core.files import write_atomic, writing
from densedpo.core.provenance import provenance, sha256_json
from densedpo.core.workspace import Project, read_stamp, write_stamp
from densedpo.learn.processes.launch import World, launched, require_strategy, stated
from densedpo.learn.stop import StopFlag, stop_on_signals

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic import JsonValue

    from densedpo.learn.config import LearnConfig

_log = logging.getLogger("densedpo")
RUN_FILE = "run.json"
# settings that change no result but its last bits: a run goes on under others
_OF_THE_MACHINE: Final = (
    "strategy", "process_timeout_min", "reference_copy", "compile_blocks", "attention", "damaged_checkpoint",
)  # fmt: skip
# settings that runs of an earlier version did not have: left out at their default, so that those runs go on
_ADDED: Final = (
    "flip_rate", "winner_anchor", "stop_on_alarm", "ema_decay", "memory", "checkpoint_activations", "train", "adam_eps",
    "trainable", "start_from", "level_weights",
)  # fmt: skip


class Asked(Protocol):
    """A run that is asked for, its inputs read and checked."""

    @property
    def project(self) -> Project:
        """Where it belongs."""

    @property
    def name(self) -> str:
        """Its name among the project's runs."""

    @property
    def model(self) -> str:
        """The base model, as it was named."""

    @property
    def folder(self) -> Path:
        """Where it is written."""

    @property
    def settings(self) -> Config:
        """What it leaves as config.toml."""

    @property
    def training(self) -> LearnConfig:
        """The settings of its steps."""

    @property
    def artefacts(self) -> tuple[Path, ...]:
        """What it reads of the project, for its stamp."""

    def identity(self) -> dict[str, JsonValue]:
        """What makes this run this run: the same again goes on, anything else is refused."""

    def items(self) -> dict[str, JsonValue]:
        """The ids of what it learns from and is measured on, for run.json."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InForce:
    """How the denoiser ran, read back from it: dtypes of weights and products, and what else was asked for."""

    trained: str
    trained_weights: str
    frozen_weights: str
    products: str
    recomputes_activations: bool
    compiled_blocks: int
    attention: str

    def text(self) -> str:
        """In words, for the log."""
        said = [
            f"{self.trained} in {self.trained_weights}",
            f"the rest in {self.frozen_weights}",
            f"products in {self.products}",
            "activations computed again in the backward" if self.recomputes_activations else "",
            f"{self.compiled_blocks} compiled blocks" if self.compiled_blocks else "",
            f"attention: {self.attention}" if self.attention != "default" else "",
        ]
        return ", ".join(filter(None, said))


def carry_out(asked: Asked, work: Callable[[str, StopFlag, World], DataclassInstance]) -> Path:
    """Does a run's work in its folder, or goes on with it; returns at once where it was finished.

    Args:
        work: gets the hash of the run's identity, which its checkpoints carry; what to ask wherever it can end; and
            which process this is. What it returns becomes summary.json.

    Returns:
        The run's folder.

    Raises:
        BadInput: the strategy cannot be carried out, another process writes there, or the folder holds another run.
        Interrupted: asked to stop; the same call goes on.
    """
    folder, world = asked.folder, launched()
    require_strategy(asked.training, world)
    with writing(folder) if world.is_first else nullcontext():
        identity = asked.identity()
        if world.is_first:
            require_same_run(folder, identity)
        if read_stamp(folder) is not None:
            _log.warning("%s is finished already", folder)
            return folder
        if world.is_first:
            write_record(asked, identity, strategy=stated(asked.training, world))
        with stop_on_signals() as flag:  # before the seconds that importing torch takes
            summary = work(sha256_json(identity), flag, world)
        if world.is_first:
            write_atomic(folder / "summary.json", json.dumps(asdict(summary), indent=2) + "\n")
            write_stamp(folder, asked.artefacts, asked.project)
    return folder


def require_layers(model: str | Path, config: LearnConfig) -> None:
    """Refuses names of layers or weights that the denoiser does not have, by the heads of its files alone.

    Raises:
        BadInput: names what was not found.
    """
    if not config.lora_targets and not config.trainable:
        return
    names = catalogue.weight_names(model)
    missing = [
        target
        for target in config.lora_targets or ()
        if not any(name == f"{target}.weight" or name.endswith(f".{target}.weight") for name in names)
    ]
    if missing:
        raise BadInput(f"lora_targets: no layer of the denoiser is called {', '.join(missing)}")
    for pattern in config.trainable or ():
        if not any(fnmatchcase(name, pattern) for name in names):
            raise BadInput(
                f"trainable: no weight of the denoiser matches {pattern!r}; its weights have names such as {names[0]}"
            )


def settings_identity(config: LearnConfig) -> dict[str, JsonValue]:
    """The settings that make a run this run, without those of the machine."""
    defaults = type(config).model_construct().model_dump(mode="json")  # what is required has none, and is left out
    return {
        name: value
        for name, value in config.model_dump(mode="json").items()
        if name not in _OF_THE_MACHINE and not (name in _ADDED and value == defaults[name])
    }


def require_same_run(folder: Path, identity: dict[str, JsonValue]) -> None:
    """Refuses a folder that holds another run.

    Raises:
        BadInput: names every setting and input that differs.
    """
    path = folder / RUN_FILE
    if not path.exists():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))["identity"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise BadInput(f"{path} is damaged; name another run, or remove the folder") from None
    differences = _differences(before, identity)
    if differences:
        raise BadInput(f"{folder} holds another run: {'; '.join(differences)}; name another run or remove the folder")


def write_record(asked: Asked, identity: Mapping[str, JsonValue], *, strategy: str) -> None:
    """config.toml and run.json, before the first step; a run that goes on keeps its first run.json."""
    folder, training = asked.folder, asked.training
    if (folder / RUN_FILE).exists():
        return
    row: dict[str, JsonValue] = {
        "name": asked.name,
        "model": asked.model,
        "identity": dict(identity),
        "seeds": {"seed": training.seed, "noise_seed": training.noise_seed},
        "strategy": strategy,
        **asked.items(),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "made": provenance(),
    }
    write_atomic(folder / "config.toml", dump_toml(asked.settings))
    write_atomic(folder / RUN_FILE, json.dumps(row, indent=2) + "\n")


def _differences(before: object, now: object, name: str = "") -> Sequence[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = list(dict.fromkeys([*before, *now]))
        return [
            line
            for key in keys
            for line in _differences(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
        ]
    return [] if before == now else [f"{name} was {_short(before)}, is {_short(now)}"]


def _short(value: object) -> str:
    text = json.dumps(value)
    return f"{text[:13]}..." if len(text) > 40 else text
