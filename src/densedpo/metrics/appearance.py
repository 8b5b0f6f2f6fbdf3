"""Whether a clip's subject and background stay what they are, and how much the clips of one prompt differ.

No network is behind these numbers: a picture is described by its colours and by the directions of its edges. They see
a colour that drifts and an outline that changes, not whether a face stays the same person. **A frozen clip gets the
highest consistency there is**, as it does from VBench's scores of the same name, so a gain in consistency is no gain
unless motion is kept. Read them beside the motion scores only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from densedpo.metrics.motion import check_video, moving_part

_SIDE: Final = 128  # larger frames are made smaller: colours and the large edges are what counts
_COLOUR_BINS: Final = 8  # per axis of CIELAB
_LAB_LOW: Final = np.array([0.0, -100.0, -100.0], dtype=np.float32)
_LAB_HIGH: Final = np.array([100.0, 100.0, 100.0], dtype=np.float32)
_DIRECTIONS: Final = 36
_HARMONICS: Final = 8
_EDGE: Final = 4.0  # levels per pixel; weaker gradients are noise
_MIN_SHARE: Final = 0.01  # a smaller part of the frame says too little about its colours
_THUMBNAIL: Final = 8
_NUM_THUMBNAILS: Final = 8

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Consistency:
    """How alike the frames of a clip are, in [0, 1]: of the part that moves at any time, and of the rest.

    Where nothing moves, the whole frame is the subject; where everything does, it is both.
    """

    subject: float
    background: float


def consistency(frames: NDArray[np.uint8]) -> Consistency:
    """Consistency of a clip uint8 [F, H, W, 3].

    As in VBench (Huang et al. 2024), it is the mean over frames i > 0 of the cosine similarity to the frame before and
    to the first frame, each at least 0. The features are square roots of a CIELAB histogram (so that a cosine is the
    Bhattacharyya coefficient) and, in equal weight, the spectrum of the directions of edges, which does not change
    when a shape moves or turns.

    Raises:
        ValueError: the clip is no RGB uint8 video of two frames or more.
    """
    check_video(frames)
    small = _shrunk(frames)
    moving = moving_region(small)
    whole = np.ones_like(moving)
    subject = moving if moving.mean() >= _MIN_SHARE else whole
    background = ~moving if (~moving).mean() >= _MIN_SHARE else whole
    return Consistency(subject=_similarity(small, subject), background=_similarity(small, background))


def moving_region(frames: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The part of the frame in which anything changes during a clip [F, H, W, 3], with its holes filled: bool [H, W].

    Since it does not move along with the subject, the share of the subject's colours in it stays the same.
    """
    union = np.zeros(frames.shape[1:3], dtype=np.bool_)
    for i in range(len(frames) - 1):
        union |= moving_part(frames[i], frames[i + 1])
    outlines, _ = cv2.findContours(union.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(union.shape, dtype=np.uint8)
    cv2.drawContours(filled, outlines, -1, 1, thickness=cv2.FILLED)
    # changes too small to be counted lie around those that are
    return np.asarray(cv2.dilate(filled, np.ones((5, 5), np.uint8)) > 0)


def clip_feature(frames: NDArray[np.uint8]) -> Floats:
    """What a clip looks like in the large, for diversity: float64 [8 * 8 * 8 * 3].

    Eight frames evenly spread over the clip, each as a picture of 8 x 8 pixels in CIELAB: where which colours are,
    and when. Noise, blur and other fine detail do not show.
    """
    times = np.linspace(0, len(frames) - 1, _NUM_THUMBNAILS).round().astype(np.int64)
    small = [cv2.resize(frames[i], (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA) for i in times]
    return np.concatenate([_lab(thumbnail).ravel() for thumbnail in small]).astype(np.float64)


def distances_to_others(features: Sequence[Floats]) -> Floats:
    """The mean distance of each clip of a prompt to the prompt's other clips, float64 [n], in CIELAB units.

    The distance of two clips is the root mean square of their features' differences. The mean of the result is the
    mean distance over all pairs: the prompt's diversity. 0 says that every seed gives the same clip.

    Raises:
        ValueError: there are fewer than two clips, or their features are not of one length.
    """
    if len(features) < 2:
        raise ValueError(f"diversity needs at least two clips of a prompt, not {len(features)}")
    table = np.stack(features)
    apart = np.sqrt(np.mean((table[:, None] - table[None]) ** 2, axis=-1))
    return np.asarray(apart.sum(axis=1) / (len(features) - 1))


def _shrunk(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = _SIDE / min(frames.shape[1:3])
    if scale >= 1:
        return frames
    resized = [cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for frame in frames]
    return np.asarray(np.stack(resized), dtype=np.uint8)


def _similarity(frames: NDArray[np.uint8], part: NDArray[np.bool_]) -> float:
    features = np.stack([_describe(frame, part) for frame in frames])  # of length 1 each
    to_before = np.einsum("fd,fd->f", features[1:], features[:-1])
    to_first = features[1:] @ features[0]
    # a vector's product with itself can be a rounding error above 1
    return float(np.clip((to_before + to_first) / 2, 0.0, 1.0).mean())


def _describe(frame: NDArray[np.uint8], part: NDArray[np.bool_]) -> Floats:
    colours, edges = _colours(_lab(frame)[part]), _edges(frame, part)
    return np.asarray(np.concatenate([colours, edges / np.linalg.norm(edges)]) / np.sqrt(2), dtype=np.float64)


def _lab(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    scaled = frame.astype(np.float32) / np.float32(255)
    return np.asarray(cv2.cvtColor(scaled, cv2.COLOR_RGB2LAB), dtype=np.float32)


def _colours(lab: NDArray[np.float32]) -> Floats:
    """Square roots of the shares of each colour [n, 3]; a colour between bins counts in parts, so that none jumps."""
    place = np.clip((lab - _LAB_LOW) / (_LAB_HIGH - _LAB_LOW), 0, 1) * (_COLOUR_BINS - 1)
    low = np.minimum(place.astype(np.int64), _COLOUR_BINS - 2)
    part = place - low
    sides = (1 - part, part)
    first_bin = np.ravel_multi_index(tuple(low.T), (_COLOUR_BINS,) * 3)
    shares = np.zeros(_COLOUR_BINS**3)
    for corner in np.ndindex(2, 2, 2):
        weight = sides[corner[0]][:, 0] * sides[corner[1]][:, 1] * sides[corner[2]][:, 2]
        step = int(np.ravel_multi_index(corner, (_COLOUR_BINS,) * 3))
        shares += np.bincount(first_bin + step, weights=weight, minlength=shares.size)
    return np.asarray(np.sqrt(shares / len(lab)))


def _edges(frame: NDArray[np.uint8], part: NDArray[np.bool_]) -> Floats:
    """1 and the strength of each harmonic of the edges' directions: the same for a shape at any angle."""
    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    across = cv2.Scharr(gray, cv2.CV_64F, 1, 0, scale=1 / 32)
    down = cv2.Scharr(gray, cv2.CV_64F, 0, 1, scale=1 / 32)
    strength = np.hypot(across, down)
    counted = part & (strength > _EDGE)
    if not counted.any():
        return np.asarray(np.eye(1, _HARMONICS + 1)[0], dtype=np.float64)
    angle = np.arctan2(down, across)[counted]
    index = np.floor((angle + np.pi) / (2 * np.pi) * _DIRECTIONS).astype(np.int64) % _DIRECTIONS
    spectrum = np.abs(np.fft.rfft(np.bincount(index, weights=strength[counted], minlength=_DIRECTIONS)))
    return np.asarray(spectrum[: _HARMONICS + 1] / spectrum[0])
