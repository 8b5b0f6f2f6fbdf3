"""Reads what a run learns from, and refuses what does not fit, before torch is imported."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open

from densedpo.core.errors import BadInput
from densedpo.core.layout import LatentLayout, Segments, latent_field, segment_of_latent
from densedpo.core.records import Clip, Pair, Preference, from_row, read_jsonl
from densedpo.core.seeds import derive_seed, generator
from densedpo.generate.first_frames import FrameFile
from densedpo.judge.probe.verdict import ProbeVerdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from densedpo.adapters.base import Geometry
    from densedpo.learn.config import LearnConfig

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


@dataclass(frozen=True, kw_only=True, slots=True)
class PairSplits:
    """The pairs of a run: `train` holds what is sampled, `validation` what is only measured.

    `left_out` is the part of the training pairs that a run with a fold judges instead of learning from it.
    """

    train: tuple[LabelledPair, ...]
    validation: tuple[LabelledPair, ...]
    num_too_tied: int
    left_out: tuple[LabelledPair, ...] = ()


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


def require_trusted(preferences: Path, *, allow_failed_judge: bool) -> None:
    """Refuses labels of a judge that failed its probe, as the header says; what was not probed is not refused.

    Raises:
        BadInput: names the judge, why it failed and the way out; or the header's probes cannot be read.
    """
    if not num_header_rows(preferences):
        return
    with preferences.open(encoding="utf-8") as file:
        header = json.loads(file.readline())["header"]
    probes = header.get("probes", []) if isinstance(header, dict) else []
    for row in probes:
        verdict = from_row(ProbeVerdict, row, f"{preferences}:1: probes")
        require_passed(verdict, where=str(preferences), setting="allow_failed_judge", allowed=allow_failed_judge)


def require_passed(verdict: ProbeVerdict, *, where: str, setting: str, allowed: bool) -> None:
    """Refuses a judge that failed its probe; where a setting allows it, says so.

    Raises:
        BadInput: names the judge, why it failed and the setting.
    """
    if verdict.passed:
        return
    said = f"{where}: {verdict.annotator!r} failed its probe ({'; '.join(verdict.reasons)})"
    if not allowed:
        raise BadInput(f"{said}; use another judge, or pass --set {setting}=true")
    _log.warning("%s; learning from it all the same, as %s says", said, setting)


def split_pairs(pairs: tuple[LabelledPair, ...], config: LearnConfig) -> PairSplits:
    """The pairs to train on, with shuffled labels where asked, and the validation pairs to measure on.

    Held-out pairs take part in neither. With a fold, its part of the training pairs is left out, tied pairs included.

    Raises:
        BadInput: the pairs' own noise is asked for and they have none, nothing is left to train on, a fold has no pair,
            or evaluations are asked for and there is no validation pair.
    """
    if config.noise == "own" and any("" in pair.noise_keys for pair in pairs):
        raise BadInput(
            "noise = 'own': a real clip was made from no noise of its own; use noise = 'fresh' with these pairs"
        )
    usable = [pair for pair in pairs if is_usable(pair, config)]
    apart = _sources_left_out(pairs, config)
    train = tuple(pair for pair in usable if pair.split == "train" and pair.source not in apart)
    left_out = tuple(pair for pair in pairs if pair.split == "train" and pair.source in apart)
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
    return PairSplits(train=train, validation=validation, num_too_tied=num_too_tied, left_out=left_out)


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


def _sources_left_out(pairs: tuple[LabelledPair, ...], config: LearnConfig) -> frozenset[str]:
    """The sources of the configured fold: the same cut for every fold of the same pairs, whatever else is set."""
    if config.fold is None:
        return frozenset()
    index, num_folds = config.fold
    found = {pair.source for pair in pairs if pair.split == "train"}
    if len(found) < num_folds:
        raise BadInput(f"fold = {list(config.fold)}: {len(found)} sources of training pairs are too few for its parts")
    sources = sorted(found, key=lambda name: derive_seed("fold", name))
    return frozenset(sources[index::num_folds])


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


def is_usable(pair: LabelledPair, config: LearnConfig) -> bool:
    """Whether a pair's labels say enough for the configured objective to be learned from."""
    if config.objective == "dpo":
        return pair.labels.sign != 0
    if config.objective == "dpo_levels" and config.level_weights[0] > 0 and pair.labels.sign != 0:
        return True
    # ties have no accuracy: a run that learns from them is measured on the same pairs as one that does not
    takes_ties = config.objective == "dense_dpo_ties" and pair.split == "train"
    share = pair.labels.judged_share if takes_ties else pair.labels.non_tie_share
    # all ties carry no loss even where the share asked for is 0
    return share >= max(config.min_non_tie_share, 1e-9)
