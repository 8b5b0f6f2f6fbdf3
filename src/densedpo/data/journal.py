"""What became of each source video, appended as soon as it is known, so that a rerun goes on where a cut left off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict

from densedpo.core.files import append_jsonl, repair_jsonl
from densedpo.core.records import Clip, read_jsonl, to_row


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """A video, or a part of one, that gave no clip.

    Attributes:
        kind: a word to count by, such as `broken`, `too_short`, `static`.
        reason: what a person reads.
        start_s: of the part; None where the whole video is meant.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    id: str
    path: str
    kind: str
    reason: str
    start_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one source video.

    Attributes:
        key: hash of everything that decided it (the file, its caption and split, settings, geometry).
        origin: where the video was found.
        is_final: False where another attempt could end otherwise, as after a timeout.
        num_examined: clips that were cut before filters.
        num_extended: clips whose last frame is shown once more.
        tail_s: what the last clips of shots left over, where it was too short for another.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    id: str
    key: str
    origin: str
    is_final: bool = True
    clips: tuple[Clip, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    num_examined: int = 0
    num_extended: int = 0
    num_cuts: int = 0
    num_tails: int = 0
    tail_s: float = 0.0


class Journal:
    """The outcomes of a clips folder; the last one of a source counts."""

    def __init__(self, path: Path) -> None:
        """Reads what is there; a torn last row is dropped.

        Raises:
            BadInput: another row is damaged; names file and row.
        """
        self._path = path
        self._outcomes: dict[str, Outcome] = {}
        repair_jsonl(path)
        if path.exists():
            self._outcomes = {outcome.id: outcome for outcome in read_jsonl(path, Outcome)}

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """The last outcome of every source, by its id, in the order in which sources were first added."""
        return self._outcomes

    def append(self, outcome: Outcome) -> None:
        """Keeps an outcome; it is on the disk when this returns."""
        append_jsonl(self._path, to_row(outcome))
        self._outcomes[outcome.id] = outcome
