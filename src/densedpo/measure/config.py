"""The settings of the verbs of `measure`. Importing this imports no torch."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from densedpo.core.config import Config

Source = Literal["model", "autoencoder", "truth"]

# the scores that the page says sentences about
CLAIMS: Final = ("visual_quality", "temporal_consistency", "text_alignment", "dynamic_degree", "object_motion")
# by what the oracle, too, calls two clips alike
WIN_MARGINS: Final = {"visual_quality": 0.02, "temporal_consistency": 0.02, "text_alignment": 0.02}


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
    first_frames: str | None = Field(
        default=None,
        description="a set of `generate first-frames` that clips continue, image-to-video only; by default those of "
        "the prompts' own clips",
    )
    batch_clips: int = Field(default=8, ge=1, description="clips denoised at once; changes time and memory only")
    device: str = Field(default="cpu", description="where the model runs")
    strict: bool = Field(
        default=False,
        description="a clip that cannot be read or has another length or size ends the command with exit code 2, once "
        "the report is written; otherwise such clips are listed and counted as excluded",
    )

    @model_validator(mode="after")
    def _no_setting_without_effect(self) -> Self:
        if self.source != "model":
            for name in ("num_steps", "guidance_scale", "first_frames"):
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
    claims: tuple[str, ...] = Field(
        default=CLAIMS,
        description="metrics about which something is claimed: Holm's correction runs over those of each comparison; "
        "the others keep their own intervals and are exploratory",
    )
    margins: dict[str, float] = Field(
        default={},
        description="the loss that would matter, declared before the run, such as margins.text_alignment=0.01: the "
        "page says whether it is excluded (two one-sided tests)",
    )
    win_margins: dict[str, float] = Field(
        default=WIN_MARGINS,
        description="the difference up to which two clips tie, such as win_margins.visual_quality=0.02; win rates are "
        "shown for these scores",
    )
    each_other: bool = Field(
        default=False, description="also compare every two of the others, beside each with the base"
    )
    allow_different: tuple[str, ...] = Field(
        default=(),
        description="entries of the manifest that may differ between the reports, such as 'code'; the page names them",
    )
    strict: bool = Field(default=False, description="refuse reports that had to leave out clips")
    num_draws: int = Field(default=2000, ge=100, description="draws of the bootstrap")
    seed: int = Field(default=0, ge=0, description="of the bootstrap")
    max_video_mb: float = Field(default=24.0, gt=0, description="videos are left out of the page beyond this size")

    @model_validator(mode="after")
    def _margins_are_sizes(self) -> Self:
        for name, margin in self.margins.items():
            if margin <= 0:
                raise ValueError(f"margins.{name} is {margin}; a margin is the size of a loss, above 0")
        for name, margin in self.win_margins.items():
            if margin < 0:
                raise ValueError(f"win_margins.{name} is {margin}; a margin is 0 or more")
        return self


class JudgeConfig(Config):
    """Options of `measure judge`: how answers are compared."""

    segment_seconds: float = Field(default=1.0, gt=0, description="length of the segments that were judged")
    motion: bool = Field(default=True, description="measure how much the clips move, and whether answers follow it")
    motion_threshold: float = Field(
        default=0.25, ge=0, description="px per frame: pairs whose motion differs by less say nothing about low motion"
    )
    independent: str = Field(
        default="", description="name of a set of independent pairs, to compare the motion within these pairs with"
    )
    strict: bool = Field(
        default=False, description="a pair whose video cannot be read ends the command with exit code 2"
    )
    num_draws: int = Field(default=2000, ge=100, description="draws of the bootstrap")
    seed: int = Field(default=0, ge=0, description="of the bootstrap")

    @model_validator(mode="after")
    def _no_setting_without_effect(self) -> Self:
        if not self.motion:
            for name in ("motion_threshold", "independent", "strict"):
                if name in self.model_fields_set and self.model_dump()[name] != type(self).model_fields[name].default:
                    raise ValueError(f"{name} has no effect with motion = false")
        return self
