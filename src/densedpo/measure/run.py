"""`measure run`: clips in, one score row and one video each out, then the report over them. No torch here.

A row is appended once its video is in place, so a run that is cut goes on with the clips that are missing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densedpo.core.errors import BadInput
from densedpo.core.media import write_mp4
from densedpo.core.progress import track
from densedpo.core.provenance import provenance, sha256_json
from densedpo.core.records import Prompt, from_row, read_jsonl, to_row
from densedpo.core.workspace import append_jsonl, naming_disk_errors, repair_jsonl, write_atomic, write_stamp, writing
from densedpo.measure.diversity import fill_diversity
from densedpo.measure.manifest import Manifest, different_entries, manifest
from densedpo.measure.plan import MeasurePlan
from densedpo.measure.records import PLAN_FILE, REPORT_FILE, SCORES_FILE, ClipScore, RunReport, coverage_of
from densedpo.measure.score import METRICS, clip_values
from densedpo.metrics.statistics import NUM_DRAWS, Estimate, cluster_mean

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipTask:
    """One clip to make: a prompt and the number of its seed."""

    prompt: Prompt
    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeClip:
    """A clip that was made for a task, uint8 [F, H, W, 3], or why there is none."""

    task: ClipTask
    frames: NDArray[np.uint8] | None
    fault: str = ""


ClipSource = Callable[[Sequence[ClipTask]], Iterator[MadeClip]]
"""Makes the clips of tasks, in any order."""


def measure(plan: MeasurePlan, source: ClipSource) -> RunReport:
    """Measures what is not measured yet, and writes the report.

    Raises:
        BadInput: the folder holds a measurement with other settings, another process is writing there, or clips had to
            be left out of a strict plan (the report is written all the same).
    """
    if len(plan.prompts) < plan.num_asked:
        _log.warning(
            "%d prompts asked for, %d are in the %s split", plan.num_asked, len(plan.prompts), plan.settings.split
        )
    made_by = manifest(dtype=plan.dtype, device=plan.device if plan.dtype is not None else None)
    with writing(plan.folder):
        made_by = _claim(plan, made_by)
        rows = plan.folder / SCORES_FILE
        if repair_jsonl(rows):
            _log.warning("dropped a torn last row of %s", rows)
        done = {score.key for score in read_jsonl(rows, ClipScore)} if rows.exists() else set()
        tasks = [task for task in _tasks(plan) if (task.prompt.id, task.number) not in done]
        with naming_disk_errors(plan.folder):
            (plan.folder / "videos").mkdir(exist_ok=True)
        for clip in track(source(tasks), total=len(tasks), what=f"measuring {plan.name}") if tasks else ():
            append_jsonl(rows, to_row(_score(plan, clip)))
        scores = fill_diversity(rows, pixel_scale=plan.settings.pixel_scale)
        report = _report(plan, scores, made_by)
        write_atomic(plan.folder / REPORT_FILE, json.dumps(to_row(report), indent=2) + "\n")
        write_stamp(plan.folder, list(plan.inputs), plan.project)
    if plan.strict and report.coverage.excluded:
        first = report.coverage.excluded[0]
        raise BadInput(
            f"strict: {len(report.coverage.excluded)} of {report.coverage.num_clips} clips were not scored, such as "
            f"prompt {first.prompt_id!r}: {first.fault}; reports/{plan.name} lists them all"
        )
    return report


def estimates_of(scores: Sequence[ClipScore], *, seed: int, num_draws: int = NUM_DRAWS) -> dict[str, Estimate | None]:
    """The mean of every metric over prompts, with its interval; None where no clip has a value."""
    return {
        metric.key: cluster_mean(
            {score.key: score.values.get(metric.key) for score in scores}, seed=seed, num_draws=num_draws
        )
        for metric in METRICS
    }


def _tasks(plan: MeasurePlan) -> Iterator[ClipTask]:
    for prompt in plan.prompts:
        for number in range(plan.settings.seeds_per_prompt):
            yield ClipTask(prompt=prompt, number=number)


def _claim(plan: MeasurePlan, made_by: Manifest) -> Manifest:
    """Writes what is measured into the folder, or refuses a folder where it was something else.

    Returns:
        The manifest of the report. A later commit may finish what another began; both are then named in `code`.
    """
    identity = {**to_row(plan.subject), **to_row(plan.settings)}
    path = plan.folder / PLAN_FILE
    if not path.exists():
        write_atomic(path, json.dumps({**identity, "manifest": to_row(made_by)}, indent=2) + "\n")
        return made_by
    before = _read_plan(path)
    different = sorted(key for key in identity if before.get(key) != identity[key])
    begun = before.get("manifest")
    if not different and not isinstance(begun, dict):
        raise BadInput(
            f"{path} was written by an older densedpo, without a manifest; delete the folder and measure again"
        )
    first = from_row(Manifest, begun, f"{path}: manifest") if isinstance(begun, dict) else made_by
    changed = different_entries(first, made_by)
    different += sorted(changed.keys() - {"code"})
    if different:
        raise BadInput(
            f"{plan.project.relative(plan.folder)} was measured with another {', '.join(different)}; use another name, "
            "or delete the folder"
        )
    if "code" not in changed:
        return first
    codes = [code or "installed" for code in changed["code"]]
    _log.warning("%s was begun with code %s and goes on with %s; the report names both", plan.name, *codes)
    return replace(first, code=" and ".join(dict.fromkeys(codes)))


def _read_plan(path: Path) -> dict[str, object]:
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        before = None
    if not isinstance(before, dict):
        raise BadInput(f"{path} is damaged; delete the folder and measure again")
    return before


def _score(plan: MeasurePlan, clip: MadeClip) -> ClipScore:
    prompt, settings = clip.task.prompt, plan.settings
    fault = _fault(plan, clip)
    if clip.frames is None or fault:
        _log.warning("prompt %s: %s; the clip is left out and listed in the report", prompt.id, fault)
        return ClipScore(
            prompt_id=prompt.id,
            number=clip.task.number,
            caption=prompt.caption,
            video=None,
            values={metric.key: None for metric in METRICS},
            fault=fault,
        )
    # ids are the user's and need not be file names
    video = f"videos/{sha256_json(prompt.id)[:16]}-{clip.task.number}.mp4"
    write_mp4(plan.folder / video, clip.frames, fps=settings.fps, pixel_scale=settings.pixel_scale)
    return ClipScore(
        prompt_id=prompt.id,
        number=clip.task.number,
        caption=prompt.caption,
        video=video,
        values=clip_values(clip.frames, fps=settings.fps, scene=prompt.scene, where=f"prompt {prompt.id}"),
    )


def _fault(plan: MeasurePlan, clip: MadeClip) -> str:
    """Why a clip cannot stand beside the others; empty if it can."""
    if clip.frames is None:
        return clip.fault or "not made"
    settings, shape = plan.settings, clip.frames.shape
    expected = (settings.num_frames, settings.height, settings.width, 3)
    if shape != expected:
        return (
            f"{shape[0]} frames of {shape[2]}x{shape[1]} instead of {expected[0]} of {expected[2]}x{expected[1]} "
            "(width x height)"
        )
    return clip.fault


def _report(plan: MeasurePlan, scores: Sequence[ClipScore], made_by: Manifest) -> RunReport:
    # rows come in the order in which batches ended; estimates do not depend on it
    return RunReport(
        kind="run",
        name=plan.name,
        command=plan.command,
        subject=plan.subject,
        settings=plan.settings,
        manifest=made_by,
        coverage=coverage_of(scores, num_prompts_asked=plan.num_asked),
        estimates=estimates_of(scores, seed=plan.settings.seed),
        made=provenance(),
    )
