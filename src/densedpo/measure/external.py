"""Scores of VBench, which runs as a process of its own (VMAF is in `judge.vmaf`).

It is no dependency. What it writes is read as it is, nothing of it is imported, and what is missing is not computed,
with the reason, and never 0. VBench is run by the user on `reports/<name>/videos` in its custom-input mode,
with the prompts that `write_vbench_prompts` writes; its result file is then read by `read_vbench`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from densedpo.core.errors import BadInput
from densedpo.core.files import read_object
from densedpo.core.workspace import write_atomic
from densedpo.measure.records import ClipScore
from densedpo.metrics.statistics import Key

# the dimensions that VBench computes for custom videos
VBENCH_DIMENSIONS: Final = (
    "subject_consistency", "background_consistency", "temporal_flickering", "motion_smoothness", "dynamic_degree",
    "aesthetic_quality", "imaging_quality",
)  # fmt: skip
# totals are in [0, 1], but a single video's imaging quality is printed in percent
_PER_VIDEO_SCALE: Final = {"imaging_quality": 100.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class VBenchScores:
    """VBench's scores by dimension and clip, each in [0, 1]; None where VBench's result has none, with the reasons.

    Unlike VBench's own totals, nothing is weighted, normalised or filled in with 0.
    """

    values: dict[str, dict[Key, float | None]]
    reasons: dict[str, str]


def write_vbench_prompts(path: Path, scores: Sequence[ClipScore]) -> None:
    """Writes the prompt file of VBench's custom-input mode: a JSON object from each video's file name to its caption.

    The videos lie enlarged by whole pixels where the report's `pixel_scale` is over 1; VBench sees them so.
    """
    prompts = {Path(score.video).name: score.caption for score in scores if score.video is not None}
    write_atomic(path, json.dumps(prompts, indent=2, ensure_ascii=False) + "\n")


def read_vbench(path: Path, scores: Sequence[ClipScore]) -> VBenchScores:
    """The scores in a result file of VBench (`..._eval_results.json`) for the clips of a report.

    Raises:
        BadInput: the file is missing or no result of VBench, or none of its videos is one of the report's.
    """
    results = _vbench_results(path)
    known = {Path(score.video).name: score.key for score in scores if score.video is not None}
    listed = {name for by_video in results.values() for name in by_video}
    if listed and not listed & known.keys():
        raise BadInput(
            f"{path}: none of its {len(listed)} videos is in this report, such as {min(listed)!r}; run VBench on the "
            "videos folder of the report"
        )
    values: dict[str, dict[Key, float | None]] = {}
    reasons = {}
    for dimension in VBENCH_DIMENSIONS:
        by_video = results.get(dimension, {})
        own = {known[name]: value for name, value in by_video.items() if name in known}
        values[dimension] = {score.key: own.get(score.key) for score in scores}
        reason = _why_missing(dimension, results, values[dimension])
        if reason:
            reasons[dimension] = reason
    return VBenchScores(values=values, reasons=reasons)


def _vbench_results(path: Path) -> dict[str, dict[str, float | None]]:
    """Dimension -> file name -> score; None where VBench printed something that is no score in [0, 1]."""
    found: dict[str, dict[str, float | None]] = {}
    for dimension, result in read_object(path).items():
        rows = result[1] if isinstance(result, list) and len(result) == 2 else None
        if not isinstance(rows, list):
            raise BadInput(f"{path}: {dimension} is not [total, [videos]], so this is no result file of VBench")
        by_video: dict[str, float | None] = {}
        for row in rows:
            if not isinstance(row, dict) or not isinstance(row.get("video_path"), str):
                raise BadInput(f"{path}: {dimension} lists a video without a path")
            by_video[Path(row["video_path"]).name] = _share(row.get("video_results"), dimension)
        found[dimension] = by_video
    return found


def _share(score: object, dimension: str) -> float | None:
    if not isinstance(score, bool | int | float):
        return None
    share = float(score) / _PER_VIDEO_SCALE.get(dimension, 1.0)
    # some versions print a sum over frames for one video (10.98 instead of a share); NaN is in no range
    return share if 0 <= share <= 1 else None


def _why_missing(dimension: str, results: Mapping[str, object], values: Mapping[Key, float | None]) -> str:
    if dimension not in results:
        return "not in VBench's result"
    missing = sum(value is None for value in values.values())
    return f"{missing} of {len(values)} clips have no score between 0 and 1 in VBench's result" if missing else ""
