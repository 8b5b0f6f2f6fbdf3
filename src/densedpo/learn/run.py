"""One training run from a project's pairs and preferences to an adapter: refuses first, then loads torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from densedpo.adapters import catalogue
from densedpo.adapters.trained import WEIGHTS_FILE, fingerprint_with, trained_by, write_base
from densedpo.core.errors import BadInput
from densedpo.core.workspace import Project, content_hash, require_fresh
from densedpo.judge.preferences import changed_labels
from densedpo.learn.course import InForce, carry_out, require_layers, settings_identity
from densedpo.learn.feed.inputs import LabelledPair, RealClip, read_clips, read_pairs
from densedpo.learn.feed.splits import PairSplits, split_pairs

if TYPE_CHECKING:
    from pydantic import JsonValue

    from densedpo.learn.config import LearnConfig
    from densedpo.learn.processes.launch import World
    from densedpo.learn.stop import StopFlag


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

    @property
    def settings(self) -> LearnConfig:
        """What it leaves as config.toml: the settings of its steps."""
        return self.config

    @property
    def training(self) -> LearnConfig:
        """The settings of its steps."""
        return self.config

    def identity(self) -> dict[str, JsonValue]:
        """What makes this run this run: the same again goes on, anything else is refused."""
        return {
            "config": settings_identity(self.config),
            "inputs": {self.project.relative(path): content_hash(path, self.project) for path in self.artefacts},
            "model": self.fingerprint,
        }

    def items(self) -> dict[str, JsonValue]:
        """The ids of what it learns from and is measured on, known before it starts."""
        return {
            "train_clips": [clip.id for clip in self.clips],
            "train_pairs": [pair.id for pair in self.splits.train],
            "validation_pairs": [pair.id for pair in self.splits.validation],
            "left_out_pairs": [pair.id for pair in self.splits.left_out],
        }


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

    def work(identity: str, flag: StopFlag, world: World) -> RunSummary:
        from densedpo.learn.session import run_session

        if world.is_first and inputs.start is not None and config.start_from is not None:
            write_base(inputs.folder, config.start_from, inputs.start)
        return run_session(inputs, identity=identity, flag=flag, world=world)

    return carry_out(inputs, work)


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
    require_layers(model, config)
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
