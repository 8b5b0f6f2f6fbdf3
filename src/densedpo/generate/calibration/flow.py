"""How far one clip moves as another does: the agreement of their optical flows (no torch)."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
"""[F, H, W, 3], RGB."""

CHANGED_LEVELS: Final = 12  # of 255: a change between frames that is more than an autoencoder's flicker
FLOW_SIDE: Final = 128  # DIS works on 8x8 patches, so small clips are enlarged first
STILL_PX: Final = 0.02  # mean flow under which a clip counts as still


def flow_agreement(clip: Frames, reference: Frames) -> float | None:
    """The cosine between the flow fields of two clips over space and time, in [-1, 1]; 1 = the same motion.

    Flow counts where either clip changes from one frame to the next. In plain areas dense flow is a guess.

    Returns:
        None where the reference does not move, so that there is no motion to keep; 0 where only the clip stands still.
    """
    if clip.shape != reference.shape:
        raise ValueError(f"clips of one shape are compared, not {clip.shape} and {reference.shape}")
    moving = _moving(clip) | _moving(reference)
    found, expected = _flow(clip) * moving, _flow(reference) * moving
    if np.hypot(expected[..., 0], expected[..., 1]).mean() < STILL_PX:
        return None
    norms = float(np.sqrt(np.square(found).sum() * np.square(expected).sum()))
    return float((found * expected).sum()) / norms if norms > 0 else 0.0


def _moving(frames: Frames) -> NDArray[np.bool_]:
    """Where each step changes the picture, with a margin of a pixel, [F - 1, H, W, 1]."""
    kernel = np.ones((3, 3), np.uint8)
    masks = []
    for before, after in pairwise(frames):
        changed = cv2.absdiff(before, after).max(axis=-1) > CHANGED_LEVELS
        masks.append(cv2.dilate(changed.astype(np.uint8), kernel) > 0)
    return np.stack(masks)[..., None]


def _flow(frames: Frames) -> NDArray[np.float64]:
    """DIS optical flow of each step in pixels of the clip, [F - 1, H, W, 2] (Kroeger et al., ECCV 2016)."""
    height, width = frames.shape[1:3]
    scale = max(1.0, FLOW_SIDE / min(height, width))
    size = (round(width * scale), round(height * scale))
    grays = [_gray(frame, size) for frame in frames]
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flows: NDArray[np.float64] = np.empty((len(grays) - 1, height, width, 2), np.float64)
    for step, (before, after) in enumerate(pairwise(grays)):
        flow = dis.calc(before, after, np.zeros((size[1], size[0], 2), np.float32))
        flows[step] = cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA)
    flows /= scale
    return flows


def _gray(frame: Frames, size: tuple[int, int]) -> NDArray[np.uint8]:
    gray = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_CUBIC)
    return np.asarray(gray, dtype=np.uint8)
