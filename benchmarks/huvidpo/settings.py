"""What the study is: clips, both stages, the person who scores and the arms, as a TOML file says. Imports no torch."""

from __future__ import annotations

from typing import Final, Literal, Self

from of_headline import Run
from pydantic import Field, model_validator

from densedpo.core.config import Config
from densedpo.core.progress import duration_text
from densedpo.data.config import DataConfig
from densedpo.generate.config import IndependentConfig
from densedpo.learn.config import LearnConfig
from densedpo.learn.stages import StagesConfig
from densedpo.measure.config import MeasureConfig

STAGE: Final = "stage"
"""Of both stages: `learn stages` calls the run of the first one `stage-1`."""

# seconds on 2 cores of a CPU with AVX-512 and nothing beside it, the shipped model, two runs at a time
WORLD_CLIP_S: Final = 0.12
REAL_CLIP_VISIT_S: Final = 1.0 / 24  # of a step of stage 1, by one process
SAMPLED_PAIR_S: Final = 0.8
SCORED_CLIP_S: Final = 0.1
REGROUPED_PAIR_S: Final = 0.15
PAIR_VISIT_S: Final = 1.0 / 16  # of a step of stage 2
CLIP_S: Final = 0.5
DECODED_CLIP_S: Final = 0.7
RUN_S: Final = 10.0


class PersonConfig(Config):
    """How the stand-in for a person scores a clip from 1 to 5."""

    shares: tuple[float, float, float, float] = (0.2, 0.4, 0.6, 0.8)
    """A clip that the oracle sets above so large a share of all clips has that many points above 1."""
    error_rate: float = Field(0.1, ge=0, le=1)
    """Share of clips that get a neighbouring score instead, one point more or less."""
    seed: int = Field(0, ge=0)
    """Which clips those are, and which way."""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if list(self.shares) != sorted(set(self.shares)) or not 0 < self.shares[0] < self.shares[-1] < 1:
            raise ValueError(f"shares ascend between 0 and 1, not {self.shares}")
        return self


class ScoredClips(Config):
    """Which clips are made for the person to score."""

    num_prompts: int = Field(ge=1)
    """Training prompts; each gets a first frame."""
    clips_per_prompt: int = Field(ge=2, multiple_of=2)
    """That continue the same frame from different noises."""
    frame_seed: int = Field(0, ge=0)
    """Of the place and the phase at which the first frames are drawn, and of the order of the prompts."""
    clips: IndependentConfig = IndependentConfig()
    """As `generate independent` makes them; how many, from which run and from which frames is the study's business."""


class Arm(Config):
    """One way to learn from the scores; `learn` is laid over the second stage's settings."""

    choose: Literal["all", "best_worst"]
    learn: dict[str, object] = Field(default_factory=dict)


class Study(Config):
    """The whole study; the first stage's model is the pre-trained one that every arm is set against."""

    model: str = "tiny"
    data: DataConfig
    stages: StagesConfig
    scored: ScoredClips
    person: PersonConfig = PersonConfig()
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    arms: dict[str, Arm]
    contrasts: tuple[tuple[str, str], ...] = ()
    measure: MeasureConfig

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for arm in self.arms.values():
            self.config_of(arm, seed=0)
        for name in (name for both in self.contrasts for name in both):
            if name not in self.arms:
                raise ValueError(f"{name!r} is compared, but no arm has this name")
        world = self.data.world
        if world.num_held_out is None or world.num_held_out < self.measure.num_prompts:
            raise ValueError("data.world.num_held_out is given and at least measure.num_prompts")
        for key in ("num_pairs", "start_from", "first_frames", "splits"):
            if key in self.scored.clips.model_fields_set:
                raise ValueError(f"scored.clips.{key} is set by the study itself; leave it out")
        return self

    def config_of(self, arm: Arm, *, seed: int) -> LearnConfig:
        """The second stage of one run; the seed is that of its order, its adapter and its noise."""
        given = self.stages.second.model_dump(exclude_unset=True)
        settings = {**given, **arm.learn, "seed": seed, "noise_seed": seed, "start_from": f"{STAGE}-1"}
        return LearnConfig.model_validate(settings)

    def runs(self) -> list[Run]:
        """Every run of the second stage, seed by seed, so that a cut study holds whole rounds."""
        return [Run(arm=arm, seed=seed) for seed in self.seeds for arm in self.arms]

    def chosen(self) -> tuple[str, ...]:
        """The ways to pair scored clips that an arm learns from."""
        return tuple(dict.fromkeys(arm.choose for arm in self.arms.values()))


def pairs_name(choose: str) -> str:
    """Of the set of pairs that scored clips make, and of the preferences about it."""
    return choose.replace("_", "-")


def plan_text(study: Study) -> str:
    """What the study makes in all, done or not, and about how long it takes on 2 cores."""
    first, scored, runs, measured = study.stages.first, study.scored, study.runs(), study.measure
    num_visits_first = 2 * first.window_pairs * first.num_steps
    num_scored = scored.num_prompts * scored.clips_per_prompt
    per_prompt = {"all": scored.clips_per_prompt * (scored.clips_per_prompt - 1) // 2, "best_worst": 1}
    num_regrouped = scored.num_prompts * sum(per_prompt[choose] for choose in study.chosen())
    configs = [study.config_of(study.arms[run.arm], seed=run.seed) for run in runs]
    num_visits = sum(config.num_steps * config.window_pairs for config in configs)
    num_measured = (2 + len(runs)) * measured.num_prompts * measured.seeds_per_prompt
    making, scoring = SAMPLED_PAIR_S * num_scored / 2, SCORED_CLIP_S * num_scored
    measuring = CLIP_S * num_measured + DECODED_CLIP_S * measured.num_prompts
    seconds = {
        f"{study.data.world.num_clips} clips of the world": WORLD_CLIP_S * study.data.world.num_clips,
        f"stage 1, {first.num_steps} steps of {2 * first.window_pairs} clips": REAL_CLIP_VISIT_S * num_visits_first,
        f"{num_scored} clips of {scored.num_prompts} frames, made and scored": making + scoring,
        f"at most {num_regrouped} pairs of them": REGROUPED_PAIR_S * num_regrouped,
        f"stage 2, {len(runs)} runs": RUN_S * len(runs) + PAIR_VISIT_S * num_visits,
        f"{num_measured} clips to measure, and {measured.num_prompts} decoded ones": measuring,
    }
    lines = [f"{what}: about {duration_text(each)}" for what, each in seconds.items()]
    total = duration_text(sum(seconds.values()))
    return "\n".join([*lines, f"in all about {total} on 2 cores, less what is there already"])
