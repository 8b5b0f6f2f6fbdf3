"""The settings of the two verbs of `measure`. Importing this imports no torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from densedpo.core.config import Config

Source = Literal["model", "autoencoder", "truth"]


class MeasureConfig(Config):
    """Options of `measure run`: what is generated and scored.

    Two reports can be compared only if these settings agree, apart from `source`.
    """

    source: Source = Field(
        default="model",
        description="model: clips generated from noise; autoencoder: reconstructions of the prompts' own clips, the "
        "ceiling of what the model can reach; truth: those clips themselves",
    )
    split: Literal["held_out", "validation"] = Field(default="held_out", description="whose prompts are measured")
    num_prompts: int = Field(default=64, ge=1, description="the first so many prompts in an order that never changes")
    seeds_per_prompt: int = Field(default=1, ge=1, description="clips generated for each prompt")
    num_steps: int | None = Field(default=None, ge=1, description="sampler steps; the model's own number if not given")
    guidance_scale: float | None = Field(default=None, ge=0, description="the model's own if not given")
    seed: int = Field(default=0, ge=0, description="of the noise that clips start from, and of the bootstrap")
    batch_clips: int = Field(default=8, ge=1, description="clips denoised at once; changes time and memory only")
    device: str = Field(default="cpu", description="where the model runs")

    @model_validator(mode="after")
    def _no_setting_without_effect(self) -> Self:
        if self.source != "model":
            for name in ("num_steps", "guidance_scale"):
                if name in self.model_fields_set and self.model_dump()[name] is not None:
                    raise ValueError(f"{name} has no effect with source = {self.source!r}")
            if self.seeds_per_prompt != 1:
                raise ValueError(f"seeds_per_prompt has no effect with source = {self.source!r}")
        return self


class CompareConfig(Config):
    """Options of `measure compare`: what the page shows."""

    title: str = Field(default="", description="headline above the verdict; the names of the reports if empty")
    num_players: int = Field(
        default=6, ge=0, description="prompts shown as players, spread from largest loss to largest gain"
    )
    num_strips: int = Field(default=4, ge=0, description="pairs shown with their labels over time")
    num_draws: int = Field(default=2000, ge=100, description="draws of the bootstrap")
    seed: int = Field(default=0, ge=0, description="of the bootstrap")
    max_video_mb: float = Field(default=24.0, gt=0, description="videos are left out of the page beyond this size")
