"""A `WanPipeline` or `WanImageToVideoPipeline` directory as files: parts, geometry and defaults (no torch).

Three layouts: Wan 2.1; Wan 2.2 A14B, whose index has a boundary between two denoisers; Wan 2.2 TI2V-5B, whose index
asks for a timestep for each token. The image-to-video checkpoints of the first two take a mask and the encoded image as
channels beside the latents, and that of Wan 2.1 an image encoder's embeddings.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from densedpo.adapters.directory import Factors, Family, SparseCausalSettings, integer, read_settings
from densedpo.adapters.files import read_json
from densedpo.core.errors import BadInput

CLASSES: Final[dict[str, tuple[str, ...]]] = {
    "transformer": ("WanTransformer3DModel",),
    "vae": ("AutoencoderKLWan",),
    "text_encoder": ("UMT5EncoderModel",),
    "scheduler": ("FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"),
}
# every linear layer of a block, as the public Wan LoRAs adapt: a motion is not in the attention alone
LORA_TARGETS: Final = ("to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2")
# names of one and the same preparation in different versions of transformers
IMAGE_PROCESSORS: Final = ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil")
IMAGE_TO_VIDEO_PIPELINE: Final = "WanImageToVideoPipeline"
WAN_2_1: Final = SparseCausalSettings(
    num_frames=81, height=480, width=832, fps=16.0, max_sequence_length=512, num_steps=50, guidance_scale=5.0
)
WAN_2_2_A14B: Final = WAN_2_1.model_copy(update={"num_steps": 40, "guidance_scale": 4.0})
WAN_2_2_A14B_IMAGE: Final = WAN_2_2_A14B.model_copy(update={"guidance_scale": 3.5})
WAN_2_2_TI2V: Final = WAN_2_1.model_copy(update={"num_frames": 121, "height": 704, "width": 1280, "fps": 24.0})


def settings_of(folder: Path) -> SparseCausalSettings:
    """The model's settings over those of its layout."""
    layout = WAN_2_1 if boundary(folder) is None else WAN_2_2_A14B
    if has_token_timesteps(folder):
        layout = WAN_2_2_TI2V
    if not is_image_to_video(folder):
        return read_settings(folder, layout)
    own = WAN_2_2_A14B_IMAGE if layout is WAN_2_2_A14B else layout
    return read_settings(folder, own.model_copy(update={"first_frame": True}))


def is_image_to_video(folder: Path) -> bool:
    """Whether the index names the pipeline that continues an image."""
    return read_json(folder / "model_index.json").get("_class_name") == IMAGE_TO_VIDEO_PIPELINE


def first_frame(folder: Path) -> tuple[bool, ...]:
    """Either for TI2V-5B, whose two pipelines have the same weights; else what the index says."""
    return (False, True) if has_token_timesteps(folder) else (is_image_to_video(folder),)


def boundary(folder: Path) -> float | None:
    """The t at and above which `transformer` denoises and below which `transformer_2` does; None where one does all.

    Raises:
        BadInput: a boundary without a second denoiser or the other way round, or one that is not between 0 and 1.
    """
    path = folder / "model_index.json"
    index = read_json(path)
    ratio = index.get("boundary_ratio")
    has_second = index.get("transformer_2") not in (None, [None, None])
    if ratio is None and not has_second:
        return None
    if not has_second:
        raise BadInput(f"{path}: boundary_ratio without a transformer_2: half of this two-expert model is missing")
    if not isinstance(ratio, float) or not 0 < ratio < 1:
        raise BadInput(f"{path}: boundary_ratio is {ratio!r}, but there is a transformer_2: it is between 0 and 1")
    return ratio


def has_token_timesteps(folder: Path) -> bool:
    """Whether the denoiser takes a timestep for each token, as Wan 2.2 TI2V-5B does."""
    return bool(read_json(folder / "model_index.json").get("expand_timesteps"))


def factors(folder: Path) -> Factors:
    """Compression and channels from the autoencoder's config, the token's side from the denoiser's."""
    vae = folder / "vae" / "config.json"
    patch = read_json(folder / "transformer" / "config.json").get("patch_size", [1, 2, 2])
    return Factors(
        temporal_stride=integer(vae, "scale_factor_temporal", 4),
        spatial_stride=integer(vae, "scale_factor_spatial", 8),
        latent_channels=integer(vae, "z_dim", 16),
        patch=int(patch[1]) if isinstance(patch, list) else 2,
    )


def refuse(folder: Path) -> None:
    """Refuses a denoiser that takes an image in a text-to-video index, or another image-to-video than is supported.

    Raises:
        BadInput: names the key.
    """
    path = folder / "transformer" / "config.json"
    config = read_json(path)
    if not is_image_to_video(folder):
        if config.get("image_dim") is not None:
            raise BadInput(f"{path}: image_dim is set: in a WanPipeline only text-to-video is supported")
        return
    if config.get("pos_embed_seq_len") is not None:
        raise BadInput(f"{path}: pos_embed_seq_len is set: a model between a first and a last frame is not supported")
    found, sizes = integer(path, "in_channels", 16), factors(folder)
    beside = 0 if has_token_timesteps(folder) else sizes.temporal_stride + sizes.latent_channels
    if found != sizes.latent_channels + beside:
        raise BadInput(
            f"{path}: in_channels is {found}; an image-to-video model of this autoencoder has "
            f"{sizes.latent_channels + beside}"
        )


def image_parts(folder: Path) -> dict[str, tuple[str, ...]]:
    """The encoder of the image and what prepares it; only Wan 2.1's image-to-video has them."""
    if read_json(folder / "transformer" / "config.json").get("image_dim") is None:
        return {}
    return {"image_encoder": ("CLIPVisionModel",), "image_processor": IMAGE_PROCESSORS}


def denoisers(folder: Path) -> tuple[str, ...]:
    """The folders of what denoises, the one of the highest noise first."""
    return ("transformer",) if boundary(folder) is None else ("transformer", "transformer_2")


def recorded(folder: Path) -> dict[str, object]:
    """What the index says of the denoisers, nothing for Wan 2.1, and the pattern of attention."""
    said: dict[str, object] = {"boundary_ratio": boundary(folder), "expand_timesteps": has_token_timesteps(folder)}
    return {key: value for key, value in said.items() if value} | settings_of(folder).pattern


def beyond(folder: Path) -> tuple[str, ...]:
    """The attention of each denoiser."""
    return tuple(said for name in denoisers(folder) for said in settings_of(folder).beyond(name))


FAMILY: Final = Family(
    name="Wan",
    pipeline="WanPipeline",
    classes=CLASSES,
    settings=settings_of,
    factors=factors,
    lora_targets=LORA_TARGETS,
    refuse=refuse,
    recorded=recorded,
    denoisers=denoisers,
    first_frame=first_frame,
    image_parts=image_parts,
    beyond=beyond,
)
IMAGE_TO_VIDEO: Final = replace(FAMILY, pipeline=IMAGE_TO_VIDEO_PIPELINE)
FAMILIES: Final = (FAMILY, IMAGE_TO_VIDEO)
