"""Which clips are not worth training on: nothing moves, or only the camera does."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from densedpo.metrics.motion import CHANGED_LEVELS

_STATIC_PIXEL_SHARE: Final = 0.001
_FLOW_SIDE: Final = 128
_FLOW_STEP_S: Final = 0.25
_GRID_PX: Final = 4
_MARGIN_PX: Final = 16  # near the edge, what has left the picture has no flow
_TEXTURE: Final = 2.0  # grey levels per pixel; flow is a guess where the picture is plain
_MIN_TEXTURED_SHARE: Final = 0.2
_MOVING_PX: Final = 0.5
_INLIER_PX: Final = 0.75


def static_share(frames: NDArray[np.uint8]) -> float:
    """Share of the frames, but for the first, in which under a thousandth of the pixels differ from the frame before.

    Args:
        frames: [F, H, W, 3].
    """
    if len(frames) < 2:
        return 1.0
    static = 0
    for before, after in pairwise(frames):
        changed = cv2.absdiff(before, after).max(axis=-1) > CHANGED_LEVELS
        static += bool(changed.mean() < _STATIC_PIXEL_SHARE)
    return static / (len(frames) - 1)


def camera_share(frames: NDArray[np.uint8], *, fps: float) -> float:
    """Share of the textured picture whose motion is that of one moving camera before a still, far or flat scene.

    Between frames a quarter of a second apart, one affine map is fitted to the optical flow. The result is the mean
    share of points that follow it, over the steps in which the picture as a whole moves; 0 if it never does, and 0
    where too little of the picture has texture to tell a camera from an object.

    Args:
        frames: [F, H, W, 3].
    """
    scale = _FLOW_SIDE / min(frames.shape[1:3])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    step = max(1, round(_FLOW_STEP_S * fps))
    gray = [
        cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), None, fx=scale, fy=scale, interpolation=method)
        for frame in frames[::step]
    ]
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    shares = []
    blank = np.zeros((*gray[0].shape, 2), dtype=np.float32)
    for before, after in pairwise(gray):
        share = _follows_camera(before, np.asarray(flow.calc(before, after, blank), dtype=np.float32))
        if share is not None:
            shares.append(share)
    return float(np.mean(shares)) if shares else 0.0


def _follows_camera(before: NDArray[np.integer], flow: NDArray[np.float32]) -> float | None:
    """Share of the textured points that one affine map explains; None where the camera stands or cannot be seen."""
    gradient_x = cv2.Sobel(before, cv2.CV_32F, 1, 0, scale=1 / 8)
    gradient_y = cv2.Sobel(before, cv2.CV_32F, 0, 1, scale=1 / 8)
    inside = slice(_MARGIN_PX, -_MARGIN_PX, _GRID_PX)
    textured = np.hypot(gradient_x, gradient_y)[inside, inside] > _TEXTURE
    if textured.mean() < _MIN_TEXTURED_SHARE:
        return None
    rows, columns = np.nonzero(textured)
    start = np.stack([columns, rows], axis=1).astype(np.float32) * _GRID_PX + _MARGIN_PX
    moved = flow[inside, inside][rows, columns]
    if np.median(np.hypot(moved[:, 0], moved[:, 1])) < _MOVING_PX:
        return None
    affine, inliers = cv2.estimateAffine2D(start, start + moved, ransacReprojThreshold=_INLIER_PX)
    return None if affine is None else float(np.mean(inliers))
