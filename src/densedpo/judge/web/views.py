"""What pages and answers show: documented, and in terms of left and right only."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from densedpo.judge.pairset import PairSet, ranges_of
from densedpo.judge.studies.records import SKIP_REASONS, Choice, Held, Person, Progress, Study


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyView:
    """What the screen must know of a study."""

    name: str
    kind: str
    instructions: str
    instructions_version: str
    rows: tuple[str, ...]
    categories: tuple[str, ...]
    clip_answer: bool
    must_watch: bool
    skip_reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemView:
    """An item on the screen. `left_crop` is the half of the video that is shown on the left; whose it is, it hides."""

    assignment: str
    number: int
    is_decided: bool
    caption: str
    media: str
    num_panes: int
    left_crop: int
    num_frames: int
    fps: float
    width: int
    height: int
    segments: tuple[tuple[int, int], ...]
    choice: Choice | None


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkView:
    """What to do next."""

    study: StudyView
    person: str
    is_admin: bool
    progress: Progress
    items: tuple[ItemView, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """The frame of every page."""

    title: str
    person: str | None
    is_admin: bool


def study_view(study: Study) -> StudyView:
    """The study as annotators see it."""
    settings = study.settings
    scores = settings.kind == "scores"
    return StudyView(
        name=study.name,
        kind=settings.kind,
        instructions=settings.instructions,
        instructions_version=settings.instructions_version,
        rows=() if scores else settings.dimensions,
        categories=settings.categories if scores else (),
        clip_answer=settings.clip_answer and not scores,
        must_watch=settings.must_watch,
        skip_reasons=SKIP_REASONS,
    )


def item_view(held: Held, pairs: PairSet, study: Study) -> ItemView:
    """An item as its annotator sees it; gold and repeats look like any other."""
    pair, item = pairs.by_id[held.item.pair_id], held.item
    first = "b" if item.flipped else "a"
    return ItemView(
        assignment=held.assignment.id,
        number=held.assignment.number,
        is_decided=held.assignment.state != "open",
        caption=pair.caption,
        media=f"/media/{item.media}",
        num_panes=1 if item.is_single else 2,
        left_crop=0 if item.is_single or held.assignment.left == first else 1,
        num_frames=pair.num_frames,
        fps=pair.fps,
        width=pair.width,
        height=pair.height,
        segments=ranges_of(pair, study.settings.segment_seconds),
        choice=held.choice,
    )


def work_view(study: Study, person: Person, progress: Progress, items: tuple[ItemView, ...]) -> WorkView:
    """The answer to "what now?"."""
    return WorkView(
        study=study_view(study), person=person.name, is_admin=person.is_admin, progress=progress, items=items
    )


def render(name: str, frame: Page, **content: object) -> HTMLResponse:
    """A page from its template."""
    return HTMLResponse(_templates().get_template(name).render(**asdict(frame), **content))


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("densedpo.judge.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
