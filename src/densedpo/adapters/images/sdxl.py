"""Images from captions by Stable Diffusion XL, for first frames: a local folder of safetensors, nothing else.

Only its own pipeline knows how it encodes and denoises, so that is what runs; seeds and noise are this package's.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from densedpo.adapters import files
from densedpo.core.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from diffusers import StableDiffusionXLPipeline
    from jaxtyping import UInt8

CLASSES: Final[dict[str, tuple[str, ...]]] = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"),
    "tokenizer_2": ("CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"),
}


def check_image_model(folder: Path, unet: Path | None = None) -> None:
    """Refuses what is not a whole SDXL directory in safetensors, before anything is loaded.

    Args:
        unet: a folder with another UNet of the same kind, such as one that was tuned by DPO.

    Raises:
        BadInput: names the file or the component.
    """
    if not (folder / "model_index.json").is_file():
        raise BadInput(f"{folder} has no model_index.json: image_model is a diffusers directory of Stable Diffusion XL")
    found = files.read_json(folder / "model_index.json").get("_class_name")
    if found != "StableDiffusionXLPipeline":
        raise BadInput(f"{folder} is the directory of {found}; first frames are drawn by a StableDiffusionXLPipeline")
    files.check_components(folder, CLASSES)
    weighty = [folder / name for name in CLASSES if not name.startswith(files.WITHOUT_WEIGHTS)]
    for each in weighty if unet is None else [*weighty, unet]:
        files.check_weights(each)
    if unet is not None:
        _check_unet(unet, folder / "unet")


def _check_unet(unet: Path, own: Path) -> None:
    """A UNet of Stable Diffusion 1 or 2 is of the same class and takes neither the captions nor the sizes of SDXL."""
    found, wanted = (files.read_json(each / "config.json") for each in (unet, own))
    for key in ("_class_name", "cross_attention_dim", "addition_embed_type", "in_channels"):
        if found.get(key) != wanted.get(key):
            raise BadInput(
                f"{unet}: {key} is {found.get(key)!r}, and {wanted.get(key)!r} in {own}: image_unet is a folder with a "
                "UNet of the same kind"
            )


def image_model_fingerprint(folder: Path, unet: Path | None = None) -> str:
    """sha256 over every config and weight file that an image depends on."""
    parts = [files.fingerprint(folder, (*CLASSES, "scheduler"))]
    if unet is not None:
        parts.append(files.fingerprint(unet.parent, (unet.name,)).replace(unet.name, "unet"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class ImageModel:
    """A loaded text-to-image model."""

    def __init__(self, folder: Path, unet: Path | None, *, device: str, dtype: str) -> None:
        """Loads it whole.

        Args:
            unet: a folder whose UNet replaces the directory's.
            dtype: float32, float16 or bfloat16.

        Raises:
            BadInput: see `check_image_model`; or a file does not fit its config.
        """
        import torch

        from densedpo.adapters.loading import load_component, loading, without_hints

        with without_hints():
            from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
            from transformers import CLIPTextModel, CLIPTextModelWithProjection

        check_image_model(folder, unet)
        where = torch.device(device)
        precision = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[dtype]
        with loading(folder):
            pipeline = StableDiffusionXLPipeline.from_pretrained(
                folder,
                unet=load_component(
                    UNet2DConditionModel.from_pretrained, unet or folder / "unet", device=where, torch_dtype=precision
                ),
                vae=load_component(AutoencoderKL.from_pretrained, folder / "vae", device=where, torch_dtype=precision),
                text_encoder=load_component(
                    CLIPTextModel.from_pretrained, folder / "text_encoder", device=where, dtype=precision
                ),
                text_encoder_2=load_component(
                    CLIPTextModelWithProjection.from_pretrained,
                    folder / "text_encoder_2",
                    device=where,
                    dtype=precision,
                ),
                local_files_only=True,
                add_watermarker=False,
            )
        self._pipeline: StableDiffusionXLPipeline = pipeline
        self._pipeline.set_progress_bar_config(disable=True)
        self._dtype = precision

    @property
    def multiple(self) -> int:
        """Height and width of an image are multiples of this many pixels."""
        return int(self._pipeline.vae_scale_factor)

    def draw(
        self,
        caption: str,
        *,
        noise_key: tuple[str | int, ...],
        height: int,
        width: int,
        num_steps: int,
        guidance_scale: float,
    ) -> UInt8[np.ndarray, "row column 3"]:
        """One image; the same bits for the same key on one machine.

        Raises:
            BadInput: the size is one that the autoencoder would round.
        """
        import torch

        from densedpo.core.seeds import derive_seed, noise, seeded_init

        side = self.multiple
        if height % side or width % side:
            raise BadInput(f"an image of {height}x{width} does not fit the image model: it takes multiples of {side}")
        shape = (int(self._pipeline.unet.config.in_channels), height // side, width // side)
        # the noise to begin with is given; a scheduler may draw more
        with torch.no_grad(), seeded_init(derive_seed(*noise_key, "steps")):
            images = self._pipeline(
                prompt=caption,
                height=height,
                width=width,
                num_inference_steps=num_steps,
                guidance_scale=guidance_scale,
                latents=noise(shape, *noise_key)[None].to(self._dtype),
                output_type="np",
            ).images
        found: UInt8[np.ndarray, "row column 3"] = (images[0] * 255).round().astype("uint8")
        return found
