"""Settings of `data add`."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from densedpo.core.config import Config


class WorldConfig(Config):
    """How many clips of the procedural world to make, and from which seeds: `seed`, `seed` + 1, ..."""

    num_clips: int = Field(default=200, ge=1)
    """Scenes to render."""
    seed: int = Field(default=0, ge=0)
    """Which scenes: another seed draws others."""
    num_held_out: int | None = Field(default=None, ge=0)
    """How many of them have held-out combinations; by default as many as fall to them, about a tenth."""


class FilterConfig(Config):
    """Which clips of a user's videos are left out; the world's clips are what they are meant to be."""

    min_resolution: float = Field(default=0.5, ge=0)
    """Size of the source over size of the clip; 1 never enlarges, 0 takes everything."""
    min_duration_s: float = Field(default=0.0, ge=0)
    """Of the whole video; shorter ones are left out."""
    max_duration_s: float = Field(default=7200.0, gt=0)
    """Of the whole video; longer ones are left out."""
    max_static_share: float = Field(default=0.9, ge=0, le=1)
    """Share of frames that do not differ from the one before; 1 takes everything."""
    max_camera_share: float = Field(default=0.97, ge=0, le=1)
    """Share of the motion that one moving camera before a still scene explains; 1 takes everything."""


class LimitConfig(Config):
    """What one file may cost before it is given up."""

    timeout_s: float = Field(default=1800.0, gt=0)
    """Time on the clock."""
    cpu_s: int = Field(default=1800, ge=1)
    """Time on the processor."""
    memory_mib: int = Field(default=4096, ge=512)
    """Memory of the process that decodes."""
    max_pixels: int = Field(default=8192 * 4320, ge=1)
    """Width times height of the source."""
    max_frames: int = Field(default=250_000, ge=1)
    """Frames of the source that are decoded."""


class DataConfig(Config):
    """Everything that `data add` can be told; sizes and frame rate come from the model."""

    world: WorldConfig = WorldConfig()
    """Of `data add world`."""
    filters: FilterConfig = FilterConfig()
    """Of a user's videos."""
    limits: LimitConfig = LimitConfig()
    """Of a user's videos."""
    cut_threshold: float = Field(default=0.18, gt=0, le=1)
    """How large a change of picture is a scene cut; 1 never cuts."""
    max_clips_per_video: int = Field(default=0, ge=0)
    """From its beginning; 0 is all."""
    validation_share: float = Field(default=0.1, ge=0, lt=1)
    """Of the source videos that no row gives a split."""
    held_out_share: float = Field(default=0.1, ge=0, lt=1)
    """Of the source videos; for the world, held-out combinations are held out whatever this says."""
    encode_latents: bool = True
    """False leaves the latents to a later `data add`, for another machine."""
    latent_batch: int = Field(default=4, ge=1)
    """Clips encoded at once; changes time and memory only."""

    @model_validator(mode="after")
    def _shares_leave_training_clips(self) -> Self:
        if self.validation_share + self.held_out_share >= 1:
            raise ValueError("validation_share + held_out_share is under 1, so that clips are left to train on")
        return self
