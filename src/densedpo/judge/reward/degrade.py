"""Faults at graded strengths that the reward learns to put in order: the same draws at a higher strength are worse.

A strength is in [0, 1]; 0 leaves a clip as it is. Strengths of one kind can be compared with each other, those of two
kinds cannot.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from densedpo.core.errors import BadInput

Frames = NDArray[np.uint8]
Kind = Literal[
    "blur", "noise", "blocks", "patch", "ghost", "flicker", "drift", "morph", "deform", "rounded", "frozen", "shuffled"
]  # fmt: skip
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

BLUR_SIGMA_PX: Final = 2.5
NOISE_SD: Final = 45.0  # in units of 0-255
FLICKER: Final = 40.0  # in units of 0-255, up and down in turn
DRIFT: Final = 60.0  # in units of 0-255, at the end of the clip
GHOST: Final = 0.6  # how much of the frame of some time ago shines through
GHOST_FRAMES: Final = 3  # how long ago
PATCH_SIGMA_PX: Final = 4.0
PATCH_RADIUS_PX: Final = (5.0, 12.0)
MORPH_PX: Final = 4.0  # standard deviation of the displacement
DEFORM_PX: Final = 3.5
STRETCH: Final = 0.6  # logarithm of length over width of what was a disc
ROUNDED_PX: Final = 15  # window of the median
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
    fault = _FAULTS.get(kind)
    if fault is None:
        raise BadInput(f"unknown kind of fault {kind!r}; known: {', '.join(KINDS)}")
    return fault(frames, strength, rng)


def _blurred(frames: Frames, strength: float, _rng: np.random.Generator) -> Frames:
    sigma = BLUR_SIGMA_PX * strength
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames]).astype(np.uint8)


def _noisy(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    return _to_uint8(
        frames.astype(np.float32) + NOISE_SD * strength * rng.standard_normal(frames.shape, dtype=np.float32)
    )


def _ghosted(frames: Frames, strength: float, _rng: np.random.Generator) -> Frames:
    """A frame of some time ago shines through."""
    ago = frames[np.maximum(np.arange(len(frames)) - GHOST_FRAMES, 0)].astype(np.float32)
    ago[0] = frames[min(GHOST_FRAMES, len(frames) - 1)]  # the first has none before it
    return _to_uint8(frames + GHOST * strength * (ago - frames))


def _drifting(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """All colours move one way."""
    towards = rng.standard_normal(3) * DRIFT * strength
    return _to_uint8(frames + np.linspace(0, 1, len(frames))[:, None, None, None] * towards)


def _flickering(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    size = FLICKER * strength * rng.uniform(0.5, 1.0, size=len(frames)) * (-1.0) ** np.arange(len(frames))
    return _to_uint8(frames.astype(np.float64) + size[:, None, None, None])


def _rounded(frames: Frames, strength: float, _rng: np.random.Generator) -> Frames:
    """Corners and fine detail are gone, outlines stay sharp."""
    window = 1 + 2 * math.ceil(strength * (ROUNDED_PX - 1) / 2)
    return np.stack([cv2.medianBlur(np.ascontiguousarray(frame), window) for frame in frames]).astype(np.uint8)


def _frozen(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    return frames[_held(len(frames), strength, rng)]


def _shuffled(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    return frames[_reordered(len(frames), strength, rng)]


def _to_uint8(frames: NDArray[np.floating]) -> Frames:
    return np.asarray(np.clip(np.rint(frames), 0, 255), dtype=np.uint8)


def _compressed(frames: Frames, strength: float, _rng: np.random.Generator) -> Frames:
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


def _deformed(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """A smooth bend and a stretch that grow or turn slowly, as where a generative model loses a thing's form."""
    height, width = frames.shape[1:3]
    v, u = np.mgrid[0:height, 0:width]
    u, v = u - (width - 1) / 2, v - (height - 1) / 2
    first, last = rng.standard_normal((2, 5, 5, 2), dtype=np.float32)
    begins = rng.random()  # how far it is bent when the clip begins
    angle = rng.uniform(0, math.pi)
    axis = np.array([math.cos(angle), math.sin(angle)])
    result: list[NDArray[np.generic]] = []
    for frame, time in zip(frames, np.linspace(0, 1, len(frames)), strict=True):
        size = strength * (begins + (1 - begins) * time)
        field = first * (1 - time) + last * time
        shift = DEFORM_PX * size * cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
        longer = math.exp(STRETCH * size / 2)
        # where a pixel is taken from: nearer along the axis, as much further across it, so that areas stay
        back = longer * np.eye(2) + (1 / longer - longer) * np.outer(axis, axis)
        from_x = (width - 1) / 2 + back[0, 0] * u + back[0, 1] * v + shift[..., 0]
        from_y = (height - 1) / 2 + back[1, 0] * u + back[1, 1] * v + shift[..., 1]
        result.append(
            cv2.remap(
                frame,
                from_x.astype(np.float32),
                from_y.astype(np.float32),
                interpolation=cv2.INTER_CUBIC,
                borderMode=cv2.BORDER_REFLECT,
            )
        )
    return np.stack(result).astype(np.uint8)


def _patched(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Blur in one place only, where there is something to see in the middle frame."""
    height, width = frames.shape[1:3]
    middle = frames[len(frames) // 2].astype(np.float32).mean(axis=2)
    change = cv2.magnitude(cv2.Sobel(middle, cv2.CV_32F, 1, 0), cv2.Sobel(middle, cv2.CV_32F, 0, 1)).ravel() + 1e-3
    place = int(rng.choice(change.size, p=change.astype(np.float64) / change.sum(dtype=np.float64)))
    y, x = np.mgrid[0:height, 0:width]
    radius = rng.uniform(*PATCH_RADIUS_PX)
    mask = np.clip(1.5 - np.hypot(x - place % width, y - place // width) / radius, 0, 1)[..., None]
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), PATCH_SIGMA_PX * strength) for frame in frames])
    return _to_uint8(mask * blurred + (1 - mask) * frames)


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


_FAULTS: Final[dict[str, Callable[[Frames, float, np.random.Generator], Frames]]] = {
    "blur": _blurred,
    "noise": _noisy,
    "blocks": _compressed,
    "patch": _patched,
    "ghost": _ghosted,
    "flicker": _flickering,
    "drift": _drifting,
    "morph": _morphed,
    "deform": _deformed,
    "rounded": _rounded,
    "frozen": _frozen,
    "shuffled": _shuffled,
}
