"""A `HunyuanVideoPipeline` directory as files: what must be there, its geometry and its defaults (no torch)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, field_validator

from densedpo.adapters.directory import Factors, Family, Settings, integer, read_settings, refuse_long_tokens
from densedpo.adapters.files import read_json
from densedpo.core.errors import BadInput

CLASSES: Final[dict[str, tuple[str, ...]]] = {
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


def factors(folder: Path) -> Factors:
    """Compression and channels from the autoencoder's config, the token's side from the denoiser's."""
    vae = folder / "vae" / "config.json"
    return Factors(
        temporal_stride=integer(vae, "temporal_compression_ratio", 4),
        spatial_stride=integer(vae, "spatial_compression_ratio", 8),
        latent_channels=integer(vae, "latent_channels", 16),
        patch=integer(folder / "transformer" / "config.json", "patch_size", 2),
    )


def refuse(folder: Path) -> None:
    """Refuses layouts of the same classes that are not text-to-video with tokens of one latent frame.

    Raises:
        BadInput: names the key.
    """
    transformer = folder / "transformer" / "config.json"
    if read_json(transformer).get("image_condition_type") is not None:
        raise BadInput(f"{transformer}: image_condition_type is set: only text-to-video is supported")
    refuse_long_tokens(folder)


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
    classes=CLASSES,
    settings=settings_of,
    factors=factors,
    lora_targets=LORA_TARGETS,
    refuse=refuse,
    recorded=recorded,
)
FAMILIES: Final = (FAMILY,)
