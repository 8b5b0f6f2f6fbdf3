"""Tensors of a step: latents and captions kept in memory while there is room, noise and t by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from densedpo.adapters.base import FirstFrame, TextCondition, VideoModel
from densedpo.core import seeds
from densedpo.core.errors import BadInput
from densedpo.generate.first_frames import FIRST_PREFIX, encode_first_frames, read_first
from densedpo.learn.feed.order import TimeDensity, Visit, time_of

_log = logging.getLogger("densedpo")
# of each process: a set of pairs at 480p is hundreds of GB; captions and first frames lie on the device, and each of
# the two has the smaller room
KEPT_LATENTS_BYTES: Final = 8 * 2**30
KEPT_CAPTIONS_BYTES: Final = 2**30
Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Shaped
    from numpy.typing import NDArray
    from torch import Tensor

    from densedpo.learn.feed.inputs import LabelledPair, RealClip

    Latents = Float[Tensor, "batch channel frame height width"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipBatch:
    """Clips with their noise, t and captions: what one packed forward of a model takes.

    `by_cell`: errors are wanted for each cell of a latent frame, since labels are in space too.
    """

    latents: Latents
    noise: Latents
    t: Float[Tensor, "batch"]
    text: TextCondition
    by_cell: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class PairBatch:
    """Pairs with one t each, for both clips and both models, and their labels per latent frame and cell.

    The two noises are one unless the pairs' own are asked for. Labels in time only have a grid of 1 x 1 cells. `field`
    is the finest there is: of the region where a pair has one (`region`, else 0), and else of the segments (`segment`).
    """

    ids: tuple[str, ...]
    latents_a: Latents
    latents_b: Latents
    noise_a: Latents
    noise_b: Latents
    t: Float[Tensor, "batch"]
    text: TextCondition
    field: Int[Tensor, "batch frame row column"]
    segment: Int[Tensor, "batch frame row column"]
    region: Int[Tensor, "batch frame row column"]
    confidence: Float[Tensor, "batch frame row column"]
    sign: Int[Tensor, "batch"]
    judged: Bool[Tensor, "batch frame row column"]
    valid: Bool[Tensor, "batch frame row column"]

    @property
    def by_cell(self) -> bool:
        """Whether labels are in space too."""
        return tuple(self.field.shape[2:]) != (1, 1)

    def packed(self) -> ClipBatch:
        """All a, then all b, as one batch: one forward for both clips."""
        return ClipBatch(
            latents=torch.cat([self.latents_a, self.latents_b]),
            noise=torch.cat([self.noise_a, self.noise_b]),
            t=torch.cat([self.t, self.t]),
            text=TextCondition.cat([self.text, self.text]),
            by_cell=self.by_cell,
        )

    def apart(self) -> tuple[ClipBatch, ClipBatch]:
        """All a, and all b, as batches of their own: two forwards of half the size."""
        return (
            ClipBatch(latents=self.latents_a, noise=self.noise_a, t=self.t, text=self.text, by_cell=self.by_cell),
            ClipBatch(latents=self.latents_b, noise=self.noise_b, t=self.t, text=self.text, by_cell=self.by_cell),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """How (t, noise) of an item's draws come about."""

    noise_seed: int
    count: int | Literal["fresh"]
    density: TimeDensity
    noise: Literal["fresh", "own"] = "fresh"  # own: each clip of a pair gets the noise it was generated from


class Kept(Generic[Key, Value]):
    """What was read, while there is room; what has none is read anew each time."""

    def __init__(self, room: int) -> None:
        """Args: `room` is in bytes."""
        self._room = room
        self._values: dict[Key, Value] = {}

    def of(self, key: Key, read: Callable[[], Value], tensors: Callable[[Value], Sequence[Tensor]]) -> Value:
        """The value of a key, read if it is not kept.

        Args:
            tensors: of a value: what takes the room.
        """
        if key in self._values:
            return self._values[key]
        value = read()
        size = sum(tensor.nbytes for tensor in tensors(value))
        if size <= self._room:
            self._room -= size
            self._values[key] = value
        return value


