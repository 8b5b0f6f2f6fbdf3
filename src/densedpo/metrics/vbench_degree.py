"""VBench's dynamic degree, re-implemented: does a clip move, yes or no.

The rule is VBench's (Huang et al. 2024, `vbench/dynamic_degree.py`); the optical flow is not. VBench runs RAFT, a
network; here it is OpenCV's DIS flow on the pixels that change. How far the two disagree on real videos has not been
measured, so a number from here is to be compared with numbers from here. It is a yes or no, and blind to the
difference between a camera and an object that moves: `camera.py` has the continuous numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from densedpo.metrics.motion import FlowStep, check_video, flow_steps

TARGET_FPS: Final = 8
TOP_SHARE: Final = 0.05
THRESHOLD_PX: Final = 6.0  # at a short side of 256
MIN_FRAMES: Final = 3  # with two, VBench's rule asks for no moving step at all and calls a frozen clip dynamic


def is_dynamic(frames: NDArray[np.uint8], *, fps: float) -> bool:
    """Whether VBench's rule calls a clip uint8 [F, H, W, 3] dynamic.

    Every max(1, round(fps / 8))-th frame is taken, N in all. A step from one to the next moves if the mean of the
    int(0.05 h w) largest flow magnitudes is over 6 * min(h, w) / 256 pixels. The clip is dynamic if at least
    round(4 N / 16) steps move. (One version of VBench raises the threshold below 8 frames per second; this does not.)

    Raises:
        ValueError: the clip is no RGB uint8 video, or has fewer than three frames at that rate.
    """
    check_video(frames)
    if fps <= 0:
        raise ValueError(f"a frame rate must be above 0, not {fps}")
    taken = frames[:: max(1, round(fps / TARGET_FPS))]
    if len(taken) < MIN_FRAMES:
        raise ValueError(f"dynamic degree needs {MIN_FRAMES} frames at {TARGET_FPS} fps, not {len(taken)}")
    return steps_are_dynamic(flow_steps(taken))


def steps_are_dynamic(steps: Sequence[FlowStep]) -> bool:
    """The rule on the steps between frames taken at about 8 per second, two or more of them."""
    threshold = THRESHOLD_PX * min(steps[0].moving.shape) / 256
    num_moving = int((step_magnitudes(steps) > threshold).sum())
    return num_moving >= round(4 * ((len(steps) + 1) / 16))


def step_magnitudes(steps: Sequence[FlowStep]) -> NDArray[np.float64]:
    """What is held against the threshold: one number of pixels for each step, float64 [F - 1]."""
    found = np.zeros(len(steps))
    for i, step in enumerate(steps):
        if step.flow is not None:
            height, width = step.moving.shape
            magnitude = np.hypot(step.flow[..., 0], step.flow[..., 1]) * (width / step.flow.shape[1])
            magnitude = cv2.resize(magnitude, (width, height), interpolation=cv2.INTER_LINEAR) * step.moving
            count = int(TOP_SHARE * magnitude.size)
            found[i] = np.sort(magnitude, axis=None)[-count:].mean()
    return found
