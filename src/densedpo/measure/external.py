"""Scores of other tools, which run as processes of their own: VBench, and VMAF through ffmpeg.

Neither is a dependency. What they write is read as it is, nothing of them is imported, and what is missing is not
computed, with the reason, and never 0. VBench is run by the user on `reports/<name>/videos` in its custom-input mode,
with the prompts that `write_vbench_prompts` writes; its result file is then read by `read_vbench`.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from densedpo.core.errors import BadInput
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
_VMAF_LOG: Final = "vmaf.json"
_TIMEOUT_S: Final = 600


@dataclass(frozen=True, kw_only=True, slots=True)
class VBenchScores:
    """VBench's scores by dimension and clip, each in [0, 1]; None where VBench's result has none, with the reasons.

    Unlike VBench's own totals, nothing is weighted, normalised or filled in with 0.
    """

    values: dict[str, dict[Key, float | None]]
    reasons: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Vmaf:
    """VMAF of a video against a reference of the same size: the mean and each frame's, from 0 to 100.

    `mean` is None where it was not computed; `reason` then says why. `version` is libvmaf's.
    """

    mean: float | None
    frames: tuple[float, ...] = ()
    version: str = ""
    reason: str = ""


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


def vmaf(video: Path, reference: Path, *, ffmpeg: str | None = None) -> Vmaf:
    """VMAF of a video against a reference, by ffmpeg's libvmaf filter in a process of its own.

    VMAF needs an aligned reference of the same size and rate. Here it can say that encoding did not damage a clip, or
    how far a reconstruction is from its own real clip; it cannot judge a clip generated from noise.

    Args:
        ffmpeg: the program; the one on the path if not given.

    Raises:
        BadInput: one of the videos does not exist.
    """
    for path in (video, reference):
        if not path.is_file():
            raise BadInput(f"no video at {path}")
    program = ffmpeg or shutil.which("ffmpeg")
    if program is None:
        return Vmaf(mean=None, reason="ffmpeg was not found; install it with libvmaf to get VMAF")
    with tempfile.TemporaryDirectory() as folder:
        graph = (
            "[0:v]setpts=PTS-STARTPTS[video];[1:v]setpts=PTS-STARTPTS[reference];"
            f"[video][reference]libvmaf=log_fmt=json:log_path={_VMAF_LOG}:n_threads=1"
        )
        inputs = ["-i", f"file:{video.resolve()}", "-i", f"file:{reference.resolve()}"]
        command = [program, "-nostdin", "-hide_banner", "-loglevel", "error", *inputs, "-lavfi", graph]
        try:
            done = subprocess.run(
                [*command, "-f", "null", "-"],
                cwd=folder, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False,
            )  # fmt: skip
        except OSError as error:
            return Vmaf(mean=None, reason=f"{program} could not be run: {error.strerror}")
        except subprocess.TimeoutExpired:
            return Vmaf(mean=None, reason=f"ffmpeg took longer than {_TIMEOUT_S} s")
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["no reason given"])[0]
            hint = "; this ffmpeg is built without libvmaf" if "No such filter: 'libvmaf'" in done.stderr else ""
            return Vmaf(mean=None, reason=f"ffmpeg failed: {said}{hint}")
        return read_vmaf(Path(folder) / _VMAF_LOG)


def read_vmaf(path: Path) -> Vmaf:
    """The scores in a JSON log of libvmaf.

    Raises:
        BadInput: the file is missing or no log of libvmaf.
    """
    row = _json(path)
    frames = row.get("frames")
    if not isinstance(frames, list) or not frames:
        raise BadInput(f"{path}: not a log of libvmaf: it has no frames")
    scores = tuple(_frame_score(frame, path) for frame in frames)
    return Vmaf(mean=math.fsum(scores) / len(scores), frames=scores, version=str(row.get("version", "")))


def _frame_score(frame: object, path: Path) -> float:
    metrics = frame.get("metrics") if isinstance(frame, dict) else None
    score = metrics.get("vmaf") if isinstance(metrics, dict) else None
    if not isinstance(score, int | float) or not math.isfinite(score):
        raise BadInput(f"{path}: a frame has no VMAF score; log it with libvmaf's default model")
    return float(score)


def _vbench_results(path: Path) -> dict[str, dict[str, float | None]]:
    """Dimension -> file name -> score; None where VBench printed something that is no score in [0, 1]."""
    found: dict[str, dict[str, float | None]] = {}
    for dimension, result in _json(path).items():
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


def _json(path: Path) -> dict[str, object]:
    if not path.is_file():
        raise BadInput(f"no file at {path}")
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise BadInput(f"{path}: a JSON object is expected")
    return row
