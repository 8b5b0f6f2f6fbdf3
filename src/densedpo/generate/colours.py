"""Colours of a clip brought to those of its first frame (HuViDPO, 2502.01690, by its released code; no torch)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEVELS = 256


def match_first_frame(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Gives every later frame the distribution of each channel that the first frame has.

    For clips that continue a given first frame and lose its colours on the way. The first frame is returned as it is;
    a frame in which something enters or leaves gets wrong colours by it, since its distribution ought to differ.

    Args:
        frames: a clip [F, H, W, C].
    """
    cumulative = [_cumulative(channel) for channel in np.moveaxis(frames[0], -1, 0)]
    matched = frames.copy()
    for frame in matched[1:]:
        for channel, wanted in enumerate(cumulative):
            frame[..., channel] = _table(_cumulative(frame[..., channel]), wanted)[frame[..., channel]]
    return matched


def _cumulative(channel: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The share of pixels at or below each of the 256 values."""
    shares: NDArray[np.float64] = np.cumsum(np.bincount(channel.ravel(), minlength=LEVELS)) / channel.size
    return shares


def _table(found: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.uint8]:
    """For each value the one of the same share in the wanted distribution, interpolated between two of its values."""
    is_there = np.diff(wanted, prepend=0.0) > 0
    return np.rint(np.interp(found, wanted[is_there], np.flatnonzero(is_there))).astype(np.uint8)
