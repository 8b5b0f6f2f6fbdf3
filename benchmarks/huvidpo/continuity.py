"""How well a clip goes on from the frame that it was given, by the real clip that began with the same frame."""

from __future__ import annotations

import json
from statistics import fmean
from typing import TYPE_CHECKING, Final

import numpy as np

from densedpo.core.files import write_atomic
from densedpo.core.media import read_mp4
from densedpo.core.records import Clip, Prompt, read_jsonl
from densedpo.measure.records import read_measured

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from densedpo.core.workspace import Project

NEAR: Final = "error_near"
FAR: Final = "error_far"
JOIN: Final = "join"
MEANINGS: Final = {
    NEAR: "mean difference from the real clip over the first four frames after the given one, in levels of 255",
    FAR: "the same over the last four frames",
    JOIN: "mean difference between the given frame and the next, in levels of 255",
}
CONTINUITY_FILE: Final = "continuity.json"
_FRAMES: Final = 4


def write_continuity(project: Project, name: str) -> None:
    """The three numbers of every clip of a report, into a file beside it; one that is there stays."""
    measured = read_measured(project, name)
    path = measured.folder / CONTINUITY_FILE
    if path.is_file():
        return
    clips = {clip.id: clip for clip in read_jsonl(project.clips / "clips.jsonl", Clip)}
    of_prompt = {prompt.id: prompt for prompt in read_jsonl(project.clips / "prompts.jsonl", Prompt)}
    found: dict[str, list[dict[str, float]]] = {score.prompt_id: [] for score in measured.scores}
    for score in measured.scores:
        clip = clips[of_prompt[score.prompt_id].clip_id or ""]
        if score.video is not None:
            made, _ = read_mp4(measured.folder / score.video, pixel_scale=measured.report.settings.pixel_scale)
            real, _ = read_mp4(project.clips / clip.video, pixel_scale=clip.pixel_scale)
            found[score.prompt_id].append(compared(made, real))
    write_atomic(path, json.dumps(found) + "\n")


def continuity(project: Project, name: str) -> dict[str, dict[str, float | None]]:
    """The three numbers by prompt, in the mean over a prompt's clips; None where none of them has a video.

    The caption says the way and the speed, so that the frames after the first are nearly determined. How much the real
    clip itself differs from its first frame is in the numbers of the ceiling.
    """
    found = json.loads((project.report(name) / CONTINUITY_FILE).read_text(encoding="utf-8"))
    return {
        key: {prompt: fmean(clip[key] for clip in clips) if clips else None for prompt, clips in found.items()}
        for key in MEANINGS
    }


def compared(made: NDArray[np.uint8], real: NDArray[np.uint8]) -> dict[str, float]:
    """The three numbers of one clip, uint8 [F, H, W, 3], and the real one."""
    return {
        NEAR: _difference(made[1 : 1 + _FRAMES], real[1 : 1 + _FRAMES]),
        FAR: _difference(made[-_FRAMES:], real[-_FRAMES:]),
        JOIN: _difference(made[1], made[0]),
    }


def _difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(np.float64) - other).mean())
