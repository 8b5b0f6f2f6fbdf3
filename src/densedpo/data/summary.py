"""The index of a project's clips, and the counts of what was kept and what was not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final

from densedpo.core.errors import BadInput
from densedpo.core.records import Clip, Prompt, write_jsonl
from densedpo.core.workspace import Project, write_atomic, write_stamp
from densedpo.data.journal import Journal, Outcome
from densedpo.data.sources import SPLITS

SKIP_KINDS: Final = {
    "broken": "cannot be decoded",
    "resolution": "too small",
    "duration": "video too short or too long",
    "too_short": "shot shorter than a clip",
    "static": "nothing moves",
    "camera_only": "only the camera moves",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """Counts over everything that was ever added to a project.

    Attributes:
        num_examined: clips that were cut out and looked at by the filters.
        skipped: by kind; every kind is there, with 0 where nothing was skipped.
        num_extended: clips whose last frame is shown once more.
        num_tails: shots that left something over behind their last clip, `tail_s` seconds in all.
    """

    num_sources: int
    num_clips: int
    splits: dict[str, int]
    num_examined: int
    skipped: dict[str, int]
    num_cuts: int
    num_extended: int
    num_tails: int
    tail_s: float


def summarise(outcomes: Iterable[Outcome]) -> Summary:
    """The counts of these outcomes."""
    known = list(outcomes)
    splits = Counter(clip.split for outcome in known for clip in outcome.clips)
    skipped = Counter(skip.kind for outcome in known for skip in outcome.skipped)
    return Summary(
        num_sources=len(known),
        num_clips=splits.total(),
        splits={split: splits[split] for split in SPLITS},
        num_examined=sum(outcome.num_examined for outcome in known),
        skipped={kind: skipped[kind] for kind in SKIP_KINDS},
        num_cuts=sum(outcome.num_cuts for outcome in known),
        num_extended=sum(outcome.num_extended for outcome in known),
        num_tails=sum(outcome.num_tails for outcome in known),
        tail_s=round(sum(outcome.tail_s for outcome in known), 3),
    )


def write_index(project: Project, journal: Journal) -> Summary:
    """Writes clips.jsonl, prompts.jsonl, skipped.jsonl and summary.json from the journal.

    Raises:
        BadInput: one source video is in two splits.
    """
    outcomes = list(journal.outcomes.values())
    clips = [clip for outcome in outcomes for clip in outcome.clips]
    _refuse_leaks(clips)
    summary = summarise(outcomes)
    write_jsonl(project.clips / "skipped.jsonl", [skip for outcome in outcomes for skip in outcome.skipped])
    write_atomic(project.clips / "summary.json", json.dumps(asdict(summary), indent=2) + "\n")
    write_jsonl(project.clips / "clips.jsonl", clips)
    write_jsonl(project.clips / "prompts.jsonl", [_prompt(clip) for clip in clips])
    write_stamp(project.clips, [], project)
    return summary


def _prompt(clip: Clip) -> Prompt:
    return Prompt(id=clip.id, caption=clip.caption, split=clip.split, clip_id=clip.id, scene=clip.scene)


def _refuse_leaks(clips: Iterable[Clip]) -> None:
    first: dict[str, Clip] = {}
    for clip in clips:
        other = first.setdefault(clip.source, clip)
        if other.split != clip.split:
            raise BadInput(
                f"clips {other.id!r} ({other.split}) and {clip.id!r} ({clip.split}) come from the same video; "
                "give both rows one split"
            )
