"""What a video model looks like to the rest of the package: its geometry, its defaults and the `VideoModel` protocol.

Importing this module imports no torch, so that a command can learn a model's geometry before it loads anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, assert_never

from densedpo.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import torch
    from jaxtyping import Bool, Float, Int, UInt8
    from torch import Tensor

Target = Literal["velocity", "v_prediction"]
"""What a denoiser regresses: eps - x of the flow path, or alpha eps - sigma x of a variance-preserving one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Geometry:
    """The size of the clips that a model makes, in pixels, frames and latent cells.

    `temporal_stride` and `spatial_stride` are the autoencoder's compression factors; the first pixel frame has a latent
    frame of its own (causal in time). `patch` is the side, in latent cells, of what the denoiser takes as one token.
    """

    num_frames: int
    height: int
    width: int
    fps: float
    temporal_stride: int
    spatial_stride: int
    latent_channels: int
    max_sequence_length: int
    patch: int = 1

    def __post_init__(self) -> None:
        """Refuses sizes that the autoencoder or the denoiser would silently round."""
        if self.num_frames < 1 or (self.num_frames - 1) % self.temporal_stride:
            raise BadInput(
                f"num_frames = {self.num_frames} does not fit the autoencoder: it takes 1 + a multiple of "
                f"{self.temporal_stride} frames"
            )
        multiple = self.spatial_stride * self.patch
        for name, size in (("height", self.height), ("width", self.width)):
            if size < multiple or size % multiple:
                raise BadInput(f"{name} = {size} does not fit the model: it takes multiples of {multiple} pixels")

    @property
    def num_latent_frames(self) -> int:
        """Latent frames of one clip."""
        return (self.num_frames - 1) // self.temporal_stride + 1

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """C, F, H, W of one clip's latents."""
        stride = self.spatial_stride
        return (self.latent_channels, self.num_latent_frames, self.height // stride, self.width // stride)


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingDefaults:
    """How a model is sampled when nobody says otherwise.

    `eta_min` and `eta_max` are the range of noise levels at which guided pairs start, 1 = pure noise.
    """

    num_steps: int
    guidance_scale: float
    eta_min: float = 0.65
    eta_max: float = 0.8


@dataclass(frozen=True, kw_only=True, slots=True)
class TextCondition:
    """Encoded captions, one row per caption, as the family's denoiser takes them.

    `mask` says which tokens count and `pooled` is a second encoder's vector of the whole caption; a family that has
    none leaves them out.
    """

    embeds: Float[Tensor, "batch token width"]
    mask: Bool[Tensor, "batch token"] | None = None
    pooled: Float[Tensor, "batch pooled_width"] | None = None

    def rows(self, index: Int[Tensor, " row"]) -> TextCondition:
        """Some of the captions."""
        return TextCondition(
            embeds=self.embeds[index],
            mask=None if self.mask is None else self.mask[index],
            pooled=None if self.pooled is None else self.pooled[index],
        )

    def expand(self, num_rows: int) -> TextCondition:
        """One caption for every row of a batch."""
        return TextCondition(
            embeds=self.embeds.expand(num_rows, -1, -1),
            mask=None if self.mask is None else self.mask.expand(num_rows, -1),
            pooled=None if self.pooled is None else self.pooled.expand(num_rows, -1),
        )

    @staticmethod
    def cat(conditions: Sequence[TextCondition]) -> TextCondition:
        """Several as one batch; all are of one family."""
        import torch

        masks = [condition.mask for condition in conditions if condition.mask is not None]
        pooled = [condition.pooled for condition in conditions if condition.pooled is not None]
        return TextCondition(
            embeds=torch.cat([condition.embeds for condition in conditions]),
            mask=torch.cat(masks) if masks else None,
            pooled=torch.cat(pooled) if pooled else None,
        )


def target_scale(target: Target, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """By what a residual in flow velocity is multiplied to be the residual in the training target, per row.

    With alpha = (1-t)/n, sigma = t/n and n = sqrt((1-t)^2 + t^2) (the variance-preserving point of the same ratio of
    noise to signal), eps - x = (alpha + sigma) v + (sigma - alpha) z, and z is given: the residuals differ by the
    factor alpha + sigma = 1/n, so that v's is n times the velocity's, with n^2 from 1/2 to 1.
    """
    match target:
        case "velocity":
            return t.new_ones(t.shape)
        case "v_prediction":
            return ((1 - t) ** 2 + t**2).sqrt()
        case _ as unknown:
            assert_never(unknown)


class VideoModel(Protocol):
    """A text-to-video model in the package's conventions. Its components are loaded when they are first used.

    Latents are `B C F H W` in the denoiser's normalised space; t is in [0, 1] with 1 = noise; velocity = eps - x.
    """

    fingerprint: str
    """sha256 over every config and weight file of the base model; adapters do not change it."""
    vae_fingerprint: str
    """sha256 over the autoencoder alone: the key of the latent cache."""
    target: Target
    """What the denoiser regresses, in which the losses measure their errors (`target_scale`)."""
    geometry: Geometry
    defaults: SamplingDefaults
    lora_targets: tuple[str, ...]
    """The denoiser's linear layers that a LoRA adapts unless the recipe says otherwise."""

    trained_t: tuple[float, float]
    """Where `denoiser` is the one that answers, half open; (0, 1) unless a model has two experts."""

    @property
    def denoiser(self) -> torch.nn.Module:
        """What predicts the velocity; its base weights are frozen. Of two experts, the one of low noise."""

    def encode_video(self, frames: UInt8[np.ndarray, "batch time row column 3"]) -> Float[Tensor, "batch c f h w"]:
        """Normalised latents of clips, the posterior's mode."""

    def decode_latents(self, latents: Float[Tensor, "batch c f h w"]) -> UInt8[np.ndarray, "batch time row column 3"]:
        """The clips of normalised latents."""

    def encode_text(self, captions: list[str]) -> TextCondition:
        """Embeddings of captions, each as it is alone; words that the vocabulary lacks are warned of, once each.

        What is kept from before (`catalogue.load`) is read, and no text encoder is loaded for it.
        """

    def encode_ahead(self, captions: list[str]) -> None:
        """Encodes and keeps what is not kept yet, and frees the encoders: what comes next has their memory."""

    def free_encoders(self) -> None:
        """Lets go of the text encoders and the autoencoder and their memory; they are loaded again where needed."""

    def predict(
        self, x_t: Float[Tensor, "batch c f h w"], t: Float[Tensor, " batch"], text: TextCondition
    ) -> Float[Tensor, "batch c f h w"]:
        """The denoiser's velocity in float32; each row has its own t and does not depend on the other rows."""

    def sigmas(self, num_steps: int) -> Float[Tensor, " step"]:
        """The sampler's `num_steps` + 1 noise levels, from 1 down to 0."""

    def save_adapter(self, path: Path) -> Path:
        """Writes the denoiser's LoRA in the family's own format; a folder gets the format's usual file name."""

    def load_adapter(self, path: Path) -> None:
        """Puts a saved LoRA on the denoiser, in place of the one that is there."""
