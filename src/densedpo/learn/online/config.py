"""The settings of `densedpo learn online`. Importing this imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from densedpo.core.config import Config
from densedpo.generate.config import Eta
from densedpo.learn.config import Count, LearnConfig, ObjectiveName


class RewardChoice(Config):
    """A judge that scores clips, and how much its scores count."""

    judge: str = "reward"
    """reward, oracle, http, or a judge of your own as module:Class; all must give scores, not only answers."""
    weight: float = 1.0
    """The scores are multiplied by this and added up; scales differ from judge to judge."""
    url: str = ""
    """Of the scorer; http only."""
    options: dict[str, JsonValue] = Field(default={})
    """Settings of the judge, as `densedpo judge` takes them."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.weight == 0:
            raise ValueError("weight = 0: leave this reward out")
        if (self.judge == "http") != bool(self.url):
            raise ValueError("url goes with judge = 'http', which needs it")
        return self


class GuardConfig(Config):
    """The look at a fixed set of validation prompts, against hacking of the reward."""

    every: Annotated[int, Field(ge=0)] = 5
    """Rounds between looks; 0 = off. The base and the last round are always looked at."""
    num_prompts: Count = 16
    """Prompts of the validation split, two clips each; under 10 the intervals are wide."""
    judge: RewardChoice | None = None
    """A judge that training does not see; without one the guards are motion, diversity and saturation alone."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Looks without a better held-out score before the run stops; 0 = never."""
    stop_on_alarm: bool = False
    """Stop at the look at which the reward has risen and a guard has fallen."""
    select: Literal["last", "best"] = "last"
    """Which adapter the run ends with; best = that of the look with the highest held-out score."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.every == 0 and (self.judge or self.patience or self.stop_on_alarm or self.select == "best"):
            raise ValueError("judge, patience, stop_on_alarm and select = 'best' need looks: set every above 0")
        if self.judge is None and (self.patience or self.select == "best"):
            raise ValueError("patience and select = 'best' need a held-out score: set judge")
        return self


class OnlineLearnConfig(LearnConfig):
    """How a round learns: the settings of `learn offline` that have a meaning here."""

    objective: ObjectiveName = "dpo"
    """The loss: dpo for whole clips; a dense one learns from segments (`segment_seconds`)."""
    eval_every: Annotated[int, Field(ge=0, le=0)] = 0
    """Always 0: rounds are looked at by the guard."""

    @model_validator(mode="after")
    def _fits_rounds(self) -> Self:
        without_effect = {
            "objective = 'sft'": self.objective == "sft",
            "draws": self.draws != "fresh",
            "fold": self.fold is not None,
            "shuffle_labels": self.shuffle_labels,
            "ema_decay": self.ema_decay is not None,
            "train = 'full'": self.train == "full",
            "start_from": self.start_from is not None,
            "memory = 'auto'": self.memory == "auto",
            "compile_blocks": self.compile_blocks,
        }
        for name, is_set in without_effect.items():
            if is_set:
                raise ValueError(f"{name} is for learn offline; learn online does not take it")
        return self


class OnlineConfig(Config):
    """What an online run does. The defaults are for the shipped model; `recipes/onlinevpo_*.toml` has setups."""

    num_rounds: Count = 10
    """Rounds of generate, judge and learn."""
    prompts_per_round: Count = 16
    """Prompts of the train split in a round, in the order of a seed; all are seen before one comes again."""
    rollouts: Annotated[int, Field(ge=2, multiple_of=2)] = 4
    """Clips for each prompt, an even number; the best and the worst make a pair."""
    kind: Literal["independent", "guided"] = "independent"
    """Rollouts from noise alone, or from the prompt's real clip noised to one eta."""
    eta_min: Eta | None = None
    """Guided: lowest noise level at which rollouts start; the model's own if not given."""
    eta_max: Eta | None = None
    """Guided: the highest one."""
    sampler_steps: Count | None = None
    """Sampler steps from pure noise; the model's own number if not given."""
    guidance_scale: Annotated[float, Field(ge=0)] | None = None
    """Of classifier-free guidance; the model's own if not given, 1 switches it off."""
    pairs_per_batch: Count = 8
    """Pairs of rollouts that each process denoises at once."""
    segment_seconds: Annotated[float, Field(gt=0)] | None = None
    """Length of the segments that are scored; whole clips if not given."""
    rewards: Annotated[tuple[RewardChoice, ...], Field(min_length=1)] = (RewardChoice(),)
    """Whose scores are climbed; several are added up by their weights."""
    margin: Annotated[float, Field(ge=0)] = 0.0
    """Rewards that differ by less are a tie; a pair of ties alone is dropped."""
    steps_per_round: Count = 10
    """Optimizer steps on the pairs of a round; the optimizer goes on from round to round."""
    refresh_every: Annotated[int, Field(ge=0)] = 200
    """Steps after which the reference becomes the policy of that moment; 0 = it stays the base."""
    replay_rounds: Annotated[int, Field(ge=0)] = 0
    """Earlier rounds whose pairs are learned from again beside the new ones."""
    keep_rollouts: bool = True
    """Keep the clips of all rollouts; else those of the chosen pairs alone, once a round has learned."""
    max_empty_rounds: Count = 5
    """Rounds in a row that may give no pair before the run stops."""
    judge_patience_min: Annotated[float, Field(ge=0)] = 60.0
    """Minutes that a judge may be away; the run waits so long, then stops and can be resumed."""
    learn: OnlineLearnConfig = OnlineLearnConfig()
    guard: GuardConfig = GuardConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind == "independent" and (self.eta_min is not None or self.eta_max is not None):
            raise ValueError("eta_min and eta_max have no effect with kind = 'independent'")
        total = self.num_rounds * self.steps_per_round
        if "num_steps" in self.learn.model_fields_set and self.learn.num_steps != total:
            raise ValueError(f"learn.num_steps follows from num_rounds and steps_per_round, which make {total}")
        if self.guard.judge is not None and any(_same_judge(self.guard.judge, reward) for reward in self.rewards):
            raise ValueError("guard.judge is one of the rewards: a judge that is trained on is not held out")
        return self

    @property
    def training(self) -> OnlineLearnConfig:
        """The settings of the steps, with their number."""
        return self.learn.model_copy(update={"num_steps": self.num_rounds * self.steps_per_round})


def _same_judge(one: RewardChoice, other: RewardChoice) -> bool:
    return (one.judge, one.url, one.options) == (other.judge, other.url, other.options)