class Source:
    """The latents and captions that batches are made of, kept in memory while there is room."""

    def __init__(
        self,
        model: VideoModel,
        *,
        kept_latents_bytes: int = KEPT_LATENTS_BYTES,
        kept_captions_bytes: int = KEPT_CAPTIONS_BYTES,
    ) -> None:
        """Nothing is read yet.

        Args:
            model: encodes the captions and says which shape latents have.
        """
        self._model = model
        self._latents: Kept[Path, dict[str, Tensor]] = Kept(kept_latents_bytes)
        self._embeds: Kept[str, TextCondition] = Kept(kept_captions_bytes)
        self._told: set[Path] = set()
        self._differences: dict[Path, Tensor] = {}
        self._first: Kept[str, FirstFrame] = Kept(kept_captions_bytes)

    def pairs(self, pairs: Sequence[LabelledPair], visits: Sequence[Visit], draws: Draws) -> PairBatch:
        """The batch of some visits to `pairs`, whose latents are of one size."""
        chosen = [pairs[visit.index] for visit in visits]
        tensors = [self._read_pair(pair) for pair in chosen]
        shape = tuple(tensors[0]["a"].shape)
        t = _times([pair.id for pair in chosen], visits, draws, self._model.trained_t)
        if draws.noise == "own":
            keys = [[pair.noise_keys[side] for pair in chosen] for side in (0, 1)]
            noise_a, noise_b = (torch.stack([seeds.noise(shape, key) for key in side]) for side in keys)
        else:
            noise_a = noise_b = _noise(shape, [pair.id for pair in chosen], visits, draws)
        text = self._text([pair.caption for pair in chosen])
        if self._model.geometry.num_given_frames:
            given = [read_first(clips, pair.latents) for pair, clips in zip(chosen, tensors, strict=True)]
            text = text.given(FirstFrame.cat(given))
        labels = [pair.labels for pair in chosen]
        return PairBatch(
            ids=tuple(pair.id for pair in chosen),
            latents_a=torch.stack([clips["a"] for clips in tensors]),
            latents_b=torch.stack([clips["b"] for clips in tensors]),
            noise_a=noise_a,
            noise_b=noise_b,
            t=t,
            text=text,
            field=_stacked([each.cells for each in labels]),
            segment=_stacked([each.over_cells(each.field) for each in labels]),
            region=_stacked([each.region for each in labels]),
            confidence=_stacked([each.over_cells(each.confidence) for each in labels]),
            sign=torch.tensor([each.sign for each in labels]),
            judged=_stacked([each.over_cells(each.judged) for each in labels]),
            valid=_stacked([each.over_cells(each.valid) for each in labels]),
        )

    def differences(self, pairs: Sequence[LabelledPair]) -> Float[Tensor, "batch frame 1 1"]:
        """How much the two clips of each pair differ in each latent frame, with mean 1 over the frames that were made.

        The mean of |a - b| over channels, rows and columns: for aligned pairs a free map of where there is something to
        prefer. Two clips that are the same have weight 1 everywhere.
        """
        rows = []
        for pair in pairs:
            if pair.latents not in self._differences:
                clips = self._read_pair(pair)
                by_frame = (clips["a"] - clips["b"]).abs().mean((0, 2, 3))
                mean = by_frame[pair.labels.num_given :].mean()
                self._differences[pair.latents] = by_frame / mean if mean > 0 else torch.ones_like(by_frame)
            rows.append(self._differences[pair.latents])
        return torch.stack(rows)[:, :, None, None]

    def clips(self, clips: Sequence[RealClip], visits: Sequence[Visit], draws: Draws) -> ClipBatch:
        """The batch of some visits to `clips`."""
        chosen = [clips[visit.index] for visit in visits]
        ids, shape = [clip.id for clip in chosen], self._model.geometry.latent_shape
        latents = torch.stack([self._read(clip.latents, ("latents",), shape)["latents"] for clip in chosen])
        text = self._text([clip.caption for clip in chosen])
        if self._model.geometry.num_given_frames:
            text = text.given(FirstFrame.cat([self._first_of(clip) for clip in chosen]))
        return ClipBatch(
            latents=latents,
            noise=_noise(shape, ids, visits, draws),
            t=_times(ids, visits, draws, self._model.trained_t),
            text=text,
        )

    def _first_of(self, clip: RealClip) -> FirstFrame:
        """A real clip's own first frame."""
        return self._first.of(
            clip.id,
            partial(encode_first_frames, self._model, [clip.frame]),
            lambda first: list(first.tensors().values()),
        )

    def _text(self, captions: Sequence[str]) -> TextCondition:
        # one at a time: an embedding must not depend on which captions it was encoded with
        return TextCondition.cat(
            [self._embeds.of(caption, partial(self._model.encode_text, [caption]), _tensors_of) for caption in captions]
        )

    def _read_pair(self, pair: LabelledPair) -> dict[str, Tensor]:
        return self._read(pair.latents, ("a", "b"), pair.latent_shape or self._model.geometry.latent_shape)

    def _read(self, path: Path, keys: tuple[str, ...], shape: tuple[int, ...]) -> dict[str, Tensor]:
        tensors = self._latents.of(path, lambda: _load_latents(path, keys, shape), lambda read: list(read.values()))
        if path not in self._told:
            self._told.add(path)
            if len(keys) == 2 and torch.equal(tensors[keys[0]], tensors[keys[1]]):
                _log.warning("%s: both clips are the same, so there is nothing to learn from this pair", path)
        return tensors


