"""Diversity over the seeds of a prompt, computed from the videos of a report once all of them are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from densedpo.core.media import read_mp4
from densedpo.core.records import read_jsonl, write_jsonl
from densedpo.measure.records import ClipScore
from densedpo.measure.score import DIVERSITY
from densedpo.metrics.appearance import clip_feature, distances_to_others


def fill_diversity(path: Path, *, pixel_scale: int) -> tuple[ClipScore, ...]:
    """The scores of a file with each clip's mean distance to the other clips of its prompt; the file is rewritten.

    The mean over a prompt's clips is then the mean distance over its pairs. Prompts with one clip have no such value.

    Raises:
        BadInput: the file or a video of it is damaged.
    """
    scores = tuple(read_jsonl(path, ClipScore))
    by_prompt: dict[str, list[ClipScore]] = {}
    for score in scores:
        if score.video is not None:
            by_prompt.setdefault(score.prompt_id, []).append(score)
    found = {}
    for clips in by_prompt.values():
        if len(clips) > 1 and any(clip.values.get(DIVERSITY) is None for clip in clips):
            found.update(_distances(clips, path.parent, pixel_scale))
    if not found:
        return scores
    filled = tuple(
        replace(score, values={**score.values, DIVERSITY: found[score.key]}) if score.key in found else score
        for score in scores
    )
    write_jsonl(path, filled)
    return filled


def _distances(clips: Sequence[ClipScore], folder: Path, pixel_scale: int) -> dict[tuple[str, int], float]:
    paths = [folder / clip.video for clip in clips if clip.video is not None]
    features = [clip_feature(read_mp4(path, pixel_scale=pixel_scale)[0]) for path in paths]
    return dict(zip((clip.key for clip in clips), distances_to_others(features).tolist(), strict=True))
