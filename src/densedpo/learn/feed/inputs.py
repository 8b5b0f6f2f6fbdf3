"""Reads what a run learns from, and refuses what does not fit, before torch is imported."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from densedpo.core.errors import BadInput
from densedpo.core.layout import LatentLayout, Segments, latent_field, segment_of_latent
from densedpo.core.records import Clip, Pair, Preference, read_jsonl
from densedpo.core.seeds import generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from densedpo.adapters.base import Geometry
    from densedpo.learn.config import LearnConfig

_log = logging.getLogger("densedpo")


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """What the judgements of one pair say, over latent frames."""

    field: NDArray[np.int8]  # [F]
    confidence: NDArray[np.float32]  # [F], 1 where none was given
    sign: int

    @property
    def non_tie_share(self) -> float:
        """Share of latent frames that carry a label."""
        return float((self.field != 0).mean())


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledPair:
    """A generated pair with its labels; `latents` is an absolute path."""

    id: str
    split: str
    caption: str
    latents: Path
    labels: Labels


@dataclass(frozen=True, kw_only=True, slots=True)
class RealClip:
    """A real clip whose latents are cached; `latents` is an absolute path."""

    id: str
    caption: str
    latents: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class PairSplits:
    """The pairs of a run: `train` holds what is sampled, `validation` what is only measured."""

    train: tuple[LabelledPair, ...]
    validation: tuple[LabelledPair, ...]
    num_too_tied: int


def read_pairs(folder: Path, preferences: Path, geometry: Geometry, fingerprint: str) -> tuple[LabelledPair, ...]:
    """Joins preferences with their pairs, in the order of the preferences file.

    Raises:
        BadInput: a preference for a pair that does not exist, another model's or another length's pairs, ranges that
            do not cover the clip, or no preference at all.
    """
    pairs = {pair.id: pair for pair in read_jsonl(folder / "pairs.jsonl", Pair)}
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
        if pair.num_frames != geometry.num_frames:
            raise BadInput(
                f"{folder / 'pairs.jsonl'}: pair {pair.id!r} has {pair.num_frames} frames, not {geometry.num_frames}"
            )
        if pair.split != preference.split:
            raise BadInput(f"{preferences}: pair {pair.id!r} is {preference.split} here and {pair.split} in its folder")
        joined.append(_labelled(pair, preference, folder, preferences, geometry))
    if not joined:
        raise BadInput(f"{preferences} holds no preference: judge the pairs and export first")
    return tuple(joined)


def num_header_rows(preferences: Path) -> int:
    """1 if the file begins with a `{"header": ...}` row, else 0."""
    try:
        with preferences.open(encoding="utf-8") as file:
            first = json.loads(file.readline())
    except FileNotFoundError:
        raise BadInput(f"{preferences}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        return 0
    return int(isinstance(first, dict) and set(first) == {"header"})


def split_pairs(pairs: tuple[LabelledPair, ...], config: LearnConfig) -> PairSplits:
    """The pairs to train on, with shuffled labels where asked, and the validation pairs to measure on.

    Held-out pairs take part in neither.

    Raises:
        BadInput: nothing is left to train on, or evaluations are asked for and there is no validation pair.
    """
    usable = [pair for pair in pairs if _is_usable(pair, config)]
    train = tuple(pair for pair in usable if pair.split == "train")
    validation = tuple(pair for pair in usable if pair.split == "validation")[: config.eval_pairs]
    num_too_tied = len(pairs) - len(usable)
    if not train:
        raise BadInput(
            f"no pair to train on: of {len(pairs)} pairs, {num_too_tied} have fewer labelled frames than "
            f"min_non_tie_share = {config.min_non_tie_share:g} asks for, and none of the rest is in the train split"
        )
    if config.eval_every and not validation:
        raise BadInput("no labelled pair is in the validation split; generate and judge some, or set eval_every = 0")
    if num_too_tied:
        _log.warning("%d of %d pairs are too tied to be sampled", num_too_tied, len(pairs))
    if config.shuffle_labels:
        train = shuffled_labels(train, config.seed)
    return PairSplits(train=train, validation=validation, num_too_tied=num_too_tied)


def shuffled_labels(pairs: tuple[LabelledPair, ...], seed: int) -> tuple[LabelledPair, ...]:
    """The same pairs with each other's labels, whole rows at a time: what a run learns from them is not preference."""
    order = generator(seed, "shuffle labels").permutation(len(pairs))
    return tuple(replace(pair, labels=pairs[source].labels) for pair, source in zip(pairs, order, strict=True))


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
        found.append(RealClip(id=clip.id, caption=clip.caption, latents=latents))
    if not found:
        raise BadInput(f"{clips / 'clips.jsonl'} holds no clip of the train split")
    return tuple(found)


def _labelled(pair: Pair, preference: Preference, folder: Path, preferences: Path, geometry: Geometry) -> LabelledPair:
    layout = LatentLayout(num_frames=geometry.num_frames, stride=geometry.temporal_stride)
    try:
        segments = Segments(ranges=preference.ranges)
        field = latent_field(preference.labels, segments, layout)
        given = preference.confidence or (1.0,) * len(segments)
        confidence = np.asarray(given, dtype=np.float32)[segment_of_latent(segments, layout)]
    except BadInput as error:
        raise BadInput(f"{preferences}: pair {pair.id!r}: {error}") from None
    latents = folder / pair.latents
    if not latents.is_file():
        raise BadInput(f"{latents} is missing: generate the pairs of {folder.name} again")
    labels = Labels(field=field, confidence=confidence, sign=preference.clip_label)
    return LabelledPair(id=pair.id, split=pair.split, caption=pair.caption, latents=latents, labels=labels)


def _is_usable(pair: LabelledPair, config: LearnConfig) -> bool:
    if config.objective == "dpo":
        return pair.labels.sign != 0
    # all ties carry no loss even where the share asked for is 0
    return pair.labels.non_tie_share >= max(config.min_non_tie_share, 1e-9)
