"""Whether motion is smooth: can a frame be guessed from its two neighbours?

The guess is made along optical flow, after VBench's motion smoothness, which has a network (AMT) in its place; the
numbers of the two are not comparable. A frozen clip is guessed without error and gets 1, the highest score there is.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from densedpo.metrics.motion import check_video, flow_finder, flow_scale, gray_frame, moving_part


def motion_smoothness(frames: NDArray[np.uint8]) -> float:
    """1 less the error of every second frame guessed from its neighbours, over 255, on the part that moves.

    A clip uint8 [F, H, W, 3] in which nothing moves gets 1.

    Raises:
        ValueError: the clip is no RGB uint8 video of three frames or more.
    """
    check_video(frames)
    if len(frames) < 3:
        raise ValueError(f"smoothness needs at least 3 frames, not {len(frames)}")
    errors = []
    for i in range(1, len(frames) - 1, 2):
        before, here, after = frames[i - 1], frames[i], frames[i + 1]
        moving = moving_part(before, here) | moving_part(here, after)
        if not moving.any():
            errors.append(0.0)
            continue
        guess = between(before, after)
        errors.append(float(np.abs(guess.astype(np.float64) - here)[moving].mean()))
    return 1 - float(np.mean(errors)) / 255


def between(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The frame half way between two frames [H, W, 3], along optical flow.

    At each pixel the flow there, the reversed flow back, and no flow are tried; the one along which the two frames
    agree best is followed. What the flow from one frame misses, since it is covered there, the other's shows.
    """
    height, width = before.shape[:2]
    scale = min(1.0, flow_scale(height, width))  # small frames are not enlarged: half a pixel's error does not show
    flow = flow_finder()
    one, other = gray_frame(before, scale), gray_frame(after, scale)
    there = _resized(flow(one, other), height, width)
    back = _resized(flow(other, one), height, width)
    best_error = np.full((height, width), np.inf)
    result = np.zeros(before.shape, dtype=np.float32)
    for motion in (np.zeros_like(there), there, -back):
        half = motion * np.float32(0.5)
        early, late = _moved(before, half), _moved(after, -half)
        error = cv2.boxFilter(np.abs(early - late).sum(axis=-1), -1, (3, 3))
        better = error < best_error - 1e-3
        result = np.where(better[..., None], (early + late) / 2, result)
        best_error = np.where(better, error, best_error)
    return np.asarray(np.clip(np.rint(result), 0, 255), dtype=np.uint8)


def _resized(flow: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """A flow at the size of the frames, in their pixels."""
    factor = np.array([width / flow.shape[1], height / flow.shape[0]], dtype=np.float32)
    return np.asarray(cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR) * factor, dtype=np.float32)


def _moved(frame: NDArray[np.uint8], motion: NDArray[np.float32]) -> NDArray[np.float32]:
    """A frame carried along a motion [H, W, 2], which is taken where it arrives."""
    y, x = np.mgrid[0 : frame.shape[0], 0 : frame.shape[1]].astype(np.float32)
    moved = cv2.remap(
        frame.astype(np.float32), x - motion[..., 0], y - motion[..., 1], cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return np.asarray(moved, dtype=np.float32)
