"""One online run of a project, from prompts to an adapter: refuses first, then loads torch."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from densedpo.adapters import catalogue
from densedpo.core.records import Prompt
from densedpo.core.workspace import Project, content_hash, require_fresh
from densedpo.generate.prompts import select_prompts
from densedpo.learn.course import InForce, carry_out, require_layers, settings_identity
from densedpo.learn.online.rewards import check_choice

if TYPE_CHECKING:
    from pydantic import JsonValue

    from densedpo.learn.config import LearnConfig
    from densedpo.learn.online.config import OnlineConfig
    from densedpo.learn.processes.launch import World
    from densedpo.learn.stop import StopFlag

_log = logging.getLogger("densedpo")
# settings that change no result: a run goes on under others
_OF_THE_MACHINE: Final = frozenset({"judge_patience_min", "keep_rollouts"})


@dataclass(frozen=True, kw_only=True, slots=True)
class OnlineInputs:
    """Everything an online run reads, checked."""

    project: Project
    name: str
    model: str
    fingerprint: str
    config: OnlineConfig
    prompts: tuple[Prompt, ...]
    guard_prompts: tuple[Prompt, ...]

    @property
    def folder(self) -> Path:
        """Where the run is written."""
        return self.project.run(self.name)

    @property
    def settings(self) -> OnlineConfig:
        """What it leaves as config.toml, with the number of its steps."""
        return self.config.model_copy(update={"learn": self.config.training})

    @property
    def training(self) -> LearnConfig:
        """The settings of its steps."""
        return self.config.training

    @property
    def artefacts(self) -> tuple[Path, ...]:
        """What it reads of the project: its prompts and clips."""
        return (self.project.clips,)

    def identity(self) -> dict[str, JsonValue]:
        """What makes this run this run: the same again goes on, anything else is refused."""
        config = self.config.model_dump(mode="json", exclude={"learn"})
        return {
            # the steps' settings stand where those of an offline run do
            "config": {
                **settings_identity(self.training),
                "online": {name: value for name, value in config.items() if name not in _OF_THE_MACHINE},
            },
            "inputs": {self.project.relative(self.project.clips): content_hash(self.project.clips, self.project)},
            "model": self.fingerprint,
        }

    def items(self) -> dict[str, JsonValue]:
        """The ids of its prompts; those of the pairs that it makes of them are added at its end."""
        return {
            "prompts": [prompt.id for prompt in self.prompts],
            "guard_prompts": [prompt.id for prompt in self.guard_prompts],
            # of an offline run, whose pairs are known before it starts
            "train_pairs": [],
            "validation_pairs": [],
            "left_out_pairs": [],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class OnlineSummary:
    """How an online run ended, as in its summary.json. Seconds as in `RoundRecord`; what is in force is read back."""

    folder: str
    rounds: int
    empty_rounds: int
    steps: int
    refreshes: int
    num_rollouts: int
    num_pairs: int
    selected_step: int
    stopped_early: str | None
    sampling_seconds: float
    judging_seconds: float
    waiting_seconds: float
    learning_seconds: float
    strategy: str
    in_force: InForce


def learn_online(
    project: Project, name: str, *, model: str | Path = "tiny", config: OnlineConfig, allow_stale: bool = False
) -> Path:
    """Trains a LoRA on pairs that the policy in force makes and a reward judges, into `runs/<name>`.

    The same call again goes on where a run was cut, in whichever phase, and returns at once where it was finished.

    Args:
        model: a diffusers directory or `tiny`.

    Returns:
        The run's folder.

    Raises:
        BadInput: an input is missing, stale or does not fit, the run folder was made from others, or rounds give no
            pairs.
        Interrupted: asked to stop, or a judge stayed away; the same call goes on.
    """
    inputs = read_online_inputs(project, name, model=model, config=config, allow_stale=allow_stale)

    def work(identity: str, flag: StopFlag, world: World) -> OnlineSummary:
        from densedpo.learn.online.session import run_online

        return run_online(inputs, identity=identity, flag=flag, world=world)

    return carry_out(inputs, work)


def read_online_inputs(
    project: Project, name: str, *, model: str | Path, config: OnlineConfig, allow_stale: bool
) -> OnlineInputs:
    """Reads and checks all that an online run needs; imports no torch and writes nothing."""
    project.run(name)  # a name that cannot be one is refused first
    require_fresh(project.clips, project, allow_stale=allow_stale)
    require_layers(model, config.training)
    guards = [config.guard.judge] if config.guard.judge is not None else []
    for choice in (*config.rewards, *guards):
        check_choice(choice, segment_seconds=config.segment_seconds)
    if config.guard.every and not guards:
        _log.warning("no held-out judge (guard.judge): the guard knows motion, diversity and saturation alone")
    seed = config.learn.seed
    is_guided = config.kind == "guided"
    prompts = select_prompts(project, ["train"], seed=seed, allow_clipless=not is_guided)
    guard_prompts: tuple[Prompt, ...] = ()
    if config.guard.every:
        found = select_prompts(project, ["validation"], seed=seed, allow_clipless=True)
        guard_prompts = found[: config.guard.num_prompts]
        if len(guard_prompts) < config.guard.num_prompts:
            _log.warning(
                "the guard looks at %d prompts, not %d: there are no more of validation",
                len(guard_prompts), config.guard.num_prompts,
            )  # fmt: skip
    return OnlineInputs(
        project=project,
        name=name,
        model=str(model),
        fingerprint=catalogue.fingerprint(model),
        config=config,
        prompts=prompts,
        guard_prompts=guard_prompts,
    )
