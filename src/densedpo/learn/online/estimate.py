"""What an online run will take: `densedpo learn online ... --dry-run`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from densedpo.core.progress import duration_text
from densedpo.generate.estimate import estimate, size_text
from densedpo.generate.rollouts import plan_rollouts
from densedpo.learn.online.round import ROLLOUTS, rollout_settings, visits_of

if TYPE_CHECKING:
    from densedpo.learn.online.run import OnlineInputs


@dataclass(frozen=True, kw_only=True, slots=True)
class OnlineEstimate:
    """How much a run makes, and what its sampling takes; judging and learning come on top."""

    num_rounds: int
    num_clips: int
    num_prompts: int
    num_steps: int
    num_looks: int
    clips_in_look: int
    sampling_s: float
    disk_bytes: int
    memory_bytes: int

    def __str__(self) -> str:
        """The estimate in one line."""
        looks = f", {self.num_looks} looks of {self.clips_in_look} clips" if self.num_looks else ""
        return (
            f"{self.num_rounds} rounds: {self.num_clips} clips of {self.num_prompts} prompts, {self.num_steps} "
            f"steps{looks}; sampling about {duration_text(self.sampling_s)}, {size_text(self.disk_bytes)} of disk, "
            f"{size_text(self.memory_bytes)} of memory at the peak of sampling; judging and learning come on top"
        )


def estimate_online(inputs: OnlineInputs) -> OnlineEstimate:
    """Times one step of one batch of rollouts on the run's device; writes nothing."""
    config = inputs.config
    project, visits = inputs.project, visits_of(0, inputs.prompts, config)
    plan = plan_rollouts(project, project, ROLLOUTS, visits, rollout_settings(inputs, inputs.fingerprint)).pairs
    one_round = estimate(plan, plan.pairs)
    num_clips = config.num_rounds * config.prompts_per_round * config.rollouts
    num_looks = len({*range(0, config.num_rounds, config.guard.every), config.num_rounds}) if config.guard.every else 0
    clips_in_look = 2 * len(inputs.guard_prompts)
    share = (num_clips + num_looks * clips_in_look) / (2 * len(plan.pairs))
    return OnlineEstimate(
        num_rounds=config.num_rounds,
        num_clips=num_clips,
        num_prompts=len(inputs.prompts),
        num_steps=config.training.num_steps,
        num_looks=num_looks,
        clips_in_look=clips_in_look,
        sampling_s=share * one_round.time_s,
        disk_bytes=round(share * one_round.disk_bytes),
        memory_bytes=one_round.memory_bytes,
    )
