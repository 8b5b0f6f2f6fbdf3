"""How much of a clip's motion is the camera's and how much is the objects', in percent of the short side per second.

Each step between two frames is explained as far as possible by one affine motion of the whole picture (shift, zoom,
roll, shear), fitted by RANSAC to the flow of textured points. That part is the camera's, what is left is the objects'.
The camera is only credited where its points are spread over the frame: a single shape on a plain ground is an object,
though one affine motion explains it. Strong parallax or perspective is more than one affine motion and counts as object
motion. Units do not depend on the size of the frames, or on their rate up to what resampling loses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from densedpo.metrics.motion import FLOW_FPS, FlowStep, flow_steps, resample

TOP_SHARE: Final = 0.05  # of the frame's pixels, as VBench's dynamic degree has it
MIN_TOP_SHARE: Final = 0.01  # where less than 5 % of the frame moves, all that does counts, but no less than this
_TEXTURE: Final = 2.0  # levels per pixel; flow is a guess where the picture is plain
_GRID_PX: Final = 2  # of the points that the camera is fitted to
_BORDER_PX: Final = 6  # near the edge, what has left the picture has no flow
_INLIER_PX: Final = 0.5
_MIN_POINTS: Final = 12
_MIN_SPREAD: Final = 0.3  # of the frame, as the hull of the points that follow the camera


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraMotion:
    """Motion of a clip, in percent of its short side per second: means over the steps between its frames.

    `mean` is over the whole frame and `top5` over the fastest 5 % of it (or over what moves, where that is less), both
    of the motion as it is seen. `residual` is like `top5` with the camera's motion taken away, and `residual_mean` like
    `mean`. `camera` is the mean of the camera's motion alone. `static_share` is the share of steps in which nothing
    changes, in [0, 1]. `fps` is the rate that was measured at, `side` the short side in pixels.
    """

    mean: float
    top5: float
    residual: float
    residual_mean: float
    camera: float
    static_share: float
    num_steps: int
    fps: float
    side: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Split:
    """Flows [h, w, 2] of one step, in pixels of the size that flow is computed at.

    `seen` is the flow of every pixel, `camera` what the camera's motion would make it; their difference is the
    objects'. `inside` is False where the camera carries a pixel out of the picture, which no flow can follow.
    """

    seen: NDArray[np.float32]
    camera: NDArray[np.float32]
    inside: NDArray[np.bool_]


def measure_camera(frames: NDArray[np.uint8], *, fps: float) -> CameraMotion:
    """Motion of a clip uint8 [F, H, W, 3], split into the camera's and the objects'.

    It is measured at 8 frames per second, or at the clip's own rate where that is lower, and on frames resized so that
    the short side lies between 96 and 256 pixels.

    Raises:
        ValueError: the clip is no RGB uint8 video, or shorter than two frames at that rate.
    """
    at_fps = min(fps, FLOW_FPS)
    return split_motion(flow_steps(resample(frames, fps=fps, at_fps=at_fps)), fps=at_fps)


def split_motion(steps: Sequence[FlowStep], *, fps: float) -> CameraMotion:
    """Motion of a clip from its steps; `fps` is the rate that these were taken at."""
    rows = [(0.0, 0.0, 0.0, 0.0, 0.0) if step.flow is None else _numbers(_split(step.flow, step)) for step in steps]
    side = min(steps[0].gray.shape)
    mean, top5, residual, residual_mean, camera = (np.mean(rows, axis=0) * fps * 100 / side).tolist()
    return CameraMotion(
        mean=mean,
        top5=top5,
        residual=residual,
        residual_mean=residual_mean,
        camera=camera,
        static_share=sum(step.flow is None for step in steps) / len(steps),
        num_steps=len(steps),
        fps=fps,
        side=side,
    )


def top_mean(magnitude: NDArray[np.floating]) -> float:
    """The mean of the largest 5 % of some magnitudes, or of those above 0 if these are fewer (but at least 1 %)."""
    smallest, largest = (max(1, int(share * magnitude.size)) for share in (MIN_TOP_SHARE, TOP_SHARE))
    count = int(np.clip(np.count_nonzero(magnitude), smallest, largest))
    return float(np.partition(magnitude, -count, axis=None)[-count:].mean(dtype=np.float64))


def _textured(gray: NDArray[np.uint8]) -> NDArray[np.bool_]:
    across = cv2.Sobel(gray, cv2.CV_32F, 1, 0, scale=1 / 8)
    down = cv2.Sobel(gray, cv2.CV_32F, 0, 1, scale=1 / 8)
    return np.asarray(np.hypot(across, down) > _TEXTURE)


def _split(flow: NDArray[np.float32], step: FlowStep) -> _Split:
    height, width = step.gray.shape
    shrinks = step.moving.size > step.gray.size
    area = step.moving.astype(np.float32)
    moving = cv2.resize(area, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR) > 0.5
    textured = _textured(step.gray)
    affine = _camera(flow, textured=textured)
    if affine is None:
        camera = np.zeros_like(flow)
        inside = np.ones((height, width), dtype=np.bool_)
        measured = moving
    else:
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        to = np.stack([x, y, np.ones_like(x)], axis=-1) @ affine.T.astype(np.float32)
        camera = to - np.stack([x, y], axis=-1)
        margin = 1 + np.ceil(np.abs(camera).max())  # flow blurs over the edge of what can be followed
        inside = (
            (to[..., 0] >= margin)
            & (to[..., 0] <= width - 1 - margin)
            & (to[..., 1] >= margin)
            & (to[..., 1] <= height - 1 - margin)
        )
        measured = moving | textured
    # where nothing can be seen to move, nothing moves on its own
    return _Split(seen=np.where(measured[..., None], flow, camera), camera=camera, inside=inside)


def _camera(flow: NDArray[np.float32], *, textured: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """The affine map [2, 3] of the camera's motion; None where it stands or cannot be told from an object's."""
    inside = (slice(_BORDER_PX, -_BORDER_PX, _GRID_PX),) * 2
    rows, columns = np.nonzero(textured[inside])
    if len(rows) < _MIN_POINTS:
        return None
    start = np.stack([columns, rows], axis=1).astype(np.float32) * _GRID_PX + _BORDER_PX
    moved = flow[inside][rows, columns]
    found = cv2.estimateAffine2D(start, start + moved, ransacReprojThreshold=_INLIER_PX)
    affine, inlier = cast("tuple[NDArray[np.float64] | None, NDArray[np.uint8]]", found)  # OpenCV's stubs omit the None
    if affine is None:
        return None
    follow = inlier.ravel() > 0
    still = np.hypot(moved[:, 0], moved[:, 1]) <= _INLIER_PX
    if follow.sum() <= still.sum():  # a camera that stands explains as much
        return None
    hull = float(cv2.contourArea(cv2.convexHull(start[follow])))
    height, width = textured[_BORDER_PX:-_BORDER_PX, _BORDER_PX:-_BORDER_PX].shape
    return np.asarray(affine, dtype=np.float64) if hull >= _MIN_SPREAD * height * width else None


def _numbers(step: _Split) -> tuple[float, float, float, float, float]:
    seen = np.hypot(step.seen[..., 0], step.seen[..., 1])
    own = step.seen - step.camera
    residual = np.hypot(own[..., 0], own[..., 1])[step.inside]
    camera = np.hypot(step.camera[..., 0], step.camera[..., 1])
    if residual.size == 0:
        residual = np.zeros(1, dtype=np.float32)
    return (
        float(seen.mean(dtype=np.float64)),
        top_mean(seen),
        top_mean(residual),
        float(residual.mean(dtype=np.float64)),
        float(camera.mean(dtype=np.float64)),
    )
