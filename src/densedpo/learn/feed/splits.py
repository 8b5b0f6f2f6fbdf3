"""Which labelled pairs a run trains on, which it is measured on, and which it leaves out."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from densedpo.core.errors import BadInput
from densedpo.core.seeds import derive_seed, generator

if TYPE_CHECKING:
    from densedpo.learn.config import LearnConfig
    from densedpo.learn.feed.inputs import LabelledPair

_log = logging.getLogger("densedpo")


@dataclass(frozen=True, kw_only=True, slots=True)
class PairSplits:
    """The pairs of a run: `train` holds what is sampled, `validation` what is only measured.

    `left_out` is the part of the training pairs that a run with a fold judges instead of learning from it.
    """

    train: tuple[LabelledPair, ...]
    validation: tuple[LabelledPair, ...]
    num_too_tied: int
    left_out: tuple[LabelledPair, ...] = ()


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
