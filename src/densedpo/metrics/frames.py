"""Scores of a clip's frames that any video can get and that no label in this project is made from.

None of them says by itself which clip is better. They are there to notice what a preference signal may pay with: blur,
flicker, washed-out or glaring colours.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameScores:
    """Means over a clip's frames.

    `sharpness`: the steepest edges, the mean of the top 1 % of gradient magnitudes over the frame's contrast (per
    pixel; an ideal edge gives about 0.5). `flicker`: mean absolute second difference of the frame's mean colour, in
    levels of 255 (0 for anything that moves evenly). `saturation` and `contrast`: mean of (max - min) over the
    channels, and standard deviation of luma, both over 255. `saturation_drift` and `contrast_drift`: how far these two
    are in the last quarter of the clip from where they are in the first, 0 if they stay. `temporal_flickering`: 1 less
    the mean absolute difference of neighbouring frames over 255, VBench's score of that name; any motion lowers it, and
    a frozen clip has 1, the highest score there is.
    """

    sharpness: float
    flicker: float
    saturation: float
    contrast: float
    saturation_drift: float
    contrast_drift: float
    temporal_flickering: float


def frame_scores(frames: NDArray[np.uint8]) -> FrameScores:
    """Scores of a clip uint8 [F, H, W, 3], RGB, of any length from one frame on."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0:
        raise ValueError(f"frames must be uint8 [F, H, W, 3] with F >= 1, not {frames.dtype} {list(frames.shape)}")
    luma = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]).astype(np.float64)
    saturation = (frames.max(axis=-1).astype(np.float64) - frames.min(axis=-1)).mean(axis=(1, 2)) / 255
    contrast = luma.std(axis=(1, 2)) / 255
    return FrameScores(
        sharpness=float(np.mean([_sharpness(frame) for frame in luma])),
        flicker=_flicker(frames),
        saturation=float(saturation.mean()),
        contrast=float(contrast.mean()),
        saturation_drift=_drift(saturation),
        contrast_drift=_drift(contrast),
        temporal_flickering=_temporal_flickering(frames),
    )


def _drift(over_time: NDArray[np.float64]) -> float:
    quarter = max(1, len(over_time) // 4)
    return abs(float(over_time[-quarter:].mean() - over_time[:quarter].mean()))


def _temporal_flickering(frames: NDArray[np.uint8]) -> float:
    if len(frames) < 2:
        return 1.0
    differences = [float(cv2.absdiff(before, after).mean()) for before, after in pairwise(frames)]
    return 1 - float(np.mean(differences)) / 255


def _sharpness(luma: NDArray[np.float64]) -> float:
    down, right = np.gradient(luma)
    magnitude = np.hypot(down, right)
    contrast = float(luma.max() - luma.min())
    if contrast == 0:
        return 0.0
    steepest = np.sort(magnitude, axis=None)[-max(1, magnitude.size // 100) :]
    return float(steepest.mean() / contrast)


def _flicker(frames: NDArray[np.uint8]) -> float:
    if len(frames) < 3:
        return 0.0
    colour = frames.mean(axis=(1, 2), dtype=np.float64)  # [F, 3]
    return float(np.abs(np.diff(colour, n=2, axis=0)).mean())
