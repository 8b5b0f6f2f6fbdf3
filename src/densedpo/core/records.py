"""The records that stages hand to each other as rows of JSONL files.

Clip -> Pair -> Judgement -> Preference. `a` and `b` are the two clips of a pair in the order of generation; which one
is better exists only once it is labelled. Rows are validated without coercion: a number in quotes is an error.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Literal, TypeVar

from pydantic import ConfigDict, JsonValue, TypeAdapter, ValidationError

from densedpo.core.errors import BadInput
from densedpo.core.files import write_atomic

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Record = TypeVar("Record", bound=DataclassInstance)
else:
    Record = TypeVar("Record")

SceneWords = dict[str, str | float]  # dataclasses.asdict of a scene of the procedural world
ClipSide = Literal["a", "b"]
CLIP_SIDES: Final[tuple[ClipSide, ClipSide]] = ("a", "b")
CorruptionKind = Literal["reversed", "shuffled", "noised", "blurred", "regenerated"]
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """One captioned clip, resampled to a model's geometry."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    id: str
    source: str
    split: str
    caption: str
    video: str  # relative to the clips folder
    num_frames: int
    fps: float
    height: int
    width: int
    pixel_scale: int  # how often each pixel is repeated in the video file
    content: str  # sha256 of the frames as they are read back from the video
    start_s: float
    scene: SceneWords | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """One caption to generate from, and the clip that it describes if there is one."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    id: str
    caption: str
    split: str
    clip_id: str | None = None
    scene: SceneWords | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Corruption:
    """What was done to one clip of a pair whose other clip is real.

    `strength` is the noise's standard deviation in units of the pixel range, the blur's sigma in pixels, or how many
    frames in a row a shuffle keeps together; None where the kind says it all, or where it is the pair's `eta`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    kind: CorruptionKind
    real: ClipSide
    strength: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two clips generated for one prompt, with everything that is needed to make them again."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    id: str
    kind: Literal["guided", "independent", "arena", "corrupted"]
    prompt_id: str
    clip_id: str | None
    caption: str
    split: str
    eta: float | None  # None where the pair starts from pure noise
    noise_key_a: str
    noise_key_b: str
    seed: int
    num_steps: int
    guidance_scale: float
    model: str  # fingerprint
    num_frames: int
    fps: float
    height: int
    width: int
    pixel_scale: int  # how often each pixel is repeated in the video file
    video: str  # relative to the pair folder: an mp4 with a and b side by side
    latents: str  # relative to the pair folder: safetensors with `a` and `b`, each [C F H W] float32
    scene: SceneWords | None = None
    num_given_frames: int = 0  # latent frames at the start that both clips were given: no loss and no label there
    corruption: Corruption | None = None  # the latents of a regenerated clip have a `mask` [F H W] beside `a` and `b`


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """One answer of one annotator about one segment of a pair, or about the whole pair (`segment` is None)."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    id: str
    pair_id: str
    annotator: str
    segment: int | None
    start_frame: int
    stop_frame: int
    answer: Literal["a", "b", "tie", "skip"]
    confidence: float | None = None
    score_a: float | None = None
    score_b: float | None = None
    left: ClipSide = "a"  # which clip the annotator saw on the left
    duration_ms: int | None = None
    replays: int = 0
    dimension: str | None = None  # a question beside the main one, such as "motion"; None: the main one
    instructions: str
    tool_version: str
    created_at: str  # ISO 8601


@dataclass(frozen=True, kw_only=True, slots=True)
class Preference:
    """What the judgements of one pair add up to: a label for each segment, +1 where `a` is better, -1 where `b` is.

    Raises:
        BadInput: labels, confidences or answers that are not one for each range, or a label that is not -1, 0 or 1.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    pair_id: str
    split: str
    ranges: tuple[tuple[int, int], ...]  # half-open, in pixel frames
    labels: tuple[int, ...]
    confidence: tuple[float, ...] | None = None
    clip_label: int
    num_judgements: int
    answered: tuple[bool, ...] | None = None  # a label 0 is a tie where answered, else no label; None: all were

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.ranges):
            raise BadInput(f"{len(self.labels)} labels for {len(self.ranges)} ranges")
        if self.confidence is not None and len(self.confidence) != len(self.ranges):
            raise BadInput(f"{len(self.confidence)} confidences for {len(self.ranges)} ranges")
        if self.answered is not None and len(self.answered) != len(self.ranges):
            raise BadInput(f"{len(self.answered)} values of answered for {len(self.ranges)} ranges")
        if not {*self.labels, self.clip_label} <= {-1, 0, 1}:
            raise BadInput(f"labels are -1, 0 or 1, not {min({*self.labels, self.clip_label} - {-1, 0, 1})}")


_UNIQUE_KEYS: dict[type, str] = {Clip: "id", Prompt: "id", Pair: "id", Judgement: "id", Preference: "pair_id"}


def to_row(record: DataclassInstance) -> dict[str, JsonValue]:
    """A record as a JSON object; tuples become arrays."""
    row: dict[str, JsonValue] = json.loads(json.dumps(dataclasses.asdict(record), allow_nan=False))
    return row


def from_row(cls: type[Record], row: Mapping[str, object], where: str) -> Record:
    """A record from a JSON object.

    Args:
        where: what to call the row in an error, such as `pairs.jsonl:3`.

    Raises:
        BadInput: names `where`, the key and what is wrong with it.
    """
    return _validated(cls, json.dumps(row), where)


def read_jsonl(path: Path, cls: type[Record], *, skip: int = 0) -> list[Record]:
    """All records of a file, blank lines left out.

    Args:
        skip: how many rows to leave out at the start, for a file that begins with a header.

    Raises:
        BadInput: the file is missing or is not UTF-8, or a row is malformed or repeats an id; names file, row and key.
    """
    records: list[Record] = []
    first_row: dict[object, int] = {}
    key = _UNIQUE_KEYS.get(cls)
    for row, line in _lines(path):
        if row <= skip:
            continue
        record = _validated(cls, line, f"{path}:{row}")
        if key is not None:
            value = json.loads(line)[key]
            if value in first_row:
                raise BadInput(f"{path}:{row}: key '{key}': {value!r} is already in row {first_row[value]}")
            first_row[value] = row
        records.append(record)
    return records


def write_jsonl(path: Path, records: Iterable[DataclassInstance]) -> None:
    """Replaces a file by these records, in one step."""
    write_atomic(path, "".join(json.dumps(to_row(record), ensure_ascii=False) + "\n" for record in records))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise BadInput(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 text (byte {error.start})") from None
    # not splitlines(): captions may hold the other line separators of Unicode
    for row, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield row, line


@cache
def _adapter(cls: type[Record]) -> TypeAdapter[Record]:
    return TypeAdapter(cls)


def _validated(cls: type[Record], line: str, where: str) -> Record:
    try:
        record: Record = _adapter(cls).validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "unexpected_keyword_argument":
            message = "unknown key; the keys are " + ", ".join(field.name for field in dataclasses.fields(cls))
        raise BadInput(f"{where}: {f'key {key!r}: ' if key else ''}{message}") from None
    return record
