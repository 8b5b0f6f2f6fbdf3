"""Where a video may be cut into clips: its shots, and the times of the frames of each clip."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from densedpo.data.decoding.frames import Scan

_NEIGHBOURHOOD: Final = 6  # frames on each side against which a change stands out or does not
_STANDS_OUT: Final = 3.0
_FLASH: Final = 3  # a picture that is back within so many frames was interrupted, not cut


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipPlan:
    """When the frames of one clip are shown, in seconds from the video's first frame."""

    start_s: float
    times_s: tuple[float, ...]
    is_extended: bool  # its last frame is shown once more to fill it


@dataclass(frozen=True, kw_only=True, slots=True)
class ShotPlan:
    """The clips of one shot and what of it is left over.

    Attributes:
        tail_s: what follows the last clip and is too short for one more; the whole shot where there is no clip.
    """

    start_s: float
    stop_s: float
    clips: tuple[ClipPlan, ...]
    tail_s: float


def change(scan: Scan, before: NDArray[np.int64], after: NDArray[np.int64]) -> NDArray[np.float64]:
    """How different frames look, float64 in [0, 1], elementwise over two arrays of frame numbers.

    Half of it is the share of pixels that changed colour bin, whatever their place, which motion leaves alone; half is
    the mean difference of thumbnails, which notices a new arrangement of the same colours.
    """
    colours = np.abs(scan.histograms[after] - scan.histograms[before]).sum(axis=-1).mean(axis=-1) / 2
    places = np.abs(scan.thumbnails[after].astype(np.int16) - scan.thumbnails[before]).mean(axis=(1, 2, 3)) / 255
    result: NDArray[np.float64] = 0.5 * colours + 0.5 * np.minimum(1.0, 4.0 * places)
    return result


def find_cuts(scan: Scan, *, threshold: float) -> list[int]:
    """The first frame of every shot but the first one.

    A cut is a change above the threshold that stands out from those around it (a fast camera does not), after which the
    picture before it does not come back (a flash does not cut). Dissolves and fades are not found.
    """
    count = len(scan.times_s)
    if count < 2:
        return []
    changes = change(scan, np.arange(count - 1), np.arange(1, count))
    cuts: list[int] = []
    for frame in (int(at) + 1 for at in np.flatnonzero(changes >= threshold)):
        around = np.delete(
            changes[max(0, frame - 1 - _NEIGHBOURHOOD) : frame + _NEIGHBOURHOOD], min(frame - 1, _NEIGHBOURHOOD)
        )
        usual = float(np.median(around)) if len(around) else 0.0
        if changes[frame - 1] < _STANDS_OUT * usual:
            continue
        before = np.arange(max(0, frame - _FLASH), frame)
        after = np.arange(frame, min(count, frame + _FLASH))
        earlier, later = (grid.reshape(-1) for grid in np.meshgrid(before, after))
        if change(scan, earlier, later).min() >= threshold / 2:
            cuts.append(frame)
    return cuts


def plan_shots(scan: Scan, *, num_frames: int, fps: float, cut_threshold: float) -> list[ShotPlan]:
    """Divides a video at its cuts, and each shot into as many clips of a length as it holds, end to end.

    A shot that ends less than one frame of the clip too early still gives its clip: the last frame is shown again.
    """
    cuts = find_cuts(scan, threshold=cut_threshold)
    edges = [0.0, *(float(scan.times_s[cut]) for cut in cuts), scan.end_s]
    return [_plan_shot(start, stop, num_frames=num_frames, fps=fps) for start, stop in pairwise(edges)]


def _plan_shot(start_s: float, stop_s: float, *, num_frames: int, fps: float) -> ShotPlan:
    held_frames = (stop_s - start_s) * fps
    # clip i shows its last frame at (i + 1) num_frames - 1, which may lie up to one frame behind the end
    count = max(0, math.ceil((held_frames + 2 - num_frames - 1e-6) / num_frames))
    clips = []
    for index in range(count):
        times = [start_s + (index * num_frames + frame) / fps for frame in range(num_frames)]
        # just before the end: the frame that starts there belongs to the next shot
        shown = tuple(min(time, stop_s - 1e-4) for time in times)
        clips.append(ClipPlan(start_s=times[0], times_s=shown, is_extended=times[-1] >= stop_s))
    tail_s = max(0.0, held_frames - count * num_frames) / fps
    return ShotPlan(start_s=start_s, stop_s=stop_s, clips=tuple(clips), tail_s=tail_s)
