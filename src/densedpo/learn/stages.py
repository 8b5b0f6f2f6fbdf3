"""Two training runs from one file of settings: weights first, then preferences on top of them (HuViDPO, 2502.01690).

Each stage is an ordinary run, `NAME-1` and `NAME-2`, that goes on where it was cut; the second starts from the weights
that the first has left, and learns from pairs that the model made with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import model_validator

from densedpo.adapters.trained import trained_file
from densedpo.core.config import Config
from densedpo.core.errors import BadInput
from densedpo.core.workspace import require_fresh
from densedpo.learn.config import LearnConfig
from densedpo.learn.run import learn_offline, read_inputs

if TYPE_CHECKING:
    from densedpo.core.workspace import Project
    from densedpo.learn.run import RunInputs


class StagesConfig(Config):
    """Both stages, each with the settings of `learn offline`."""

    first: LearnConfig = LearnConfig(objective="sft", train="full", eval_every=0)
    """Trains weights of the denoiser (train = 'full') on the real clips; reads no pairs."""
    second: LearnConfig = LearnConfig(objective="dpo")
    """Learns from preferences; starts from the first stage's weights, which are also its reference."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.first.objective, self.first.train, self.first.eval_every) != ("sft", "full", 0):
            raise ValueError("first trains weights on real clips: objective = 'sft', train = 'full', eval_every = 0")
        if self.second.objective == "sft":
            raise ValueError("second learns from preferences: its objective cannot be 'sft'")
        if self.second.start_from is not None:
            raise ValueError("second starts from the first stage: leave out its start_from")
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class Stages:
    """What is asked for; without pairs the first stage alone, whose model is to make them."""

    project: Project
    name: str
    model: str | Path
    config: StagesConfig
    pairs: str | None = None
    preferences: str | None = None
    allow_stale: bool = False

    @property
    def first(self) -> str:
        """The name of the first stage's run."""
        return f"{self.name}-1"

    @property
    def second(self) -> str:
        """The name of the second stage's run."""
        return f"{self.name}-2"


def learn_stages(stages: Stages) -> Path:
    """Runs the first stage, and the second where pairs are named; the same call goes on, and skips what is finished.

    Returns:
        The folder of the last run that it came to.

    Raises:
        BadInput, Interrupted: see `learn_offline`; what the second stage lacks is refused before the first one runs.
    """
    _refuse_early(stages)
    for run in _runs(stages, start_from=stages.first):
        folder = learn_offline(
            stages.project,
            run.name,
            pairs=run.pairs,
            preferences=run.preferences,
            model=stages.model,
            config=run.config,
            allow_stale=stages.allow_stale,
        )
    return folder


def stage_inputs(stages: Stages) -> tuple[RunInputs, ...]:
    """What each stage reads, to estimate its cost; writes nothing.

    Before the first stage is finished the second is read as if it started from the base model, which costs the same.
    """
    _require_both(stages)
    return tuple(
        read_inputs(
            stages.project,
            run.name,
            pairs=run.pairs,
            preferences=run.preferences,
            model=stages.model,
            config=run.config,
            allow_stale=stages.allow_stale,
        )
        for run in _runs(stages, start_from=stages.first if _is_done(stages) else None)
    )


def _is_done(stages: Stages) -> bool:
    return trained_file(stages.project.run(stages.first)).is_file()


def _require_both(stages: Stages) -> None:
    if (stages.pairs is None) != (stages.preferences is None):
        raise BadInput("the second stage takes --pairs and --preferences, the first alone neither: name both or none")


def _refuse_early(stages: Stages) -> None:
    """Refuses a second stage that would be refused after the first has run, perhaps for days."""
    _require_both(stages)
    if stages.pairs is None or stages.preferences is None:
        return
    for artefact in (stages.project.pairs(stages.pairs), stages.project.preferences(stages.preferences)):
        require_fresh(artefact, stages.project, allow_stale=stages.allow_stale)
    if not _is_done(stages):
        raise BadInput(
            f"runs/{stages.first} is not finished, so pairs/{stages.pairs} cannot be its own: run the same command "
            "without --pairs and --preferences first, then make pairs with "
            f"`densedpo generate independent PAIRS --set start_from={stages.first}`"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """One stage as `learn offline` is asked for it."""

    name: str
    config: LearnConfig
    pairs: str | None = None
    preferences: str | None = None


def _runs(stages: Stages, *, start_from: str | None) -> tuple[_Run, ...]:
    """The runs that are asked for.

    Args:
        start_from: the run that the second stage starts from.
    """
    first = _Run(name=stages.first, config=stages.config.first)
    if stages.pairs is None and stages.preferences is None:
        return (first,)
    config = stages.config.second.model_copy(update={"start_from": start_from})
    return first, _Run(name=stages.second, config=config, pairs=stages.pairs, preferences=stages.preferences)
