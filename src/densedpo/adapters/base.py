"""What a video model looks like to the rest of the package: its geometry, its defaults and the `VideoModel` protocol.

Importing this module imports no torch, so that a command can learn a model's geometry before it loads anything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, assert_never

from densedpo.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import torch
    from jaxtyping import Bool, Float, Int, UInt8
    from torch import Tensor

Target = Literal["velocity", "v_prediction", "eps"]
"""What a denoiser regresses: eps - x of the flow path, alpha eps - sigma x of a variance-preserving one, or eps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Geometry:
    """The size of the clips that a model makes, in pixels, frames and latent cells.

    `temporal_stride` and `spatial_stride` are the autoencoder's compression factors; the first pixel frame has a latent
    frame of its own (causal in time). `patch` is the side, in latent cells, of what the denoiser takes as one token.
    `num_given_frames` latent frames at a clip's start are given and not made (image-to-video): they carry no loss and
    no label. It is 0 for text-to-video.
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
    num_given_frames: int = 0

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
        if not 0 <= self.num_given_frames < self.num_latent_frames:
            raise BadInput(
                f"num_frames = {self.num_frames} leaves nothing to make: {self.num_given_frames} of its "
                f"{self.num_latent_frames} latent frames are given"
            )

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
class FirstFrame:
    """The first frame that is given to each clip, clean at every noise level, as the family's denoiser takes it.

    `held` are the latents that stand in x_t in place of its first `num_given_frames`; `channels` go beside those of
    x_t, all of whose frames are then noised; `embeds` are an image encoder's. A family leaves out what it has not.
    """

    held: Float[Tensor, "batch c given h w"] | None = None
    channels: Float[Tensor, "batch beside f h w"] | None = None
    embeds: Float[Tensor, "batch patch width"] | None = None

    def tensors(self) -> dict[str, Tensor]:
        """What there is, by name: for a file, and back by `FirstFrame(**tensors)`."""
        named = {"held": self.held, "channels": self.channels, "embeds": self.embeds}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def rows(self, index: Int[Tensor, " row"]) -> FirstFrame:
        """Those of some of the clips."""
        return FirstFrame(**{name: tensor[index.to(tensor.device)] for name, tensor in self.tensors().items()})

    @staticmethod
    def cat(frames: Sequence[FirstFrame]) -> FirstFrame:
        """Several as one batch; all are of one family."""
        import torch

        tensors = [frame.tensors() for frame in frames]
        return FirstFrame(**{name: torch.cat([each[name] for each in tensors]) for name in tensors[0]})


@dataclass(frozen=True, kw_only=True, slots=True)
class TextCondition:
    """Encoded captions, one row per caption, as the family's denoiser takes them, and the first frames given with them.

    `mask` says which tokens count and `pooled` is a second encoder's vector of the whole caption; a family that has
    none leaves them out. `first` is there for a model whose geometry has given frames, and for no other.
    """

    embeds: Float[Tensor, "batch token width"]
    mask: Bool[Tensor, "batch token"] | None = None
    pooled: Float[Tensor, "batch pooled_width"] | None = None
    first: FirstFrame | None = None

    def given(self, first: FirstFrame | None) -> TextCondition:
        """The same captions with these first frames."""
        return replace(self, first=first)

    def hold(self, x_t: Float[Tensor, "batch c f h w"]) -> Float[Tensor, "batch c f h w"]:
        """x_t with the held first frames in their place, clean; x_t itself where none are held."""
        if self.first is None or self.first.held is None:
            return x_t
        import torch

        held = self.first.held.to(x_t)
        return torch.cat([held, x_t[:, :, held.shape[2] :]], dim=2)

    def rows(self, index: Int[Tensor, " row"]) -> TextCondition:
        """Some of the captions."""
        return TextCondition(
            embeds=self.embeds[index],
            mask=None if self.mask is None else self.mask[index],
            pooled=None if self.pooled is None else self.pooled[index],
            first=None if self.first is None else self.first.rows(index),
        )

    def expand(self, num_rows: int) -> TextCondition:
        """One caption, of no first frame, for every row of a batch."""
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
        first = [condition.first for condition in conditions if condition.first is not None]
        return TextCondition(
            embeds=torch.cat([condition.embeds for condition in conditions]),
            mask=torch.cat(masks) if masks else None,
            pooled=torch.cat(pooled) if pooled else None,
            first=FirstFrame.cat(first) if first else None,
        )


def require_first_frame(geometry: Geometry, text: TextCondition) -> None:
    """Refuses captions without the first frame that a model continues, and a first frame that it would not look at.

    Raises:
        ValueError: says which.
    """
    if geometry.num_given_frames and text.first is None:
        raise ValueError("this model continues a first frame: give it one by `text.given(model.encode_first(frames))`")
    if text.first is not None and not geometry.num_given_frames:
        raise ValueError("this model takes no first frame: it is text-to-video")


def target_scale(target: Target, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """By what a residual in flow velocity is multiplied to be the residual in the training target, per row.

    With alpha = (1-t)/n, sigma = t/n and n = sqrt((1-t)^2 + t^2) (the variance-preserving point of the same ratio of
    noise to signal), eps - x = (alpha + sigma) v + (sigma - alpha) z, and z is given: the residuals differ by the
    factor alpha + sigma = 1/n, so that v's is n times the velocity's, with n^2 from 1/2 to 1.

    eps - x_t = (1-t) (eps - x) and x_t is given, so that the residual of eps is 1-t times the velocity's. At the last
    level of Stable Diffusion 1's schedule, t = 0.936, its square is 1/243 of the velocity's.
    """
    match target:
        case "velocity":
            return t.new_ones(t.shape)
        case "v_prediction":
            return ((1 - t) ** 2 + t**2).sqrt()
        case "eps":
            return 1 - t
        case _ as unknown:
            assert_never(unknown)


class VideoModel(Protocol):
    """A video model in the package's conventions. Its components are loaded when they are first used.

    Latents are `B C F H W` in the denoiser's normalised space; t is in [0, 1] with 1 = noise; velocity = eps - x.
    With `geometry.num_given_frames` above 0 it continues a first frame (ADR 16), which travels with the text.
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
    """Where `denoiser` answers, half open: (0, 1) unless a model has two experts or its noise levels end earlier."""

    @property
    def denoiser(self) -> torch.nn.Module:
        """What predicts the velocity; its base weights are frozen. Of two experts, the one of low noise."""

    def encode_video(self, frames: UInt8[np.ndarray, "batch time row column 3"]) -> Float[Tensor, "batch c f h w"]:
        """Normalised latents of clips, the posterior's mode."""

    def encode_first(self, frames: UInt8[np.ndarray, "batch row column 3"]) -> FirstFrame:
        """The first frames of clips as the denoiser takes them, by the posterior's mode.

        Raises:
            BadInput: the model is text-to-video and takes none, or the frames do not have its size.
        """

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
        """The denoiser's velocity in float32; each row has its own t and does not depend on the other rows.

        Args:
            x_t: with the held first frames in place (`text.hold`), where the family holds them; what is returned there
                means nothing, and nobody reads it.
        """

    def sigmas(self, num_steps: int) -> Float[Tensor, " step"]:
        """The sampler's `num_steps` + 1 noise levels, from 1 down to 0.

        A model whose schedule ends short of pure noise begins at its own last level (`core.paths.without_signal`).
        """

    def save_adapter(self, path: Path) -> Path:
        """Writes the denoiser's LoRA in the family's own format; a folder gets the format's usual file name."""

    def load_adapter(self, path: Path) -> None:
        """Puts a saved LoRA on the denoiser, in place of the one that is there."""
