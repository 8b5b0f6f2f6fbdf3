"""Tensors of a step: latents read once, captions encoded once, noise and t by name."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from densedpo.adapters.base import TextCondition, VideoModel
from densedpo.core import seeds
from densedpo.core.errors import BadInput
from densedpo.learn.feed.order import TimeDensity, Visit, time_of

_log = logging.getLogger("densedpo")

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from densedpo.learn.feed.inputs import LabelledPair, RealClip

    Latents = Float[Tensor, "batch channel frame height width"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipBatch:
    """Clips with their noise, t and captions: what one packed forward of a model takes."""

    latents: Latents
    noise: Latents
    t: Float[Tensor, "batch"]
    text: TextCondition


@dataclass(frozen=True, kw_only=True, slots=True)
class PairBatch:
    """Pairs with one t and one noise each, for both clips and both models, and their labels per latent frame."""

    ids: tuple[str, ...]
    latents_a: Latents
    latents_b: Latents
    noise: Latents
    t: Float[Tensor, "batch"]
    text: TextCondition
    field: Int[Tensor, "batch frame 1 1"]
    confidence: Float[Tensor, "batch frame 1 1"]
    sign: Int[Tensor, "batch"]
    valid: Bool[Tensor, "batch frame 1 1"]

    def packed(self) -> ClipBatch:
        """All a, then all b, as one batch: one forward for both clips."""
        return ClipBatch(
            latents=torch.cat([self.latents_a, self.latents_b]),
            noise=torch.cat([self.noise, self.noise]),
            t=torch.cat([self.t, self.t]),
            text=TextCondition(embeds=torch.cat([self.text.embeds, self.text.embeds])),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """How (t, noise) of an item's draws come about."""

    noise_seed: int
    count: int | Literal["fresh"]
    density: TimeDensity


class Source:
    """The latents and captions that batches are made of, kept in memory from their first use on."""

    def __init__(self, model: VideoModel) -> None:
        """Nothing is read yet.

        Args:
            model: encodes the captions and says which shape latents have.
        """
        self._model = model
        self._latents: dict[Path, dict[str, Tensor]] = {}
        self._embeds: dict[str, Tensor] = {}

    def pairs(self, pairs: Sequence[LabelledPair], visits: Sequence[Visit], draws: Draws) -> PairBatch:
        """The batch of some visits to `pairs`."""
        chosen = [pairs[visit.index] for visit in visits]
        tensors = [self._read(pair.latents, ("a", "b")) for pair in chosen]
        drawn = self._drawn([pair.id for pair in chosen], visits, draws)
        field = torch.from_numpy(np.stack([pair.labels.field for pair in chosen]))[:, :, None, None]
        confidence = torch.from_numpy(np.stack([pair.labels.confidence for pair in chosen]))[:, :, None, None]
        return PairBatch(
            ids=tuple(pair.id for pair in chosen),
            latents_a=torch.stack([clips["a"] for clips in tensors]),
            latents_b=torch.stack([clips["b"] for clips in tensors]),
            noise=drawn[0],
            t=drawn[1],
            text=self._text([pair.caption for pair in chosen]),
            field=field,
            confidence=confidence,
            sign=torch.tensor([pair.labels.sign for pair in chosen]),
            valid=torch.ones_like(field, dtype=torch.bool),
        )

    def clips(self, clips: Sequence[RealClip], visits: Sequence[Visit], draws: Draws) -> ClipBatch:
        """The batch of some visits to `clips`."""
        chosen = [clips[visit.index] for visit in visits]
        drawn = self._drawn([clip.id for clip in chosen], visits, draws)
        return ClipBatch(
            latents=torch.stack([self._read(clip.latents, ("latents",))["latents"] for clip in chosen]),
            noise=drawn[0],
            t=drawn[1],
            text=self._text([clip.caption for clip in chosen]),
        )

    def _drawn(self, ids: Sequence[str], visits: Sequence[Visit], draws: Draws) -> tuple[Tensor, Tensor]:
        """Noise [B C F H W] and t [B] of the visits."""
        shape = self._model.geometry.latent_shape
        noise, times = [], []
        for item_id, visit in zip(ids, visits, strict=True):
            noise.append(seeds.noise(shape, draws.noise_seed, item_id, visit.draw))
            times.append(
                time_of(item_id, visit.draw, noise_seed=draws.noise_seed, draws=draws.count, density=draws.density)
            )
        return torch.stack(noise), torch.tensor(times, dtype=torch.float32)

    def _text(self, captions: Sequence[str]) -> TextCondition:
        for caption in captions:
            if caption not in self._embeds:
                # one at a time: an embedding must not depend on which captions it was encoded with
                self._embeds[caption] = self._model.encode_text([caption]).embeds
        return TextCondition(embeds=torch.cat([self._embeds[caption] for caption in captions]))

    def _read(self, path: Path, keys: tuple[str, ...]) -> dict[str, Tensor]:
        if path not in self._latents:
            tensors = self._latents[path] = _load_latents(path, keys, self._model.geometry.latent_shape)
            if len(keys) == 2 and torch.equal(tensors[keys[0]], tensors[keys[1]]):
                _log.warning("%s: both clips are the same, so there is nothing to learn from this pair", path)
        return self._latents[path]


def _load_latents(path: Path, keys: tuple[str, ...], shape: tuple[int, ...]) -> dict[str, Tensor]:
    """The named tensors of a safetensors file as float32.

    Raises:
        BadInput: not a safetensors file, a key is missing, a shape is not the model's, or a value is not finite.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, FileNotFoundError) as error:
        raise BadInput(f"{path} is not a readable safetensors file: {error}") from None
    for key in keys:
        if key not in tensors:
            raise BadInput(f"{path} has no tensor {key!r}, only {sorted(tensors)}")
        if tuple(tensors[key].shape) != shape:
            raise BadInput(f"{path}: {key} has shape {tuple(tensors[key].shape)}, the model takes {shape}")
        if not bool(tensors[key].isfinite().all()):
            raise BadInput(f"{path}: {key} holds values that are not finite")
    return {key: tensors[key].float() for key in keys}
