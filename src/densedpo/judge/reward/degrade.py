"""Faults at graded strengths that the reward learns to put in order: the same draws at a higher strength are worse.

A strength is in [0, 1]; 0 leaves a clip as it is. Strengths of one kind can be compared with each other, those of two
kinds cannot.
"""

from __future__ import annotations

import math
from typing import Final, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from densedpo.core.errors import BadInput

Frames = NDArray[np.uint8]
Kind = Literal["blur", "noise", "blocks", "flicker", "morph", "frozen", "shuffled"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

BLUR_SIGMA_PX: Final = 2.5
NOISE_SD: Final = 45.0  # in units of 0-255
FLICKER: Final = 40.0  # in units of 0-255, up and down in turn
MORPH_PX: Final = 4.0  # standard deviation of the displacement
JPEG_BEST: Final = 90
JPEG_WORST: Final = 3


def degrade(frames: Frames, kind: Kind, strength: float, rng: np.random.Generator) -> Frames:
    """A copy of a clip uint8 [F, H, W, 3] with one fault.

    Args:
        rng: draws what is random in the fault, whatever the strength: generators in one state give the same fault at
            several strengths.

    Raises:
        BadInput: a strength outside [0, 1], fewer than three frames, or another kind.
    """
    if not 0 <= strength <= 1:
        raise BadInput(f"a strength lies in [0, 1], not {strength}")
    if len(frames) < 3:
        raise BadInput(f"a fault needs at least 3 frames, not {len(frames)}")
    if strength == 0:
        return frames.copy()
    match kind:
        case "blur":
            sigma = BLUR_SIGMA_PX * strength
            return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames]).astype(np.uint8)
        case "noise":
            return _to_uint8(
                frames.astype(np.float32) + NOISE_SD * strength * rng.standard_normal(frames.shape, dtype=np.float32)
            )
        case "blocks":
            return _compressed(frames, strength)
        case "flicker":
            size = FLICKER * strength * rng.uniform(0.5, 1.0, size=len(frames)) * (-1.0) ** np.arange(len(frames))
            return _to_uint8(frames.astype(np.float64) + size[:, None, None, None])
        case "morph":
            return _morphed(frames, strength, rng)
        case "frozen":
            return frames[_held(len(frames), strength, rng)]
        case "shuffled":
            return frames[_reordered(len(frames), strength, rng)]
    raise BadInput(f"unknown kind of fault {kind!r}; known: {', '.join(KINDS)}")


def _to_uint8(frames: NDArray[np.floating]) -> Frames:
    return np.asarray(np.clip(np.rint(frames), 0, 255), dtype=np.uint8)


def _compressed(frames: Frames, strength: float) -> Frames:
    """JPEG at a low quality: blocks of 8x8 pixels, ringing and washed-out colour."""
    quality = round(JPEG_WORST + (JPEG_BEST - JPEG_WORST) * (1 - strength) ** 1.5)
    result = []
    for frame in frames:
        _, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
        result.append(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)))
    return np.stack(result).astype(np.uint8)


def _morphed(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Each frame bent by a smooth field that is nearly new in every frame."""
    height, width = frames.shape[1:3]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    field = rng.standard_normal((5, 5, 2), dtype=np.float32)
    result = []
    for frame in frames:
        field = 0.3 * field + math.sqrt(1 - 0.3**2) * rng.standard_normal((5, 5, 2), dtype=np.float32)
        shift = MORPH_PX * strength * cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
        bent = cv2.remap(
            frame, x + shift[..., 0], y + shift[..., 1], interpolation=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
        )
        result.append(bent)
    return np.stack(result).astype(np.uint8)


def _held(num_frames: int, strength: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Which frame is shown when: one is held for a share of the clip, and then the clip jumps to where it would be."""
    num_held = math.ceil(strength * (num_frames - 1))
    start = math.floor(rng.random() * (num_frames - num_held))
    index = np.arange(num_frames)
    index[start : start + num_held + 1] = start
    return index


def _reordered(num_frames: int, strength: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """An order in which frames have moved by up to a share of the clip; never the right one."""
    place = np.arange(num_frames) + strength * num_frames * rng.uniform(-1, 1, size=num_frames)
    order = np.argsort(place)
    if np.array_equal(order, np.arange(num_frames)):
        first = int(rng.integers(num_frames - 1))
        order[[first, first + 1]] = order[[first + 1, first]]
    return order
