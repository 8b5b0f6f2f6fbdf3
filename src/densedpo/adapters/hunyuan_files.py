"""A `HunyuanVideoPipeline` directory as files: what must be there, its geometry and its defaults (no torch)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, field_validator

from densedpo.adapters.base import Geometry, SamplingDefaults
from densedpo.adapters.directory import (
    Family,
    Settings,
    check_components,
    check_weights,
    integer,
    read_json,
    read_settings,
)
from densedpo.core.errors import BadInput

COMPONENTS: Final[dict[str, tuple[str, ...]]] = {
    "transformer": ("HunyuanVideoTransformer3DModel",),
    "vae": ("AutoencoderKLHunyuanVideo",),
    "text_encoder": ("LlamaModel",),
    "text_encoder_2": ("CLIPTextModel",),
    "scheduler": ("FlowMatchEulerDiscreteScheduler",),
}
# both streams' attention and the joint blocks' fused layers
LORA_TARGETS: Final = (
    "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
    "ff.net.0.proj", "ff.net.2", "proj_mlp",
)  # fmt: skip


class HunyuanSettings(Settings):
    """Settings with the guidance that the denoiser takes as a number, and the words put around a caption.

    `guidance_scale` is guidance by a second pass and off by default. `prompt_template` holds {} for the caption and
    `prompt_crop` is how many tokens of the encoded text are the template's; None is diffusers' own template.
    """

    embedded_guidance: Annotated[float, Field(gt=0)] = 6.0
    prompt_template: str | None = None
    prompt_crop: Annotated[int, Field(ge=0)] = 0

    @field_validator("prompt_template")
    @classmethod
    def _has_a_place(cls, template: str | None) -> str | None:
        if template is not None and "{}" not in template:
            raise ValueError("the template has no {} for the caption")
        return template


HUNYUAN: Final = HunyuanSettings(
    num_frames=129, height=720, width=1280, fps=24.0, max_sequence_length=256, num_steps=50, guidance_scale=1.0
)


def settings_of(folder: Path) -> HunyuanSettings:
    """The model's settings."""
    return read_settings(folder, HUNYUAN)


def read_geometry(folder: Path) -> Geometry:
    """Sizes from `densedpo.json`, compression factors and channels from the checkpoint's own configs."""
    settings = settings_of(folder)
    vae = folder / "vae" / "config.json"
    return Geometry(
        num_frames=settings.num_frames,
        height=settings.height,
        width=settings.width,
        fps=settings.fps,
        temporal_stride=integer(vae, "temporal_compression_ratio", 4),
        spatial_stride=integer(vae, "spatial_compression_ratio", 8),
        latent_channels=integer(vae, "latent_channels", 16),
        max_sequence_length=settings.max_sequence_length,
        patch=integer(folder / "transformer" / "config.json", "patch_size", 2),
    )


def read_defaults(folder: Path) -> SamplingDefaults:
    """The model's sampling defaults."""
    return settings_of(folder).sampling


def check_files(folder: Path) -> None:
    """Refuses, before anything is loaded, a directory of another layout and weights that are not safetensors.

    Raises:
        BadInput: names the component or the file.
    """
    check_components(folder, COMPONENTS)
    transformer = folder / "transformer" / "config.json"
    if read_json(transformer).get("image_condition_type") is not None:
        raise BadInput(f"{transformer}: image_condition_type is set: only text-to-video is supported")
    if integer(transformer, "patch_size_t", 1) != 1:
        raise BadInput(f"{transformer}: patch_size_t is not 1: a token of several latent frames is not supported")
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        check_weights(folder / name)


def components(folder: Path) -> tuple[str, ...]:  # noqa: ARG001
    """The folders that the model is made of."""
    return (*COMPONENTS, "tokenizer", "tokenizer_2")


def recorded(folder: Path) -> dict[str, object]:
    """What the denoiser is told beside the caption: one value for policy and reference."""
    settings = settings_of(folder)
    return {
        "embedded_guidance": settings.embedded_guidance,
        "prompt_template": settings.prompt_template,
        "prompt_crop": settings.prompt_crop,
    }


FAMILY: Final = Family(
    name="HunyuanVideo",
    pipeline="HunyuanVideoPipeline",
    check=check_files,
    geometry=read_geometry,
    defaults=read_defaults,
    components=components,
    lora_targets=LORA_TARGETS,
    recorded=recorded,
)
