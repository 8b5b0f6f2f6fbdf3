"""Opens a study on a set of pairs: draws its items once, appends what has come to the pairs since."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sqlalchemy import Connection

from densedpo.core.errors import BadInput
from densedpo.core.records import CLIP_SIDES, ClipSide, Judgement, Pair
from densedpo.core.seeds import derive_seed
from densedpo.judge.aggregate import latest
from densedpo.judge.pairset import PairSet, ranges_of
from densedpo.judge.store import LabelStore
from densedpo.judge.studies import ledger
from densedpo.judge.studies.config import StudyConfig, require_same_question
from densedpo.judge.studies.records import Copy, Item, Study

_SIGN: Final = {"a": 1, "b": -1, "tie": 0}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Unit:
    """What an item will show: a pair, one side of it, or one side beside its copy."""

    pair: Pair
    side: ClipSide | None = None
    copy: Copy | None = None
    gold: tuple[int, ...] | None = None


def open_study(store: LabelStore, pairs: PairSet, settings: StudyConfig) -> Study:
    """The study of these settings on these pairs: a new one, or the one that is there, in a new version if need be.

    Raises:
        BadInput: a study of this name is about other pairs or asks something else; the pairs cannot be cut into such
            segments; there are no labels to take gold from.
    """
    for pair in pairs:
        ranges_of(pair, settings.segment_seconds)
    name = settings.name or pairs.name
    gold = _gold_labels(store, pairs, settings) if settings.gold_annotator is not None else {}
    with store.database.writing() as connection:
        before = ledger.newest_study(connection, name)
        if before is not None:
            if before.pairs != pairs.name:
                raise BadInput(f"study {name} is about pairs/{before.pairs}; give the new one a name by --set name=")
            require_same_question(before.settings, settings, name=name)
        version = 1 if before is None else before.version + (before.settings != settings)
        study = Study(name=name, version=version, pairs=pairs.name, settings=settings)
        if before != study:
            ledger.add_study(connection, study)
        ledger.add_items(connection, name, _new_items(connection, study, pairs, gold))
    return study


def shown_left(key: bytes, item: str, person: str, number: int) -> Literal["a", "b"]:
    """The clip that a person sees on the left: a coin that nobody without the key can foresee, and that can be tossed
    again to check what was logged.
    """
    drawn = hmac.new(key, f"{item}/{person}/{number}".encode(), hashlib.sha256).digest()
    return CLIP_SIDES[drawn[0] & 1]


def _new_items(connection: Connection, study: Study, pairs: PairSet, gold: Mapping[str, tuple[int, ...]]) -> list[Item]:
    known = ledger.items(connection, study.name)
    units = _new_units(study.settings, pairs, gold, known)
    key = ledger.studio_key(connection, "media") if units else b""
    return [_item(len(known) + index, unit, key, pairs) for index, unit in enumerate(units)]


def _new_units(
    settings: StudyConfig, pairs: PairSet, gold: Mapping[str, tuple[int, ...]], known: Sequence[Item]
) -> list[_Unit]:
    """What the study lacks, in the order of the items: to start again costs no drawing."""
    as_made = {item.pair_hash for item in known if item.copy is None}
    copied = {item.pair_hash for item in known if item.copy is not None}
    units = []
    if not as_made.issuperset(pairs.hashes.values()):
        drawn = sorted(pairs, key=lambda pair: derive_seed(settings.seed, "study order", pair.id))
        set_aside = {pair.id for pair in [p for p in drawn if p.id in gold][: settings.num_gold]}
        sides: tuple[ClipSide | None, ...] = CLIP_SIDES if settings.kind == "scores" else (None,)
        units = [
            _Unit(pair=pair, side=side, gold=gold[pair.id] if side is None and pair.id in set_aside else None)
            for pair in drawn[: settings.num_items]
            if pairs.hashes[pair.id] not in as_made
            for side in sides
        ]
    if settings.frozen_share > 0 and len(copied) < settings.num_frozen:
        chosen = sorted(pairs, key=lambda pair: derive_seed(settings.seed, "study frozen", pair.id))
        units += [
            _Unit(
                pair=pair, side=CLIP_SIDES[derive_seed(settings.seed, "study frozen side", pair.id) & 1], copy="frozen"
            )
            for pair in chosen[: settings.num_frozen]
            if pairs.hashes[pair.id] not in copied
        ]
    # the two clips of a pair do not follow each other
    return sorted(units, key=lambda unit: derive_seed(settings.seed, "study items", unit.pair.id, unit.side or ""))


def _item(position: int, unit: _Unit, key: bytes, pairs: PairSet) -> Item:
    id_ = ledger.opaque()
    is_single = unit.side is not None and unit.copy is None
    return Item(
        id=id_,
        position=position,
        pair_id=unit.pair.id,
        pair_hash=pairs.hashes[unit.pair.id],
        side=unit.side,
        media=ledger.opaque(),
        # the order inside the video that is sent says nothing: else who looks at the page could tell a from b
        flipped=not is_single and shown_left(key, id_, "media", 0) == "b",
        gold=unit.gold,
        copy=unit.copy,
    )


def _gold_labels(store: LabelStore, pairs: PairSet, settings: StudyConfig) -> dict[str, tuple[int, ...]]:
    """The labels of the pairs that the gold annotator has judged in full and in which some part has a winner."""
    assert settings.gold_annotator is not None
    answers: dict[str, list[Judgement]] = {}
    for judgement in latest(store.judgements(pairs.hashes, annotators=[settings.gold_annotator])):
        answers.setdefault(judgement.pair_id, []).append(judgement)
    found = {}
    for pair in pairs:
        labels = _labels_of(answers.get(pair.id, []), ranges_of(pair, settings.segment_seconds))
        if labels is not None and any(labels):
            found[pair.id] = labels
    if not found:
        raise BadInput(
            f"gold_annotator = {settings.gold_annotator!r} has labelled no pair of pairs/{pairs.name} in segments of "
            f"{settings.segment_seconds:g} s; name another, or leave it out"
        )
    return found


def _labels_of(answers: Sequence[Judgement], ranges: Sequence[tuple[int, int]]) -> tuple[int, ...] | None:
    by_range = {(j.start_frame, j.stop_frame): _SIGN[j.answer] for j in answers if j.segment is not None}
    return tuple(by_range[range_] for range_ in ranges) if set(ranges) <= set(by_range) else None
