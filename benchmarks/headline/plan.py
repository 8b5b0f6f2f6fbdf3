"""What a study will make and about how long it takes, from counts alone: no torch, no project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from densedpo.core.progress import duration_text

if TYPE_CHECKING:
    from study import Study

# seconds on 2 cores of a CPU with AVX-512, nothing beside it, the shipped model, two runs at a time: from the logs
PAIR_S: Final = 0.8
TRAIN_PAIR_S: Final = 1.0 / 16  # of a training step
CLIP_S: Final = 0.5
DECODED_CLIP_S: Final = 0.7  # by one process
WORLD_CLIP_S: Final = 0.12
LABEL_S: Final = 0.1
RUN_S: Final = 10.0  # loading, evaluations, writing


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Counts of what a study makes in all, done or not."""

    num_world_clips: int
    num_pairs: int
    num_labelled_pairs: int
    num_runs: int
    num_pair_visits: int
    num_measured_clips: int
    num_decoded_clips: int

    @property
    def seconds(self) -> float:
        """About how long all of it takes on 2 cores, from nothing."""
        making = WORLD_CLIP_S * self.num_world_clips + PAIR_S * self.num_pairs + LABEL_S * self.num_labelled_pairs
        training = RUN_S * self.num_runs + TRAIN_PAIR_S * self.num_pair_visits
        return making + training + CLIP_S * self.num_measured_clips + DECODED_CLIP_S * self.num_decoded_clips

    def __str__(self) -> str:
        """The plan in one line."""
        return (
            f"{self.num_world_clips} clips of the world, {self.num_pairs} pairs, {self.num_runs} runs, "
            f"{self.num_measured_clips} generated clips to score: about {duration_text(self.seconds)} on 2 cores, less "
            "what is there already"
        )


def plan(study: Study) -> Plan:
    """Counts everything that a study makes."""
    runs = study.runs()
    clips = study.measure.num_prompts * study.measure.seeds_per_prompt
    if study.diversity is not None:
        clips += study.diversity.num_prompts * study.diversity.seeds_per_prompt
    configs = [study.config_of(study.arms[run.arm], seed=run.seed) for run in runs]
    return Plan(
        num_world_clips=study.data.world.num_clips,
        num_pairs=sum(pairs.num_pairs for pairs in study.used_pairs().values()),
        num_labelled_pairs=sum(study.pairs[labels.pairs].num_pairs for labels in study.used_labels().values()),
        num_runs=len(runs),
        num_pair_visits=sum(config.num_steps * config.window_pairs for config in configs),
        num_measured_clips=(1 + len(runs)) * clips,
        num_decoded_clips=study.measure.num_prompts if study.ceiling else 0,
    )
