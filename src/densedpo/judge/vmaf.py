"""VMAF of a video against a reference, by ffmpeg in a process of its own; without one, a reason and no number."""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from densedpo.core.errors import BadInput
from densedpo.core.files import read_object

_VMAF_LOG: Final = "vmaf.json"
_TIMEOUT_S: Final = 600


@dataclass(frozen=True, kw_only=True, slots=True)
class Vmaf:
    """VMAF of a video against a reference of the same size: the mean and each frame's, from 0 to 100.

    `mean` is None where it was not computed; `reason` then says why. `version` is libvmaf's.
    """

    mean: float | None
    frames: tuple[float, ...] = ()
    version: str = ""
    reason: str = ""


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
    row = read_object(path)
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
