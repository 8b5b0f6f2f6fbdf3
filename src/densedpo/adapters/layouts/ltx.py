"""An `LTXPipeline` or `LTXImageToVideoPipeline` directory as files: parts, geometry and defaults (no torch)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from densedpo.adapters.directory import Factors, Family, Settings, integer, read_settings, refuse_long_tokens
from densedpo.adapters.files import read_json

CLASSES: Final[dict[str, tuple[str, ...]]] = {
    "transformer": ("LTXVideoTransformer3DModel",),
    "vae": ("AutoencoderKLLTXVideo",),
    "text_encoder": ("T5EncoderModel",),
    "scheduler": ("FlowMatchEulerDiscreteScheduler",),
}
LORA_TARGETS: Final = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")


class LTXSettings(Settings):
    """Settings with those of a decoder that denoises a little itself; a decoder that does not ignores them."""

    decode_timestep: Annotated[float, Field(ge=0, le=1)] = 0.05
    decode_noise: Annotated[float, Field(ge=0, le=1)] = 0.025


LTX: Final = LTXSettings(
    num_frames=161, height=512, width=704, fps=25.0, max_sequence_length=128, num_steps=50, guidance_scale=3.0
)


def settings_of(folder: Path) -> LTXSettings:
    """The model's settings."""
    is_given = read_json(folder / "model_index.json").get("_class_name") == "LTXImageToVideoPipeline"
    return read_settings(folder, LTX.model_copy(update={"first_frame": is_given}))


def factors(folder: Path) -> Factors:
    """Compression and channels from the autoencoder's config, the token's side from the denoiser's."""
    vae = folder / "vae" / "config.json"
    config = read_json(vae)
    scaling = config.get("spatio_temporal_scaling", [True, True, True, False])
    halvings = sum(bool(step) for step in scaling) if isinstance(scaling, list) else 3
    return Factors(
        temporal_stride=_or_derived(vae, config, "temporal_compression_ratio", "patch_size_t", 1, halvings),
        spatial_stride=_or_derived(vae, config, "spatial_compression_ratio", "patch_size", 4, halvings),
        latent_channels=integer(vae, "latent_channels", 128),
        patch=integer(folder / "transformer" / "config.json", "patch_size", 1),
    )


def recorded(folder: Path) -> dict[str, object]:
    """The frame rate: the denoiser's positions are in seconds."""
    return {"fps": settings_of(folder).fps}


def _or_derived(path: Path, config: dict[str, object], key: str, patch: str, default: int, halvings: int) -> int:
    """A factor as it is written, or from the patch and the halvings where the config leaves it out."""
    if config.get(key) is not None:
        return integer(path, key, 0)
    return integer(path, patch, default) << halvings  # twice for each


# the weights of both pipelines are the same: an index names one, and `densedpo.json` may say the other
FAMILY: Final = Family(
    name="LTX-Video",
    pipeline="LTXPipeline",
    classes=CLASSES,
    settings=settings_of,
    factors=factors,
    lora_targets=LORA_TARGETS,
    refuse=refuse_long_tokens,
    recorded=recorded,
    first_frame=lambda folder: (False, True),  # noqa: ARG005
)
IMAGE_TO_VIDEO: Final = replace(FAMILY, pipeline="LTXImageToVideoPipeline")
FAMILIES: Final = (FAMILY, IMAGE_TO_VIDEO)
