"""Settings of `densedpo generate`; what is not set comes from the model's own defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from densedpo.core.config import Config

Split = Literal["train", "validation", "held_out"]
Eta = Annotated[float, Field(gt=0, le=1)]


class PairConfig(Config):
    """What every kind of pair needs. `pairs_per_batch` and `device` change the speed, not the pairs."""

    num_pairs: Annotated[int, Field(ge=1)] = 100
    num_steps: Annotated[int, Field(ge=1)] | None = None
    guidance_scale: Annotated[float, Field(ge=0)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    splits: tuple[Split, ...] = Field(("train", "validation"), min_length=1)
    pairs_per_batch: Annotated[int, Field(ge=1)] = 8
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"


class IndependentConfig(PairConfig):
    """Pairs from two independent noises."""


class GuidedConfig(PairConfig):
    """Pairs from one real clip, noised twice to the same eta, drawn once per prompt from [eta_min, eta_max]."""

    eta_min: Eta | None = None
    eta_max: Eta | None = None


class CalibrateConfig(Config):
    """How the highest eta that keeps the motion of the real clip is looked for."""

    num_clips: Annotated[int, Field(ge=2)] = 12
    etas: tuple[Eta, ...] = Field((0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9), min_length=2)
    keep: Annotated[float, Field(gt=0, lt=1)] = 0.5
    num_steps: Annotated[int, Field(ge=1)] | None = None
    guidance_scale: Annotated[float, Field(ge=0)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    splits: tuple[Split, ...] = Field(("train", "validation"), min_length=1)
    clips_per_batch: Annotated[int, Field(ge=1)] = 8
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"

    @model_validator(mode="after")
    def _ascending(self) -> CalibrateConfig:
        if list(self.etas) != sorted(set(self.etas)):
            raise ValueError(f"etas are ascending and different, not {self.etas}")
        return self