def _tensors_of(text: TextCondition) -> list[Tensor]:
    return [tensor for tensor in (text.embeds, text.mask, text.pooled) if tensor is not None]


def _stacked(rows: Sequence[NDArray[np.generic]]) -> Shaped[Tensor, "batch frame row column"]:
    return torch.from_numpy(np.stack(rows))


def _noise(shape: tuple[int, ...], ids: Sequence[str], visits: Sequence[Visit], draws: Draws) -> Latents:
    named = zip(ids, visits, strict=True)
    return torch.stack([seeds.noise(shape, draws.noise_seed, item_id, visit.draw) for item_id, visit in named])


def _times(
    ids: Sequence[str], visits: Sequence[Visit], draws: Draws, trained_t: tuple[float, float]
) -> Float[Tensor, "batch"]:
    """The t of each visit, the density brought into the range in which the model's denoiser answers."""
    low, high = trained_t
    times = [
        low
        + (high - low)
        * time_of(item_id, visit.draw, noise_seed=draws.noise_seed, draws=draws.count, density=draws.density)
        for item_id, visit in zip(ids, visits, strict=True)
    ]
    return torch.tensor(times, dtype=torch.float32)


def _load_latents(path: Path, keys: tuple[str, ...], shape: tuple[int, ...]) -> dict[str, Tensor]:
    """The named tensors of a safetensors file, and those of a first frame, as float32.

    Raises:
        BadInput: not a safetensors file, a key is missing, a shape is not the one told, or a value is not finite.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, FileNotFoundError) as error:
        raise BadInput(f"{path} is not a readable safetensors file: {error}") from None
    for key in keys:
        if key not in tensors:
            raise BadInput(f"{path} has no tensor {key!r}, only {sorted(tensors)}")
        if tuple(tensors[key].shape) != shape:
            raise BadInput(f"{path}: {key} has shape {tuple(tensors[key].shape)}, not {shape} as its clip says")
        if not bool(tensors[key].isfinite().all()):
            raise BadInput(f"{path}: {key} holds values that are not finite")
    # what a first frame was given as lies beside the clips
    return {key: tensor.float() for key, tensor in tensors.items() if key in keys or key.startswith(FIRST_PREFIX)}
