"""A model with a fresh adapter and a task over some pairs, for the tests of single steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from densedpo.adapters import load
from densedpo.learn.config import LearnConfig
from densedpo.learn.feed.batch import Draws, Source
from densedpo.learn.feed.inputs import LabelledPair
from densedpo.learn.feed.order import TimeDensity
from densedpo.learn.reference import attach_lora
from densedpo.learn.step import build_optimizer, take_step
from densedpo.learn.task.preference import PreferenceTask

FRESH = Draws(noise_seed=0, count="fresh", density=TimeDensity(t_min=0, t_max=1, mean=0, std=1))


class Bench:
    """A model with a fresh adapter, a task over some pairs and an optimizer."""

    def __init__(self, folder: Path, pairs: Sequence[LabelledPair], **settings: object) -> None:
        self.config = LearnConfig.model_validate({"batch_pairs": 2, "lora_rank": 4, "learning_rate": 1e-2} | settings)
        self.model = load(folder)
        self.parameters = attach_lora(self.model, self.config)
        self.task = PreferenceTask(self.model, Source(self.model), pairs, FRESH, self.config, None)
        self.optimizer = build_optimizer(self.parameters, self.config)

    def step(self, step: int = 1, update: int = 0):
        return take_step(self.task, self.optimizer, self.config, step=step, update=update, poll=lambda: None)

    def adapter(self) -> dict[str, torch.Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
