"""What the parts of the studio hand to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from densedpo.core.records import ClipSide
from densedpo.judge.studies.config import StudyConfig

Screen = Literal["left", "right", "tie"]  # an answer as the annotator saw it
Kind = Literal["plain", "gold", "repeat"]  # gold: any hidden item, that with a copy too
State = Literal["open", "done", "skipped"]
SaveKind = Literal["draft", "submit", "skip"]
Copy = Literal["frozen"]
SKIP_REASONS = ("cannot be played", "cannot tell", "unpleasant", "other")
_OTHER: Mapping[ClipSide, ClipSide] = {"a": "b", "b": "a"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """A study as it is now."""

    name: str
    version: int
    pairs: str
    settings: StudyConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """Something to judge: a pair, in a study of scores one side of it, or one side beside an altered copy of it.

    With a copy, `a` is the clip as it was made and `b` the copy. Its ids are opaque.
    """

    id: str
    position: int
    pair_id: str
    pair_hash: str
    side: ClipSide | None
    media: str
    flipped: bool
    gold: tuple[int, ...] | None
    copy: Copy | None = None

    @property
    def is_single(self) -> bool:
        """Whether one clip is shown alone."""
        return self.side is not None and self.copy is None

    @property
    def is_hidden(self) -> bool:
        """Whether the item tells about people and not about the pair: it is handed out between the others."""
        return self.gold is not None or self.copy is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """Somebody with a token. `name` is what their answers are stored under."""

    id: str
    name: str
    is_admin: bool
    session_key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """An item in the hands of a person."""

    id: str
    item: str
    person: str
    number: int
    kind: Kind
    left: ClipSide
    state: State
    leased_until: float

    def side_of(self, answer: Screen) -> Literal["a", "b", "tie"]:
        """The clip that an answer on the screen means."""
        return "tie" if answer == "tie" else self.left if answer == "left" else _OTHER[self.left]


class Choice(BaseModel):
    """What a person has chosen about an item so far, in terms of left and right."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    answers: dict[str, list[Screen | None]] = Field(default={}, max_length=6)
    clip: Screen | None = None
    scores: dict[str, Annotated[int, Field(ge=0, le=10)]] = Field(default={}, max_length=8)
    reason: Literal["cannot be played", "cannot tell", "unpleasant", "other"] | None = None
    note: Annotated[str, Field(max_length=2000)] = ""
    active_ms: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    replays: Annotated[int, Field(ge=0, le=100_000)] = 0
    watched: bool = False


class SaveRequest(BaseModel):
    """One save as a browser sends it; `id` is drawn by the browser, and the same id is the same save."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")]
    assignment: Annotated[str, Field(min_length=16, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
    kind: SaveKind
    choice: Choice


@dataclass(frozen=True, kw_only=True, slots=True)
class Save:
    """A save as it is stored."""

    number: int
    assignment: str
    person: str
    kind: SaveKind
    study_version: int
    choice: Choice
    created_at: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """An assignment with its item and what was last chosen about it."""

    assignment: Assignment
    item: Item
    choice: Choice | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """What became of a save. `extra`: somebody else had been given the place in the meantime; the work is kept."""

    is_new: bool
    extra: bool
    state: State


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a person is. `num_left` is what there is for them at the moment; others may take of it."""

    num_done: int
    num_skipped: int
    num_left: int
