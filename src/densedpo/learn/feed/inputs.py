"""Reads what a run learns from, and refuses what does not fit, before torch is imported."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open

from densedpo.core.errors import BadInput
from densedpo.core.layout import LatentLayout, Segments, latent_field, segment_of_latent
from densedpo.core.records import Clip, Pair, Preference, read_jsonl
from densedpo.generate.first_frames import FrameFile
from densedpo.learn.feed.trust import num_header_rows, require_trusted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from densedpo.adapters.base import Geometry

_log = logging.getLogger("densedpo")

Value = TypeVar("Value", bound=np.generic)


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """What the judgements of one pair say, over latent frames.

    The first `num_given` frames were given to both clips and made by neither: they have no label, whatever was said of
    their segment. A `mask` says in which cells of a frame its label holds: outside it the clips are the same.
    """

    field: NDArray[np.int8]  # [F]
    confidence: NDArray[np.float32]  # [F], 1 where none was given
    judged: NDArray[np.bool_]  # [F], false where a 0 of the field is no tie but no answer
    sign: int
    segments: Segments
    owner: NDArray[np.int64]  # [F], the segment of each latent frame
    num_given: int = 0
    grid: tuple[int, int] = (1, 1)  # rows and columns of cells; 1 x 1 where no pair of the set has a mask
    mask: NDArray[np.bool_] | None = None  # [F, *grid]

    def over_cells(self, by_frame: NDArray[Value]) -> NDArray[Value]:
        """A value of each latent frame, for each of its cells, [F, *grid]."""
        return np.broadcast_to(by_frame[:, None, None], (len(by_frame), *self.grid))

    @property
    def cells(self) -> NDArray[np.int8]:
        """The labels where they hold, [F, *grid]."""
        return self.over_cells(self.field) if self.mask is None else self.region

    @property
    def region(self) -> NDArray[np.int8]:
        """The labels inside the mask, [F, *grid]; 0 everywhere without one."""
        field = self.over_cells(self.field)
        return np.zeros_like(field) if self.mask is None else np.where(self.mask, field, np.int8(0))

    @property
    def valid(self) -> NDArray[np.bool_]:
        """The latent frames that were made, [F]."""
        return np.arange(len(self.field)) >= self.num_given

    @property
    def non_tie_share(self) -> float:
        """Share of the latent frames that were made which carry a label."""
        return float((self.cells != 0).any((1, 2))[self.num_given :].mean())

    @property
    def judged_share(self) -> float:
        """Share of the latent frames that were made which somebody judged, ties among them."""
        return float(self.judged[self.num_given :].mean())


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledPair:
    """A generated pair with its labels; `latents` is an absolute path."""

    id: str
    split: str
    caption: str
    source: str  # what pairs share that must not be torn apart: the video of the real clip, else the prompt
    latents: Path
    noise_keys: tuple[str, str]  # of the noises that a and b were generated from
    labels: Labels
    latent_shape: tuple[int, int, int, int] | None = None  # of each clip, C F H W; None is the model's own
    has_real_winner: bool = False  # one clip is real and the other its corrupted copy


@dataclass(frozen=True, kw_only=True, slots=True)
class RealClip:
    """A real clip whose latents are cached, in an absolute path; `frame` is where its first frame is."""

    id: str
    caption: str
    latents: Path
    frame: FrameFile


def read_pairs(
    folder: Path,
    preferences: Path,
    geometry: Geometry,
    fingerprint: str,
    *,
    clips: Path | None = None,
    allow_failed_judge: bool = False,
) -> tuple[LabelledPair, ...]:
    """Joins preferences with their pairs, in the order of the preferences file.

    Args:
        clips: the folder of the real clips; pairs of clips that were cut from one video then have one source.
        allow_failed_judge: also read labels of a judge that failed its probe.

    Raises:
        BadInput: a preference for a pair that does not exist, another model's pairs, a length or size that the model
            does not take, ranges that do not cover the clip, labels of a judge that failed its probe, or no preference
            at all.
    """
    require_trusted(preferences, allow_failed_judge=allow_failed_judge)
    pairs = {pair.id: pair for pair in read_jsonl(folder / "pairs.jsonl", Pair)}
    sources = _sources(clips)
    # of the pairs on disk, not of those that were judged: cached errors are shared by all runs on them
    by_cell = any(_has_mask(pair) for pair in pairs.values())
    joined = []
    for preference in read_jsonl(preferences, Preference, skip=num_header_rows(preferences)):
        pair = pairs.get(preference.pair_id)
        if pair is None:
            raise BadInput(f"{preferences}: pair {preference.pair_id!r} is not in {folder / 'pairs.jsonl'}")
        if pair.model != fingerprint:
            raise BadInput(
                f"{folder / 'pairs.jsonl'}: pair {pair.id!r} was made by another model ({pair.model[:12]}, this one is "
                f"{fingerprint[:12]}); generate pairs with this model, or name the one that made them"
            )
        if pair.split != preference.split:
            raise BadInput(f"{preferences}: pair {pair.id!r} is {preference.split} here and {pair.split} in its folder")
        source = sources.get(pair.clip_id or "", pair.clip_id or pair.prompt_id)
        try:
            own = replace(geometry, num_frames=pair.num_frames, height=pair.height, width=pair.width)
        except BadInput as error:
            raise BadInput(f"{folder / 'pairs.jsonl'}: pair {pair.id!r}: {error}") from None
        joined.append(_labelled(pair, preference, folder, preferences, own, source, by_cell=by_cell))
    if not joined:
        raise BadInput(f"{preferences} holds no preference: judge the pairs and export first")
    num_lost = sum(len(_without_frames(each.labels)) for each in joined)
    if num_lost:
        _log.warning(
            "%s: %d segments hold no latent frame but the one that is given; their labels are not used",
            preferences,
            num_lost,
        )
    return tuple(joined)


def read_clips(clips: Path, vae_fingerprint: str) -> tuple[RealClip, ...]:
    """The real clips of the train split, in the order of clips.jsonl.

    Raises:
        BadInput: there is none, or its latents are not cached for this autoencoder.
    """
    found = []
    for clip in read_jsonl(clips / "clips.jsonl", Clip):
        if clip.split != "train":
            continue
        latents = clips / "latents" / vae_fingerprint / f"{clip.content}.safetensors"
        if not latents.is_file():
            raise BadInput(f"{latents} is missing: run `densedpo data add` with this model to cache the latents")
        frame = FrameFile.of(clip, clips)
        found.append(RealClip(id=clip.id, caption=clip.caption, latents=latents, frame=frame))
    if not found:
        raise BadInput(f"{clips / 'clips.jsonl'} holds no clip of the train split")
    return tuple(found)


def _sources(clips: Path | None) -> dict[str, str]:
    """The source video of each real clip, by the clip's id."""
    if clips is None or not (clips / "clips.jsonl").exists():
        return {}
    return {clip.id: clip.source for clip in read_jsonl(clips / "clips.jsonl", Clip)}


