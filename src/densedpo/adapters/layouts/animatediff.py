"""An `AnimateDiffPipeline` directory as files: what must be there, its geometry and its defaults (no torch).

The autoencoder is one of images, so that every pixel frame has a latent frame. With `first_frame` in `densedpo.json`
the latents of a given first frame stand clean in their place at every noise level, as HuViDPO trains (2502.01690).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from densedpo.adapters.directory import Factors, Family, SparseCausalSettings, integer, read_settings
from densedpo.adapters.files import read_json
from densedpo.core.errors import BadInput

CLASSES: Final[dict[str, tuple[str, ...]]] = {
    "unet": ("UNetMotionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "scheduler": ("DDIMScheduler", "PNDMScheduler"),
}
# attention over places, to the caption, and over time
LORA_TARGETS: Final = ("to_q", "to_k", "to_v", "to_out.0")
ANIMATEDIFF: Final = SparseCausalSettings(
    num_frames=16, height=512, width=512, fps=8.0, max_sequence_length=77, num_steps=50, guidance_scale=7.5
)
# what the sampler and the noise path rest on
SCHEDULE: Final[dict[str, object]] = {
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "thresholding": False,
    "clip_sample": False,
}
# inputs of a denoiser that no caption and no clip gives
OTHER_INPUTS: Final = ("addition_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim")


def settings_of(folder: Path) -> SparseCausalSettings:
    """The model's settings."""
    return read_settings(folder, ANIMATEDIFF)


def factors(folder: Path) -> Factors:
    """Compression and channels from the autoencoder's config; a token is a latent cell."""
    vae = folder / "vae" / "config.json"
    blocks = read_json(vae).get("block_out_channels", [64])
    return Factors(
        temporal_stride=1,
        spatial_stride=2 ** (len(blocks) - 1) if isinstance(blocks, list) else 1,
        latent_channels=integer(vae, "latent_channels", 4),
        patch=1,
    )


def refuse(folder: Path) -> None:
    """Refuses another schedule, other inputs of the denoiser, and clips or captions longer than it takes.

    Raises:
        BadInput: names the key.
    """
    _refuse_schedule(folder / "scheduler" / "scheduler_config.json")
    path, settings = folder / "unet" / "config.json", settings_of(folder)
    unet, channels = read_json(path), factors(folder).latent_channels
    if (found := integer(path, "in_channels", 4)) != channels:
        raise BadInput(f"{path}: in_channels is {found}; only the clip's own {channels} are supported")
    for key in OTHER_INPUTS:
        if unet.get(key) is not None:
            raise BadInput(f"{path}: {key} is {unet[key]!r}: only captions and clips are supported")
    if settings.num_frames > (longest := integer(path, "motion_max_seq_length", 32)):
        raise BadInput(f"num_frames = {settings.num_frames}, but the model takes clips of {longest} frames at most")
    words = integer(folder / "tokenizer" / "tokenizer_config.json", "model_max_length", 77)
    if settings.max_sequence_length != words:
        raise BadInput(f"max_sequence_length = {settings.max_sequence_length}, but the model's tokenizer has {words}")


def _refuse_schedule(path: Path) -> None:
    schedule = read_json(path)
    # what a config leaves out is what diffusers' class has
    schedule = {**SCHEDULE, "clip_sample": schedule.get("_class_name") == "DDIMScheduler"} | schedule
    for key, expected in SCHEDULE.items():
        if schedule[key] != expected:
            raise BadInput(f"{path}: {key} is {schedule[key]!r}; only {expected!r} is supported")


def recorded(folder: Path) -> dict[str, object]:
    """The pattern of attention."""
    return settings_of(folder).pattern


def beyond(folder: Path) -> tuple[str, ...]:
    """The attention, and the first frame."""
    settings = settings_of(folder)
    if not settings.first_frame:
        return settings.beyond("unet")
    held = "It continues a first frame, which `AnimateDiffPipeline` does not take: the frame's latents stand in their "
    return (*settings.beyond("unet"), f"{held}place before every call of the UNet, as densedpo's sampler has them.")


FAMILY: Final = Family(
    name="AnimateDiff",
    pipeline="AnimateDiffPipeline",
    classes=CLASSES,
    settings=settings_of,
    factors=factors,
    lora_targets=LORA_TARGETS,
    refuse=refuse,
    recorded=recorded,
    beyond=beyond,
    denoisers=lambda folder: ("unet",),  # noqa: ARG005
    first_frame=lambda folder: (False, True),  # noqa: ARG005
)
FAMILIES: Final = (FAMILY,)
