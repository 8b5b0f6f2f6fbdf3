"""One optimizer step: a whole window of forwards, one division by its total weight, and the guards."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from densedpo.learn.processes.shard import whole
from densedpo.learn.processes.team import ALONE, Team

if TYPE_CHECKING:
    from densedpo.learn.config import LearnConfig
    from densedpo.learn.task.protocol import Outcome, Task


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """What a step did. `updated` is false where the window had no signal or was not finite."""

    outcomes: tuple[Outcome, ...]
    weight: float
    loss: float
    grad_norm: float
    learning_rate: float
    updated: bool

    @property
    def has_signal(self) -> bool:
        """Whether any item of the window carried a label."""
        return self.weight > 0

    @property
    def is_finite(self) -> bool:
        """Whether loss and gradient were numbers; a finite loss can have a gradient that is not."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


def build_optimizer(parameters: Mapping[str, torch.nn.Parameter], config: LearnConfig) -> torch.optim.AdamW:
    """AdamW over the adapter, in the order of the names."""
    return torch.optim.AdamW(
        list(parameters.values()),
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_eps,
        weight_decay=config.weight_decay,
    )


def learning_rate_at(update: int, config: LearnConfig) -> float:
    """The learning rate of an update (from 0): linear warm-up that ends at the peak, then the schedule."""
    if update < config.warmup_steps:
        return config.learning_rate * (update + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    rest = max(1, config.num_steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, (update - config.warmup_steps) / rest)))


def take_step(
    task: Task,
    optimizer: torch.optim.AdamW,
    config: LearnConfig,
    *,
    step: int,
    update: int,
    poll: Callable[[], None],
    team: Team = ALONE,
) -> StepResult:
    """Backward over the whole window, clipping, and an update if loss and gradient are finite.

    The weights come from labels alone, so the divisor is known before the first backward and the window's gradient does
    not depend on how it is cut into forwards. A window of weight 0 runs nothing.

    Args:
        update: how many updates were made before; the schedule counts these.
        poll: called before each forward; may raise to stop, and nothing of the step has happened then.
        team: shares out each forward; loss, gradient and the decision to update are those of all processes together.
    """
    window = task.window(step)
    total_weight = sum(task.weight(visits) for visits in window)
    learning_rate = learning_rate_at(update, config)
    if total_weight == 0:
        return StepResult(outcomes=(), weight=0.0, loss=0.0, grad_norm=0.0, learning_rate=learning_rate, updated=False)
    optimizer.zero_grad(set_to_none=True)
    parts = []
    for visits in window:
        poll()
        parts.append(task.backward(team.part(visits), total_weight / team.gradient_scale))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    team.sum_gradients(parameters)
    outcomes = team.gathered(parts, window)
    grad_norm = float(whole(torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)))
    loss = sum(float(outcome.loss.sum()) for outcome in outcomes) / total_weight
    updated = math.isfinite(loss) and math.isfinite(grad_norm)
    if updated:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return StepResult(
        outcomes=tuple(outcomes),
        weight=total_weight,
        loss=loss,
        grad_norm=grad_norm,
        learning_rate=learning_rate,
        updated=updated,
    )