def _without_frames(labels: Labels) -> frozenset[int]:
    """The segments all of whose latent frames are given: nothing can be learned from their labels."""
    return frozenset(labels.owner.tolist()) - frozenset(labels.owner[labels.num_given :].tolist())


def _has_mask(pair: Pair) -> bool:
    return pair.corruption is not None and pair.corruption.kind == "regenerated"


def _read_mask(latents: Path, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Where a regenerated clip was made anew, [F, H, W], as it lies beside the pair's latents.

    Raises:
        BadInput: there is none of this shape.
    """
    try:
        with safe_open(latents, framework="np") as file:
            mask: NDArray[np.bool_] = np.asarray(file.get_tensor("mask"))
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{latents} holds no mask of what was made anew ({error}); generate its pairs again") from None
    if mask.shape != shape or mask.dtype != np.bool_:
        raise BadInput(f"{latents}: mask is {mask.dtype} {mask.shape}, not bool {shape}; generate its pairs again")
    return mask


def _labelled(
    pair: Pair,
    preference: Preference,
    folder: Path,
    preferences: Path,
    geometry: Geometry,
    source: str,
    *,
    by_cell: bool,
) -> LabelledPair:
    layout = LatentLayout(num_frames=geometry.num_frames, stride=geometry.temporal_stride)
    num_given = geometry.num_given_frames
    if pair.num_given_frames != num_given:
        raise BadInput(
            f"{folder / 'pairs.jsonl'}: pair {pair.id!r} has {pair.num_given_frames} given latent frames, the model "
            f"has {num_given}"
        )
    try:
        segments = Segments(ranges=preference.ranges)
        field = latent_field(preference.labels, segments, layout)
        given = preference.confidence or (1.0,) * len(segments)
        owner = segment_of_latent(segments, layout)
        confidence = np.asarray(given, dtype=np.float32)[owner]
        judged = np.asarray(preference.answered or (True,) * len(segments), dtype=np.bool_)[owner]
        field[:num_given], judged[:num_given] = 0, False
    except BadInput as error:
        raise BadInput(f"{preferences}: pair {pair.id!r}: {error}") from None
    latents = folder / pair.latents
    if not latents.is_file():
        raise BadInput(f"{latents} is missing: generate the pairs of {folder.name} again")
    labels = Labels(
        field=field,
        confidence=confidence,
        judged=judged | (field != 0),
        sign=preference.clip_label,
        segments=segments,
        owner=owner,
        num_given=num_given,
        grid=geometry.latent_shape[2:] if by_cell else (1, 1),
        mask=_read_mask(latents, geometry.latent_shape[1:]) if _has_mask(pair) else None,
    )
    return LabelledPair(
        id=pair.id,
        split=pair.split,
        caption=pair.caption,
        source=source,
        latents=latents,
        noise_keys=(pair.noise_key_a, pair.noise_key_b),
        labels=labels,
        latent_shape=geometry.latent_shape,
        has_real_winner=pair.corruption is not None,
    )
