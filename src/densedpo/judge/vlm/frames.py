"""Frames as a model is shown them: separate images at a stated rate, of a size that it can see."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from densedpo.judge.protocol import Frames

ImageFormat = Literal["png", "jpeg"]
_JPEG_QUALITY: Final = 95


def shown_frames(start: int, stop: int, *, fps: float, frames_per_second: float) -> tuple[int, ...]:
    """The frames of a half-open range that are shown: at most so many in each second, evenly, the first one among them.

    A rate above the clip's own shows every frame once.
    """
    step = max(1.0, fps / frames_per_second)
    count = math.ceil((stop - start) / step - 1e-9)
    return tuple(start + math.floor(index * step + 1e-9) for index in range(count))


def spread(frames: Sequence[int], at_most: int) -> tuple[int, ...]:
    """At most so many of these frames, evenly spread, each in the middle of its share."""
    if len(frames) <= at_most:
        return tuple(frames)
    return tuple(frames[math.floor((index + 0.5) * len(frames) / at_most)] for index in range(at_most))


def encoded(frame: NDArray[np.uint8], *, image_format: ImageFormat, min_side: int, max_side: int) -> str:
    """One RGB frame [H, W, 3] as base64 of a PNG or JPEG file; the same bytes for the same frame."""
    sized = _resized(frame, min_side=min_side, max_side=max_side)
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if image_format == "jpeg" else []
    ok, data = cv2.imencode(f".{image_format}", cv2.cvtColor(sized, cv2.COLOR_RGB2BGR), options)
    assert ok
    return base64.b64encode(data.tobytes()).decode("ascii")


def images(
    clip: Frames, indices: Sequence[int], *, image_format: ImageFormat, min_side: int, max_side: int
) -> tuple[str, ...]:
    """These frames of a clip, each as `encoded` gives it."""
    return tuple(
        encoded(clip[index], image_format=image_format, min_side=min_side, max_side=max_side) for index in indices
    )


def _resized(frame: NDArray[np.uint8], *, min_side: int, max_side: int) -> NDArray[np.uint8]:
    height, width = frame.shape[:2]
    if max(height, width) > max_side:
        scale = max_side / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    # whole numbers only: small clips keep their pixels as they are
    factor = min(-(-min_side // min(height, width)), max_side // max(height, width))
    return frame.repeat(factor, axis=0).repeat(factor, axis=1) if factor > 1 else frame
