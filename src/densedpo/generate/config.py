"""Settings of `densedpo generate`; what is not set comes from the model's own defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from densedpo.core.config import Config

Split = Literal["train", "validation", "held_out"]
Decode = Literal["auto", "apart", "here"]
Eta = Annotated[float, Field(gt=0, le=1)]


class PairConfig(Config):
    """What every kind of pair needs. `pairs_per_batch`, `device` and `decode` change the speed, not the pairs."""

    num_pairs: Annotated[int, Field(ge=1)] = 100
    """Pairs in the set; more than there are prompts gives a prompt several pairs."""
    num_steps: Annotated[int, Field(ge=1)] | None = None
    """Sampler steps from pure noise; the model's own number if not given."""
    guidance_scale: Annotated[float, Field(ge=0)] | None = None
    """Of classifier-free guidance; the model's own if not given, 1 switches it off."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the noise, of eta and of the order of the prompts."""
    splits: tuple[Split, ...] = Field(("train", "validation"), min_length=1)
    """Whose prompts are used; held-out prompts are for `measure`."""
    pairs_per_batch: Annotated[int, Field(ge=1)] = 8
    """Pairs denoised at once."""
    device: str = "cpu"
    """Where the model runs."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the denoiser's weights."""
    decode: Decode = "auto"
    """Who writes videos: a process apart, while the next are denoised; auto: where a GPU or idle processors are."""


class MadeConfig(PairConfig):
    """Pairs whose clips are both made by one model."""

    start_from: str | None = None
    """A finished run, with whose weights or adapter the model makes the pairs; the base model if not given."""
    match_colours: bool = False
    """Match the histogram of each frame's channels to the clip's first; in the videos only, latents stay as made."""


class IndependentConfig(MadeConfig):
    """Pairs from two independent noises."""

    first_frames: str | None = None
    """A set of `generate first-frames` that the clips continue, image-to-video only; by default the prompts' clips."""


class FirstFramesConfig(Config):
    """First frames drawn from prompts by a text-to-image model."""

    image_model: str = ""
    """Folder of a Stable Diffusion XL model in diffusers' format, safetensors only; must be given."""
    image_unet: str = ""
    """Folder with a UNet that replaces the model's, such as one that was tuned by DPO."""
    num_prompts: Annotated[int, Field(ge=1)] = 100
    """Prompts that get frames, at most."""
    frames_per_prompt: Annotated[int, Field(ge=1)] = 1
    """Frames of each; the repetitions of a prompt's pairs take turns."""
    scale: Annotated[int, Field(ge=1)] = 1
    """Images are drawn so many times as high and wide as the clips and averaged down: such models want 1024 pixels."""
    num_steps: Annotated[int, Field(ge=1)] = 50
    """Sampler steps."""
    guidance_scale: Annotated[float, Field(ge=0)] = 5.0
    """Of classifier-free guidance."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the noise and of the order of the prompts."""
    splits: tuple[Split, ...] = Field(("train", "validation"), min_length=1)
    """Whose prompts are used."""
    device: str = "cpu"
    """Where the model runs."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of its weights."""


class ArenaConfig(PairConfig):
    """Pairs of two models, one for each prompt, to compare the models blind; held-out prompts unless told otherwise."""

    splits: tuple[Split, ...] = Field(("held_out",), min_length=1)
    """Whose prompts are used."""


class GuidedConfig(MadeConfig):
    """Pairs from one real clip, noised twice to the same eta, drawn once per prompt from [eta_min, eta_max]."""

    eta_min: Eta | None = None
    """Lowest noise level at which a pair starts; the model's own if not given."""
    eta_max: Eta | None = None
    """Highest one, 1 = pure noise; `generate calibrate` finds it."""


class CalibrateConfig(Config):
    """How the highest eta that keeps the motion of the real clip is looked for."""

    num_clips: Annotated[int, Field(ge=2)] = 12
    """Real clips that every level is tried on."""
    etas: tuple[Eta, ...] = Field((0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9), min_length=2)
    """Noise levels that are tried, ascending."""
    keep: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the motion of the real clip that must be kept."""
    num_steps: Annotated[int, Field(ge=1)] | None = None
    """Sampler steps from pure noise; the model's own number if not given."""
    guidance_scale: Annotated[float, Field(ge=0)] | None = None
    """Of classifier-free guidance; the model's own if not given."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the noise and of which clips are tried."""
    splits: tuple[Split, ...] = Field(("train", "validation"), min_length=1)
    """Whose clips are tried."""
    clips_per_batch: Annotated[int, Field(ge=1)] = 8
    """Clips denoised at once; changes time and memory only."""
    device: str = "cpu"
    """Where the model runs."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the denoiser's weights."""

    @model_validator(mode="after")
    def _ascending(self) -> CalibrateConfig:
        if list(self.etas) != sorted(set(self.etas)):
            raise ValueError(f"etas are ascending and different, not {self.etas}")
        return self
