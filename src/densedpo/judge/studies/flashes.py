"""Whether a clip flashes so that it can harm somebody: it then does not play by itself, and the screen says so.

After WCAG 2.2, success criterion 2.3.1 and its definitions of general flash and red flash. Two things are rougher than
there, on the cautious side: seven changes in a second are too many, though three and a half flashes are not four; and
the area that counts is a share of the clip, since nobody knows how large it is on a screen and how far away.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from densedpo.core.media import Frames

MAX_CHANGES: Final = 6  # in any second: two for each of the three flashes that are allowed
AREA: Final = 0.1  # of a clip: a quarter of WCAG's 10 degrees of sight (341 x 256 pixels) where it is 480 pixels wide
_LUMINANCE_STEP: Final = 0.1
_TOO_BRIGHT: Final = 0.8  # changes whose darker side is brighter than this are none
_RED_STEP: Final = 20 / 320
_SATURATED: Final = 0.8
_SIDE: Final = 64  # cells along a clip's shorter side, at least
_WEIGHTS: Final = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)

Signal = NDArray[np.float32]


def flashes(frames: Frames, *, fps: float) -> bool:
    """Whether more than a tenth of a clip flashes more than three times in some second.

    Args:
        frames: sRGB (frame, row, column, 3).
    """
    linear = np.stack([_cells(frame) for frame in frames])
    total = linear.sum(axis=-1)
    red = linear[..., 0]
    saturated = red >= _SATURATED * np.maximum(total, 1e-6)
    redness = np.where(saturated, np.maximum(0, 2 * red - total), 0)  # R - G - B
    changes = (
        _changes((linear * _WEIGHTS).sum(axis=-1), step=_LUMINANCE_STEP, darker_than=_TOO_BRIGHT),
        _changes(redness.astype(np.float32), step=_RED_STEP, darker_than=np.inf),
    )
    return any(_most_at_once(each, window=max(1, round(fps))) >= AREA for each in changes)


def _cells(frame: NDArray[np.uint8]) -> Signal:
    """A frame in linear light, averaged over square cells (row, column, 3)."""
    height, width, _ = frame.shape
    size = max(1, min(height, width) // _SIDE)
    rows, columns = height // size, width // size
    linear = _LINEAR[frame[: rows * size, : columns * size]]
    mean: Signal = linear.reshape(rows, size, columns, size, 3).mean(axis=(1, 3), dtype=np.float32)
    return mean


def _linear_of_srgb() -> Signal:
    value = np.arange(256) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


_LINEAR: Final = _linear_of_srgb()


def _changes(signal: Signal, *, step: float, darker_than: float) -> NDArray[np.bool_]:
    """Where and when a signal turns: it has moved by `step` from its last extreme, against the way it moved before."""
    found = np.zeros(signal.shape, dtype=np.bool_)
    low, high = signal[0].copy(), signal[0].copy()
    way = np.zeros(signal.shape[1:], dtype=np.int8)  # +1: it rose last
    for n, now in enumerate(signal[1:], start=1):
        high, low = np.maximum(high, now), np.minimum(low, now)
        up = (way <= 0) & (now - low >= step) & (low < darker_than)
        down = (way >= 0) & (high - now >= step) & (now < darker_than) & ~up
        found[n] = up | down
        way = np.where(up, 1, np.where(down, -1, way)).astype(np.int8)
        # a new extreme is looked for from here on
        high, low = np.where(found[n], now, high), np.where(found[n], now, low)
    return found


def _most_at_once(changes: NDArray[np.bool_], *, window: int) -> float:
    """The largest share of cells that change too often within one window of frames."""
    sums = np.cumsum(changes, axis=0, dtype=np.int32)
    before = np.concatenate([np.zeros((min(window, len(sums)), *sums.shape[1:]), np.int32), sums[:-window]])
    return float((sums - before > MAX_CHANGES).mean(axis=(1, 2)).max())
