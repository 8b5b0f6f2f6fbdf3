"""The pairs of one folder, as judges and preferences refer to them: by id, and by the hash of how each was made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from densedpo.core.errors import BadInput
from densedpo.core.layout import Segments
from densedpo.core.provenance import sha256_json
from densedpo.core.records import Pair, read_jsonl, to_row

# where the files lie and which split the pair is in say nothing about what was seen
_NOT_SEEN: Final = frozenset({"video", "latents", "split", "pixel_scale"})
# keys that pairs had not from the start: where they say nothing, a pair is still the one that was labelled before
_LATER: Final = frozenset({"corruption", "num_given_frames"})


def pair_hash(pair: Pair) -> str:
    """Identity of what a judge saw: sha256 of the pair's record without the paths of its files and its split.

    Labels are bound to it, so that pairs made anew under the same ids (another seed, another model) start unlabelled.
    """
    seen = {key: value for key, value in to_row(pair).items() if key not in _NOT_SEEN}
    return sha256_json({key: value for key, value in seen.items() if key not in _LATER or value})


@dataclass(frozen=True, kw_only=True, slots=True)
class PairSet:
    """The pairs under one name, in the order of pairs.jsonl.

    `folder` is the folder that the pairs' paths are relative to.
    """

    name: str
    folder: Path
    by_id: Mapping[str, Pair]
    hashes: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path) -> PairSet:
        """The pairs of a folder that `densedpo generate` wrote.

        Raises:
            BadInput: no such folder, no pairs in it, a bad row, or the same id twice.
        """
        records = folder / "pairs.jsonl"
        if not records.is_file():
            raise BadInput(f"{records} is missing; make pairs with `densedpo generate guided {folder.name}`")
        by_id = {pair.id: pair for pair in read_jsonl(records, Pair)}
        if not by_id:
            raise BadInput(f"{records} is empty; make pairs with `densedpo generate guided {folder.name}`")
        return cls(name=folder.name, folder=folder, by_id=by_id, hashes={id_: pair_hash(p) for id_, p in by_id.items()})

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.by_id.values())

    def __len__(self) -> int:
        return len(self.by_id)


def ranges_of(pair: Pair, segment_seconds: float) -> tuple[tuple[int, int], ...]:
    """The half-open pixel-frame ranges into which a pair is cut.

    Raises:
        BadInput: the segment length does not suit the clip.
    """
    try:
        return Segments.of(num_frames=pair.num_frames, fps=pair.fps, seconds=segment_seconds).ranges
    except BadInput as error:
        raise BadInput(f"pair {pair.id}: {error}") from error
