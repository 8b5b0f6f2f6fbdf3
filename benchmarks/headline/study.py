"""What a study is: pairs, labels and arms, as a TOML file says. Importing this imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from densedpo.core.config import Config
from densedpo.data.config import DataConfig
from densedpo.generate.config import GuidedConfig, IndependentConfig
from densedpo.judge.oracle import OracleConfig
from densedpo.learn.config import LearnConfig
from densedpo.measure.config import MeasureConfig


class GuidedPairs(GuidedConfig):
    """Pairs of a real clip, noised part way and denoised twice."""

    kind: Literal["guided"]


class IndependentPairs(IndependentConfig):
    """Pairs of two independent noises."""

    kind: Literal["independent"]


class Labels(Config):
    """Answers of the oracle, with its imperfections, about the first `num_pairs` of a set of pairs."""

    pairs: str
    judge: OracleConfig = OracleConfig()
    num_pairs: int | None = Field(default=None, ge=1)


class Arm(Config):
    """One way to train: `learn` is laid over the study's own settings, with each of the seeds in turn."""

    labels: str
    learn: dict[str, object] = Field(default_factory=dict)
    seeds: tuple[int, ...] | None = None


class Study(Config):
    """A whole study; `base` and the autoencoder's ceiling are measured beside the arms."""

    model: str = "tiny"
    data: DataConfig
    pairs: dict[str, Annotated[GuidedPairs | IndependentPairs, Field(discriminator="kind")]]
    labels: dict[str, Labels]
    learn: dict[str, object] = Field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    arms: dict[str, Arm]
    measure: MeasureConfig
    ceiling: bool = True

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for name, labels in self.labels.items():
            if labels.pairs not in self.pairs:
                raise ValueError(f"labels {name!r} are of pairs {labels.pairs!r}, which the study does not make")
        for name, arm in self.arms.items():
            if arm.labels not in self.labels:
                raise ValueError(f"arm {name!r} learns from labels {arm.labels!r}, which the study does not collect")
            self.config_of(arm, seed=0)
        return self

    def runs(self) -> list[Run]:
        """Every run, seed by seed, so that a cut study holds whole rounds."""
        most = max(len(arm.seeds or self.seeds) for arm in self.arms.values())
        return [
            Run(arm=name, seed=seeds[place])
            for place in range(most)
            for name, arm in self.arms.items()
            if place < len(seeds := arm.seeds or self.seeds)
        ]

    def config_of(self, arm: Arm, *, seed: int) -> LearnConfig:
        """The settings of one run; the seed is that of its order, its adapter and its noise."""
        return LearnConfig.model_validate({**self.learn, **arm.learn, "seed": seed, "noise_seed": seed})


class Run(Config):
    """One arm with one seed."""

    arm: str
    seed: int

    @property
    def name(self) -> str:
        """Of its run folder and its report."""
        return f"{self.arm}-{self.seed}"
