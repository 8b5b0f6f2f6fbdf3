"""What `measure` writes: a score row for each clip, and the report over them. No torch here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal

from pydantic import ConfigDict, JsonValue

from densedpo.core.errors import BadInput
from densedpo.core.records import from_row, read_jsonl
from densedpo.core.workspace import Project
from densedpo.measure.config import Source
from densedpo.measure.manifest import Manifest
from densedpo.metrics.statistics import Estimate, Key

REPORT_FILE: Final = "report.json"
SCORES_FILE: Final = "scores.jsonl"
PLAN_FILE: Final = "plan.json"
OTHER_KINDS: Final = {"comparison": "a comparison", "judges": "about judges"}
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipScore:
    """The scores of one clip; a value is None where it could not be computed.

    `number` counts the seeds of a prompt from 0; `video` is relative to the report's folder. A clip that could not be
    read, or has another length or size than the others, has a `fault`, no values and no video.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    prompt_id: str
    number: int
    caption: str
    video: str | None
    values: dict[str, float | None]
    fault: str | None = None

    @property
    def key(self) -> Key:
        """What the clip is matched by in a paired comparison."""
        return (self.prompt_id, self.number)


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What was measured: a model, with or without the adapter of a run, or real clips through its autoencoder."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    source: Source
    model: str  # fingerprint
    run: str | None
    adapter: str | None  # sha256 of adapter.safetensors


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How it was measured; equal for all that are compared.

    `num_steps` and `guidance_scale` are None where nothing was sampled. `prompts` is the hash of the prompts' ids and
    captions, `scoring` the version of the scores, `first_frames` the hash of those that were drawn.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    split: str
    num_prompts: int
    prompts: str
    seeds_per_prompt: int
    seed: int
    num_steps: int | None
    guidance_scale: float | None
    num_frames: int
    fps: float
    height: int
    width: int
    pixel_scale: int
    scoring: int
    first_frames: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExcludedClip:
    """A clip without scores, and why."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    prompt_id: str
    number: int
    fault: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """How much of what was asked for was scored.

    `num_prompts_asked` may be more than there are prompts; `num_clips` counts those of the prompts that there are.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    num_prompts_asked: int
    num_clips: int
    num_scored: int
    excluded: tuple[ExcludedClip, ...]

    @property
    def share(self) -> float:
        """Scored clips over all, in [0, 1]."""
        return self.num_scored / self.num_clips


def coverage_of(scores: Sequence[ClipScore], *, num_prompts_asked: int) -> Coverage:
    """The coverage of scored clips, what was left out in the order of prompts."""
    left_out = (
        ExcludedClip(prompt_id=score.prompt_id, number=score.number, fault=score.fault)
        for score in scores
        if score.fault is not None
    )
    excluded = tuple(sorted(left_out, key=lambda clip: (clip.prompt_id, clip.number)))
    return Coverage(
        num_prompts_asked=num_prompts_asked,
        num_clips=len(scores),
        num_scored=len(scores) - len(excluded),
        excluded=excluded,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class RunReport:
    """The report of `measure run`: every estimate by metric, None where it was not computed."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    kind: Literal["run"]
    name: str
    command: str
    subject: Subject
    settings: Settings
    manifest: Manifest
    coverage: Coverage
    estimates: dict[str, Estimate | None]
    made: dict[str, JsonValue]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A report read back, with the scores of its clips and the folder that it lies in."""

    report: RunReport
    scores: tuple[ClipScore, ...]
    folder: Path

    @property
    def name(self) -> str:
        """The report's name."""
        return self.report.name

    def values(self, metric: str) -> dict[Key, float | None]:
        """One metric of every clip; None where a clip has no such value."""
        return {score.key: score.values.get(metric) for score in self.scores}


def read_measured(project: Project, name: str) -> Measured:
    """The report of a name, with its scores.

    Raises:
        BadInput: there is none, it is unfinished, it is a comparison, or a file of it is damaged.
    """
    folder = project.report(name)
    path = folder / REPORT_FILE
    if not path.is_file():
        raise BadInput(f"no report at {project.relative(path)}; make it with `densedpo measure run {name}`")
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not JSON ({error}); delete the folder and measure again") from None
    kind = row.get("kind") if isinstance(row, dict) else None
    if kind in OTHER_KINDS:
        raise BadInput(f"report {name!r} is {OTHER_KINDS[kind]}; name reports of `densedpo measure run`")
    if isinstance(row, dict) and "manifest" not in row:
        raise BadInput(
            f"{path} was written by an older densedpo, without a manifest; delete the folder and measure again"
        )
    report = from_row(RunReport, row, str(path))
    scores = tuple(read_jsonl(folder / SCORES_FILE, ClipScore))
    _check_complete(report, scores, folder / SCORES_FILE)
    return Measured(report=report, scores=scores, folder=folder)


def require_free(project: Project, folder: Path, kind: Literal["comparison", "judges"]) -> None:
    """Refuses a folder that holds a report of another kind; one of the same kind is written anew.

    Raises:
        BadInput: names the folder and what is there.
    """
    path, there = folder / REPORT_FILE, project.relative(folder)
    if (folder / PLAN_FILE).exists():
        raise BadInput(f"{there} is a report of `measure run`; choose another name")
    if not path.is_file():
        return
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        row = None
    found = row.get("kind") if isinstance(row, dict) else None
    if found != kind:
        what = OTHER_KINDS.get(str(found), "something else")
        raise BadInput(f"{there} is {what}; choose another name, or delete the folder")


def _check_complete(report: RunReport, scores: Sequence[ClipScore], path: Path) -> None:
    expected = report.settings.num_prompts * report.settings.seeds_per_prompt
    if len({score.key for score in scores}) != len(scores) or len(scores) != expected:
        raise BadInput(
            f"{path} holds {len(scores)} clips and its report counts {expected}; delete the folder and measure again"
        )
