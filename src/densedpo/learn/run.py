"""One training run from a project's pairs and preferences to an adapter: refuses first, then loads torch."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from densedpo.adapters import catalogue
from densedpo.adapters.trained import WEIGHTS_FILE, fingerprint_with, trained_by, write_base
from densedpo.core.config import Config, dump_toml
from densedpo.core.errors import BadInput
from densedpo.core.files import write_atomic, writing
from densedpo.core.provenance import provenance, sha256_json
from densedpo.core.workspace import Project, content_hash, read_stamp, require_fresh, write_stamp
from densedpo.judge.preferences import changed_labels
from densedpo.learn.feed.inputs import LabelledPair, PairSplits, RealClip, read_clips, read_pairs, split_pairs
from densedpo.learn.processes.launch import launched, require_strategy, stated
from densedpo.learn.stop import stop_on_signals

if TYPE_CHECKING:
    from pydantic import JsonValue

    from densedpo.learn.config import LearnConfig

_log = logging.getLogger("densedpo")
RUN_FILE = "run.json"
# settings that change no result but its last bits: a run goes on under others
_OF_THE_MACHINE: Final = ("strategy", "process_timeout_min", "reference_copy", "compile_blocks", "attention")
# settings that runs of an earlier version did not have: left out at their default, so that those runs go on
_ADDED: Final = (
    "flip_rate", "winner_anchor", "stop_on_alarm", "ema_decay", "memory", "checkpoint_activations", "train", "adam_eps",
    "trainable", "start_from", "level_weights",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class RunInputs:
    """Everything a run reads, checked; the artefacts among it are hashed in the run's identity.

    `start` is what the run stands on, the file of another run's weights, and `fingerprint` is of the model with them.
    """

    project: Project
    name: str
    model: str
    fingerprint: str
    config: LearnConfig
    splits: PairSplits
    clips: tuple[RealClip, ...]
    pairs_folder: Path | None
    artefacts: tuple[Path, ...]
    start: Path | None = None

    @property
    def folder(self) -> Path:
        """Where the run is written."""
        return self.project.run(self.name)

    def identity(self) -> dict[str, JsonValue]:
        """What makes this run this run: the same again goes on, anything else is refused."""
        return {
            "config": settings_identity(self.config),
            "inputs": {self.project.relative(path): content_hash(path, self.project) for path in self.artefacts},
            "model": self.fingerprint,
        }


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


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """How a run ended, as in its summary.json.

    `first_logit_max` is the largest |u| before the first step with cached reference errors: 0 if they were exact.
    `memory` is what memory = "auto" came to, `strategy` what was in force at the end.
    """

    folder: str
    steps: int
    selected_step: int
    skipped_steps: int
    steps_without_signal: int
    train_pairs: int
    validation_pairs: int
    too_tied_pairs: int
    reference_fill_seconds: float
    first_logit_max: float | None
    memory: str
    strategy: str
    in_force: InForce
    train_seconds: float


def learn_offline(
    project: Project,
    name: str,
    *,
    pairs: str | None,
    preferences: str | None,
    model: str | Path = "tiny",
    config: LearnConfig,
    allow_stale: bool = False,
) -> Path:
    """Trains a LoRA or weights on labelled pairs (or, with objective sft, on real clips) into `runs/<name>`.

    The same call again goes on where a run was cut, and returns at once where it was finished.

    Args:
        pairs: the name of a set of pairs; with sft they are only measured on, and may be left out.
        preferences: the name of a set of preferences over these pairs.
        model: a diffusers directory or `tiny`: the model that made the pairs, as it was at the run's start.

    Returns:
        The run's folder.

    Raises:
        BadInput: an input is missing, stale or does not fit, or the run folder was made from others.
        Interrupted: asked to stop; the same call goes on.
    """
    inputs = read_inputs(
        project,
        name,
        pairs=pairs,
        preferences=preferences,
        model=model,
        config=config,
        allow_stale=allow_stale,
    )
    world = launched()
    require_strategy(config, world)
    with writing(inputs.folder) if world.is_first else nullcontext():
        identity = inputs.identity()
        if world.is_first:
            require_same_run(inputs.folder, identity)
        if read_stamp(inputs.folder) is not None:
            _log.warning("%s is finished already", inputs.folder)
            return inputs.folder
        if world.is_first:
            write_run_file(inputs, identity, strategy=stated(config, world))
        with stop_on_signals() as flag:  # before the seconds that the import takes
            # torch only now: what is refused above is refused in a moment
            from densedpo.learn.session import run_session

            summary = run_session(inputs, identity=sha256_json(identity), flag=flag, world=world)
        if world.is_first:
            write_atomic(inputs.folder / "summary.json", json.dumps(asdict(summary), indent=2) + "\n")
            write_stamp(inputs.folder, inputs.artefacts, project)
    return inputs.folder


def read_inputs(
    project: Project,
    name: str,
    *,
    pairs: str | None,
    preferences: str | None,
    model: str | Path,
    config: LearnConfig,
    allow_stale: bool,
) -> RunInputs:
    """Reads and checks all that a run needs; imports no torch and writes nothing."""
    project.run(name)  # a name that cannot be one is refused first
    is_sft, splits, folder = config.objective == "sft", PairSplits(train=(), validation=(), num_too_tied=0), None
    above = [project.clips] if is_sft else []
    start = None if config.start_from is None else _start(project, name, model, config, allow_stale=allow_stale)
    if config.start_from is not None:
        above.append(project.run(config.start_from))
    if pairs is not None and preferences is not None:
        folder = project.pairs(pairs)
        above = [folder, project.preferences(preferences), *above]
    elif not is_sft or config.eval_every or pairs is not None or preferences is not None:
        raise BadInput("name --pairs and --preferences; only objective = 'sft' with eval_every = 0 goes without both")
    for artefact in above:
        require_fresh(artefact, project, allow_stale=allow_stale)
    fingerprint = fingerprint_with(catalogue.fingerprint(model), start)
    if folder is not None and preferences is not None:
        labelled = _labelled(project, folder, preferences, model, fingerprint, config, allow_stale=allow_stale)
        splits = split_pairs(labelled, config)
    return RunInputs(
        project=project,
        name=name,
        model=str(model),
        fingerprint=fingerprint,
        config=config,
        splits=splits,
        clips=read_clips(project.clips, catalogue.vae_fingerprint(model)) if is_sft else (),
        pairs_folder=folder,
        artefacts=tuple(above),
        start=start,
    )


def _labelled(
    project: Project,
    folder: Path,
    preferences: str,
    model: str | Path,
    fingerprint: str,
    config: LearnConfig,
    *,
    allow_stale: bool,
) -> tuple[LabelledPair, ...]:
    """The pairs of a run with their labels."""
    file = project.preferences(preferences)
    changed = None if allow_stale else changed_labels(project, preferences)
    if changed is not None:
        raise BadInput(f"{project.relative(file)} is stale: {changed}; export them again, or pass --allow-stale")
    return read_pairs(
        folder,
        file,
        catalogue.geometry(model),
        fingerprint,
        clips=project.clips if config.fold is not None else None,
        allow_failed_judge=config.allow_failed_judge,
    )


def _start(project: Project, name: str, model: str | Path, config: LearnConfig, *, allow_stale: bool) -> Path:
    """The weights that a run starts from."""
    assert config.start_from is not None
    if config.start_from == name:
        raise BadInput(f"start_from = {name!r}: a run cannot start from itself")
    start = trained_by(project, config.start_from, model=model, allow_stale=allow_stale)
    if start.name != WEIGHTS_FILE:
        raise BadInput(f"start_from = {config.start_from!r}: that run has left an adapter; one with train = 'full' can")
    return start


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


def write_run_record(folder: Path, config: Config, row: Mapping[str, JsonValue]) -> None:
    """config.toml and run.json, before the first step; a run that goes on keeps its first run.json.

    Args:
        row: what the run was asked for; when it began and what made it are added.
    """
    if (folder / RUN_FILE).exists():
        return
    began: dict[str, JsonValue] = {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "made": provenance(),
    }
    write_atomic(folder / "config.toml", dump_toml(config))
    write_atomic(folder / RUN_FILE, json.dumps({**row, **began}, indent=2) + "\n")


def write_run_file(inputs: RunInputs, identity: dict[str, JsonValue], *, strategy: str) -> None:
    """`write_run_record` of a run on pairs that are known before it starts."""
    row: dict[str, JsonValue] = {
        "name": inputs.name,
        "model": inputs.model,
        "identity": identity,
        "seeds": {"seed": inputs.config.seed, "noise_seed": inputs.config.noise_seed},
        "strategy": strategy,
        "train_clips": [clip.id for clip in inputs.clips],
        "train_pairs": [pair.id for pair in inputs.splits.train],
        "validation_pairs": [pair.id for pair in inputs.splits.validation],
        "left_out_pairs": [pair.id for pair in inputs.splits.left_out],
    }
    if inputs.start is not None and inputs.config.start_from is not None:
        write_base(inputs.folder, inputs.config.start_from, inputs.start)
    write_run_record(inputs.folder, inputs.config, row)


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
