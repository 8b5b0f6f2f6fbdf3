"""One round on the disk: a project of its own, with rollouts, labels, the chosen pairs, and what came of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from pydantic import ConfigDict

from densedpo.core.files import read_object, write_atomic
from densedpo.core.records import Prompt, from_row
from densedpo.core.seeds import generator
from densedpo.core.workspace import PROJECT_FILE, Project, init_project
from densedpo.generate.resume import SETTINGS_FILE
from densedpo.generate.rollouts import PromptVisit, RolloutSettings

if TYPE_CHECKING:
    from densedpo.learn.online.config import OnlineConfig
    from densedpo.learn.online.run import OnlineInputs
    from densedpo.learn.processes.team import Team

ROLLOUTS: Final = "rollouts"
CHOSEN: Final = "chosen"
ROUND_FILE: Final = "round.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundRecord:
    """What a finished round came to. Seconds are those of the call that finished it.

    `judging_seconds` is what the judges took, most of it beside sampling; `waiting_seconds` is what came after it until
    the pairs were chosen. So sampling, waiting and learning add up to the round.
    `policy` is the identity of the weights that made the rollouts; `mean_reward` is over all rollouts that were scored,
    `mean_gap` from the best to the worst of a prompt.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    round: int
    policy: str
    first_step: int
    last_step: int
    num_rollouts: int
    num_pairs: int
    num_tied: int
    num_unscored: int
    mean_reward: float | None
    mean_gap: float | None
    sampling_seconds: float
    judging_seconds: float
    waiting_seconds: float
    learning_seconds: float


def round_project(folder: Path, number: int) -> Project:
    """The project of a round of a run's folder, whether it is there yet or not."""
    return Project(root=folder / "rounds" / f"{number:04d}")


def make_project(project: Project) -> None:
    """Makes a project inside a run if it is missing, so that every verb can look at what lies there."""
    if not (project.root / PROJECT_FILE).is_file():
        init_project(project.root)


def read_round(project: Project) -> RoundRecord | None:
    """What a round came to; None while it is not finished."""
    path = project.root / ROUND_FILE
    return from_row(RoundRecord, read_object(path), str(path)) if path.exists() else None


def write_round(project: Project, record: RoundRecord) -> None:
    """Marks a round as finished."""
    write_atomic(project.root / ROUND_FILE, json.dumps(asdict(record), indent=2) + "\n")


def told_round(record: RoundRecord | None, team: Team) -> RoundRecord | None:
    """What the first process knows of a round, on all of them; what the others give does not count."""
    row = json.loads(team.told(json.dumps(record and asdict(record))))
    return None if row is None else from_row(RoundRecord, row, "a round of the first process")


def policy_of(project: Project) -> str:
    """The identity of the policy that made the rollouts of a round."""
    return str(read_object(project.pairs(ROLLOUTS) / SETTINGS_FILE)["model"])


def drop_rollouts(project: Project) -> None:
    """Removes the clips of a round's rollouts; their rows and scores stay, and so do the chosen pairs."""
    for name in ("latents", "videos"):
        for path in (project.pairs(ROLLOUTS) / name).glob("*"):
            path.unlink()


def rollout_settings(inputs: OnlineInputs, policy: str) -> RolloutSettings:
    """How a run makes its rollouts with the weights of that identity."""
    config = inputs.config
    return RolloutSettings(
        kind=config.kind,
        model=inputs.model,
        policy=policy,
        num_rollouts=config.rollouts,
        num_steps=config.sampler_steps,
        guidance_scale=config.guidance_scale,
        eta_min=config.eta_min,
        eta_max=config.eta_max,
        seed=config.learn.seed,
        pairs_per_batch=config.pairs_per_batch,
        device=config.learn.device,
        dtype=config.learn.precision,
    )


def visits_of(number: int, prompts: Sequence[Prompt], config: OnlineConfig) -> tuple[PromptVisit, ...]:
    """The prompts of a round (from 0): consecutive places of an endless sequence of shuffled epochs.

    With fewer prompts than a round takes, a prompt is visited several times in it, each time with other noise.
    """
    visits = []
    size, count = config.prompts_per_round, len(prompts)
    for place in range(number * size, (number + 1) * size):
        epoch, position = divmod(place, count)
        order = generator(config.learn.seed, "online prompts", epoch).permutation(count)
        visits.append(PromptVisit(prompt=prompts[int(order[position])], visit=epoch))
    return tuple(visits)
