"""A `CogVideoXPipeline` or `CogVideoXImageToVideoPipeline` directory as files: parts, geometry, defaults (no torch).

The image-to-video checkpoints take the latents of the image as channels beside those of the clip.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from densedpo.adapters.directory import Factors, Family, Settings, integer, read_settings
from densedpo.adapters.files import read_json
from densedpo.core.errors import BadInput

CLASSES: Final[dict[str, tuple[str, ...]]] = {
    "transformer": ("CogVideoXTransformer3DModel",),
    "vae": ("AutoencoderKLCogVideoX",),
    "text_encoder": ("T5EncoderModel",),
    "scheduler": ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"),
}
IMAGE_TO_VIDEO_PIPELINE: Final = "CogVideoXImageToVideoPipeline"
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


def factors(folder: Path) -> Factors:
    """Compression and channels from the autoencoder's config, the token's side from the denoiser's.

    Raises:
        BadInput: the latent frames are not a multiple of what the denoiser takes as one token in time.
    """
    vae, transformer = folder / "vae" / "config.json", folder / "transformer" / "config.json"
    blocks = read_json(vae).get("block_out_channels", [128, 256, 256, 512])
    found = Factors(
        # the pipeline takes the temporal factor as written and derives the spatial one from the number of blocks
        temporal_stride=integer(vae, "temporal_compression_ratio", 4),
        spatial_stride=2 ** (len(blocks) - 1) if isinstance(blocks, list) else 8,
        latent_channels=integer(vae, "latent_channels", 16),
        patch=integer(transformer, "patch_size", 2),
    )
    in_time, num_frames = _patch_in_time(folder), _settings(folder).num_frames
    num_latent_frames = (num_frames - 1) // found.temporal_stride + 1
    if num_latent_frames % in_time:
        nearest = num_latent_frames // in_time * in_time + in_time
        raise BadInput(
            f"num_frames = {num_frames} gives {num_latent_frames} latent frames, of which this "
            f"model takes {in_time} as one; {(nearest - 1) * found.temporal_stride + 1} frames fit"
        )
    return found


def refuse(folder: Path) -> None:
    """Refuses another schedule than the one that the sampler and the noise path rest on, or other channels.

    Raises:
        BadInput: names the key.
    """
    transformer, channels = folder / "transformer" / "config.json", factors(folder).latent_channels
    expected_channels = channels * (2 if _is_image_to_video(folder) else 1)
    if (found := integer(transformer, "in_channels", 16)) != expected_channels:
        raise BadInput(f"{transformer}: in_channels is {found}, but a model of this index has {expected_channels}")
    path = folder / "scheduler" / "scheduler_config.json"
    schedule = read_json(path)
    for key, expected in SCHEDULE.items():
        if schedule.get(key) != expected:
            raise BadInput(f"{path}: {key} is {schedule.get(key)!r}; only {expected!r} is supported")


def _settings(folder: Path) -> Settings:
    layout = COGVIDEOX if _patch_in_time(folder) == 1 else COGVIDEOX_1_5
    return read_settings(folder, layout.model_copy(update={"first_frame": _is_image_to_video(folder)}))


def _is_image_to_video(folder: Path) -> bool:
    return read_json(folder / "model_index.json").get("_class_name") == IMAGE_TO_VIDEO_PIPELINE


def _patch_in_time(folder: Path) -> int:
    """Latent frames in one token: 1 for CogVideoX 1.0, whose config says none, and 2 for 1.5."""
    value = read_json(folder / "transformer" / "config.json").get("patch_size_t")
    return value if isinstance(value, int) else 1


FAMILY: Final = Family(
    name="CogVideoX",
    pipeline="CogVideoXPipeline",
    classes=CLASSES,
    settings=_settings,
    factors=factors,
    lora_targets=LORA_TARGETS,
    refuse=refuse,
    first_frame=lambda folder: (_is_image_to_video(folder),),
)
IMAGE_TO_VIDEO: Final = replace(FAMILY, pipeline=IMAGE_TO_VIDEO_PIPELINE)
FAMILIES: Final = (FAMILY, IMAGE_TO_VIDEO)
