"""What a study asks. Other settings may change while it runs; what was asked may not."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from densedpo.core.config import Config
from densedpo.core.errors import BadInput
from densedpo.core.provenance import sha256_json

INSTRUCTIONS: Final = """Watch both clips to the end, then say for each part of the timeline which one is better.
Better means: moves as the caption says, keeps its shapes and colours, and shows no flicker, smear or break.
Little motion is not better by itself. If you see no difference that matters, it is a tie."""
Share = Annotated[float, Field(ge=0, le=0.5)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9 _-]{0,31}$")]


class StudyConfig(Config):
    """Settings of `judge serve`; they are stored with the study, a version for each change."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")] | None = None
    """Of the study; the name of the pairs if not given."""
    kind: Literal["segments", "scores"] = "segments"
    """segments: which of two clips is better, part by part; scores: single clips from 0 to 10, category by category."""
    segment_seconds: Annotated[float, Field(gt=0)] = 1.0
    """Length of the parts that are judged."""
    instructions: Annotated[str, Field(min_length=1, max_length=8000)] = INSTRUCTIONS
    """What annotators are told, as plain text; a change is a new version, recorded with each answer."""
    dimensions: Annotated[tuple[Label, ...], Field(min_length=1, max_length=6)] = ("overall",)
    """Rows of the timeline; the first is the main question, each other one makes preferences of its own name."""
    categories: Annotated[tuple[Label, ...], Field(min_length=1, max_length=8)] = (
        "text alignment",
        "visual quality",
        "motion",
    )
    """What a single clip is scored for; the mean, and each by its name, compares a pair's clips; equal is a tie."""
    clip_answer: bool = False
    """Whether to ask for one answer about the whole clip too."""
    overlap: Annotated[int, Field(ge=1, le=10_000)] = 1
    """How many people judge each item."""
    lease_minutes: Annotated[float, Field(gt=0)] = 30.0
    """After this time without a sign of life an item is offered to somebody else."""
    gold_annotator: str | None = None
    """Whose stored labels are taken for the truth; hidden items of theirs measure each person's accuracy."""
    num_gold: Annotated[int, Field(ge=0)] = 20
    """Pairs that are set aside as such; none without a gold_annotator."""
    gold_share: Share = 0.08
    """Share of a person's items that are gold."""
    repeat_share: Share = 0.05
    """Share of a person's items that come a second time."""
    frozen_share: Share = 0.0
    """Share of a person's items that show a clip beside its first frame held still, to see who prefers stillness."""
    num_frozen: Annotated[int, Field(ge=1)] = 20
    """Clips that are shown so; none where frozen_share is 0."""
    must_watch: bool = True
    """Whether every frame must have been played once before an item can be submitted."""
    num_items: Annotated[int, Field(ge=1)] | None = None
    """Only so many pairs, drawn by the seed; all if not given."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the order of items, and of what is gold or repeated."""

    @model_validator(mode="after")
    def _distinct(self) -> StudyConfig:
        for key, names in (("dimensions", self.dimensions), ("categories", self.categories)):
            if len(set(names)) < len(names):
                raise ValueError(f"{key} are different from each other, not {', '.join(names)}")
        if self.kind == "scores" and self.frozen_share > 0:
            raise ValueError("frozen_share is for kind = segments: a single clip has no copy beside it")
        return self

    @property
    def instructions_version(self) -> str:
        """What answers are signed with: the hash of what the annotators were told and asked."""
        asked = [self.kind, self.instructions, list(self.dimensions), list(self.categories), self.clip_answer]
        return f"studio {sha256_json(asked)[:12]}"


_ASKED: Final = ("kind", "segment_seconds", "dimensions", "categories")


def require_same_question(before: StudyConfig, now: StudyConfig, *, name: str) -> None:
    """Refuses settings that would mix answers to two questions in one study.

    Raises:
        BadInput: names the setting.
    """
    for key in _ASKED:
        old, new = before.model_dump()[key], now.model_dump()[key]
        if old != new:
            raise BadInput(
                f"study {name} asks with {key} = {old}, not {new}; keep it, or give the new study a name by --set name="
            )
