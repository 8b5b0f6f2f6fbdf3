"""A study with less of everything, to be cheaper or to check the machinery; results say what was left out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

from pydantic import Field

from densedpo.core.config import Config

if TYPE_CHECKING:
    from study import Study

AnyConfig = TypeVar("AnyConfig", bound=Config)


class Reduction(Config):
    """What is left out of a study to make it cheaper; results record it, and say that they are of less."""

    seeds: int | None = Field(default=None, ge=1)
    """The first so many seeds."""
    prompts: int | None = Field(default=None, ge=1)
    """So many prompts are measured; for diversity no more than these."""
    pairs: float = Field(default=1.0, gt=0, le=1)
    """Share of the pairs, of the labels about them and of the training clips."""
    steps: int | None = Field(default=None, ge=1)
    """So many training steps, where an arm does not say itself."""
    quick: bool = False
    """Sizes of a few minutes: the machinery is checked and the numbers mean nothing."""

    @property
    def is_none(self) -> bool:
        """Whether nothing is left out."""
        return self == Reduction()

    @property
    def label(self) -> str:
        """What a folder of results is called after, such as `seeds2-prompts128`; empty if nothing is left out."""
        if self.quick:
            return "quick"
        share = "" if self.pairs == 1 else f"{self.pairs:g}"
        parts = {"seeds": self.seeds, "prompts": self.prompts, "pairs": share, "steps": self.steps}
        return "-".join(f"{name}{value}" for name, value in parts.items() if value)


def reduced(study: Study, by: Reduction) -> Study:
    """The study with less of everything."""
    if by.is_none:
        return study
    share = by.pairs
    num_seeds, num_prompts = by.seeds or len(study.seeds), by.prompts or study.measure.num_prompts
    if by.quick:
        share = min(share, 40 / max(pairs.num_pairs for pairs in study.used_pairs().values()))
        num_seeds, num_prompts = min(num_seeds, 2), min(num_prompts, 12)
    world = study.data.world
    held_out = num_prompts if world.num_held_out is None else min(num_prompts, world.num_held_out)
    num_clips = held_out + _part(world.num_clips - (world.num_held_out or 0), share)
    changes: dict[str, object] = {
        "data": _with(study.data, world=_with(world, num_clips=num_clips, num_held_out=held_out)),
        "pairs": {name: _with(pairs, num_pairs=_part(pairs.num_pairs, share)) for name, pairs in study.pairs.items()},
        "labels": {
            name: _with(labels, num_pairs=labels.num_pairs and max(1, math.floor(labels.num_pairs * share)))
            for name, labels in study.labels.items()
        },
        "seeds": study.seeds[:num_seeds],
        "arms": {name: _with(arm, seeds=arm.seeds and arm.seeds[:num_seeds]) for name, arm in study.arms.items()},
        "measure": _with(study.measure, num_prompts=num_prompts),
    }
    if study.diversity is not None:
        of_all = num_prompts / study.measure.num_prompts
        changes["diversity"] = _with(study.diversity, num_prompts=_part(study.diversity.num_prompts, of_all))
    if by.steps is not None:
        changes["learn"] = {**study.learn, "num_steps": by.steps}
    smaller = _with(study, **changes)
    return _quick(smaller) if by.quick else smaller


def _quick(study: Study) -> Study:
    """The fewest steps of everything that still go through all of it."""
    few = {"num_steps": 4, "warmup_steps": 1, "batch_pairs": 4, "eval_every": 2, "eval_pairs": 4, "eval_draws": 1}
    changes: dict[str, object] = {
        "learn": {**study.learn, **few},
        "pairs": {
            name: pairs if pairs.num_steps is None else _with(pairs, num_steps=8) for name, pairs in study.pairs.items()
        },
        # fewer, since which of so few pairs are for validation is chance
        "labels": {
            n: _with(own, num_pairs=own.num_pairs and own.num_pairs * 3 // 4) for n, own in study.labels.items()
        },
        "measure": _with(study.measure, num_steps=4),
    }
    if study.diversity is not None:
        changes["diversity"] = _with(study.diversity, num_steps=4, seeds_per_prompt=2)
    return _with(study, **changes)


def _with(config: AnyConfig, **changes: object) -> AnyConfig:
    """A copy with other values, checked like the first; what was not set stays not set."""
    kept = {name: config.__dict__[name] for name in config.model_fields_set}
    return type(config).model_validate({**kept, **changes})


def _part(count: int, share: float) -> int:
    return max(1, math.ceil(count * share))
