"""A `CogVideoXPipeline` directory as files: what must be there, its geometry and its defaults (no torch)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

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
    "transformer": ("CogVideoXTransformer3DModel",),
    "vae": ("AutoencoderKLCogVideoX",),
    "text_encoder": ("T5EncoderModel",),
    "scheduler": ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"),
}
LORA_TARGETS: Final = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
# what the sampler and the noise path rest on: v-prediction whose last level is pure noise
SCHEDULE: Final[dict[str, object]] = {
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}
COGVIDEOX: Final = Settings(
    num_frames=49, height=480, width=720, fps=8.0, max_sequence_length=226, num_steps=50, guidance_scale=6.0
)
# 81 frames are 21 latent frames, which the pipeline pads to 22 with noise that it throws away; 85 are 22
COGVIDEOX_1_5: Final = COGVIDEOX.model_copy(update={"num_frames": 85, "height": 768, "width": 1360, "fps": 16.0})


def read_geometry(folder: Path) -> Geometry:
    """Sizes from `densedpo.json`, compression factors and channels from the checkpoint's own configs.

    Raises:
        BadInput: the latent frames are not a multiple of what the denoiser takes as one token in time.
    """
    settings = _settings(folder)
    vae, transformer = folder / "vae" / "config.json", folder / "transformer" / "config.json"
    blocks = read_json(vae).get("block_out_channels", [128, 256, 256, 512])
    geometry = Geometry(
        num_frames=settings.num_frames,
        height=settings.height,
        width=settings.width,
        fps=settings.fps,
        # the pipeline takes the temporal factor as written and derives the spatial one from the number of blocks
        temporal_stride=integer(vae, "temporal_compression_ratio", 4),
        spatial_stride=2 ** (len(blocks) - 1) if isinstance(blocks, list) else 8,
        latent_channels=integer(vae, "latent_channels", 16),
        max_sequence_length=settings.max_sequence_length,
        patch=integer(transformer, "patch_size", 2),
    )
    in_time = _patch_in_time(folder)
    if geometry.num_latent_frames % in_time:
        nearest = geometry.num_latent_frames // in_time * in_time + in_time
        raise BadInput(
            f"num_frames = {geometry.num_frames} gives {geometry.num_latent_frames} latent frames, of which this "
            f"model takes {in_time} as one; {(nearest - 1) * geometry.temporal_stride + 1} frames fit"
        )
    return geometry


def read_defaults(folder: Path) -> SamplingDefaults:
    """The model's sampling defaults."""
    return _settings(folder).sampling


def check_files(folder: Path) -> None:
    """Refuses, before anything is loaded, another layout, another schedule and weights that are not safetensors.

    Raises:
        BadInput: names the component or the file.
    """
    check_components(folder, COMPONENTS)
    path = folder / "scheduler" / "scheduler_config.json"
    schedule = read_json(path)
    for key, expected in SCHEDULE.items():
        if schedule.get(key) != expected:
            raise BadInput(f"{path}: {key} is {schedule.get(key)!r}; only {expected!r} is supported")
    for name in ("transformer", "vae", "text_encoder"):
        check_weights(folder / name)


def components(folder: Path) -> tuple[str, ...]:  # noqa: ARG001
    """The folders that the model is made of."""
    return (*COMPONENTS, "tokenizer")


def _settings(folder: Path) -> Settings:
    return read_settings(folder, COGVIDEOX if _patch_in_time(folder) == 1 else COGVIDEOX_1_5)


def _patch_in_time(folder: Path) -> int:
    """Latent frames in one token: 1 for CogVideoX 1.0, whose config says none, and 2 for 1.5."""
    value = read_json(folder / "transformer" / "config.json").get("patch_size_t")
    return value if isinstance(value, int) else 1


FAMILY: Final = Family(
    name="CogVideoX",
    pipeline="CogVideoXPipeline",
    check=check_files,
    geometry=read_geometry,
    defaults=read_defaults,
    components=components,
    lora_targets=LORA_TARGETS,
)
