"""What is seen in each frame of a clip: background, the shape's colour, place, form, and how cleanly it is drawn.

Nothing here knows what the caption asked for. The foreground is what differs from the border's median colour; its
largest connected blob is the shape; its pose comes from blur-invariant moments, and the pose's own rendering is what a
clean frame would be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from densedpo.world.template import (
    CIRCLE,
    SQUARE,
    SQUARE_MOMENT,
    TRIANGLE,
    TRIANGLE_MOMENT,
    Complexes,
    Floats,
    Moments,
    Poses,
    angle_of,
    moments,
    render_poses,
)

BORDER_PX: Final = 2
SUPPORT_PX: Final = 6  # how far past the half-contrast outline the shape's own soft edge may reach
CONTRAST_RANK: Final = 40  # the contrast is the 40th largest difference: well inside the smallest shape (177 pixels)
STRAY_FROM: Final = 0.12  # contrast away from the shape below this is noise
_NEAR: Final = np.ones((3, 3), dtype=np.uint8)
_REACH: Final = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * SUPPORT_PX + 1, 2 * SUPPORT_PX + 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Track:
    """Per-frame measurements of a clip; arrays are [F] unless said otherwise, colours in 0-255, lengths in pixels."""

    background: Floats  # [F, 3]
    colour: Floats  # [F, 3]
    presence: Floats  # 0 nothing to see, 1 a shape in full contrast
    poses: Poses
    elongation: Floats  # |E[z^2]| / radius^2: 0 for all three shapes
    triangularity: Floats  # 1 for a triangle, 0 for a circle and a square
    squareness: Floats  # 1 for a square, 0 for a circle and a triangle
    triangle_phase: Complexes  # unit phase that turns three times as fast as the shape
    square_phase: Complexes  # four times
    edge_width: Floats  # area of half-covered pixels per pixel of outline, over that of the renderer: 1 is sharp
    unevenness: Floats  # standard deviation of the colour inside the shape
    grain: Floats  # standard deviation of the background
    misfit: Floats  # area where the shape and its best template disagree, over the shape's area
    stray: Floats  # contrast away from the shape (ghosts, doubles), over the shape's area


@overload
def ramp(value: float, zero: float, one: float) -> float: ...
@overload
def ramp(value: Floats, zero: float, one: float) -> Floats: ...
def ramp(value: float | Floats, zero: float, one: float) -> float | Floats:
    """Straight ramp from 0 at `zero` to 1 at `one` (which may be the smaller), clipped."""
    ratio = np.clip((value - zero) / (one - zero), 0.0, 1.0)
    return ratio if isinstance(ratio, np.ndarray) else float(ratio)


def track(frames: NDArray[np.uint8]) -> Track:
    """Measures every frame of a clip uint8 [F, 64, 64, 3]."""
    num_frames, height, width, _ = frames.shape
    background = _border_median(frames)
    # channels before pixels: every mean over a mask is then a matrix product
    planes = np.ascontiguousarray(frames.reshape(num_frames, -1, 3).transpose(0, 2, 1)).astype(np.float32)
    planes -= background.astype(np.float32)[:, :, None]
    contrast_map = np.sqrt(planes[:, 0] ** 2 + planes[:, 1] ** 2 + planes[:, 2] ** 2)
    middle, rank = height * width // 2, height * width - CONTRAST_RANK
    ordered = np.partition(contrast_map, (middle, rank), axis=1).astype(np.float64)
    contrast = np.maximum(ordered[:, rank], 1.0)
    distinct = ramp(contrast / np.maximum(ordered[:, middle], 1.0), 2.5, 5.0)  # noise alone reaches 2.2
    relative = (contrast_map / contrast.astype(np.float32)[:, None]).reshape(num_frames, height, width)
    blob = _largest_blobs(relative > 0.5)
    core = blob & (relative > 0.93)
    core |= blob & ~core.any(axis=(1, 2))[:, None, None]
    colour_step = _mean_over(planes, core)
    support = _dilated(blob)
    alpha = _alpha(planes, colour_step).reshape(relative.shape) * support
    form = _Form.of(alpha)
    template = render_poses(form.poses)
    area = np.maximum(template.sum(axis=(1, 2), dtype=np.float64), 1.0)
    outside = ~support
    return Track(
        background=background,
        colour=background + colour_step,
        presence=distinct * ramp(contrast, 15.0, 50.0) * ramp(form.area, 20.0, 90.0),
        poses=form.poses,
        elongation=form.elongation,
        triangularity=form.triangularity,
        squareness=form.squareness,
        triangle_phase=form.triangle_phase,
        square_phase=form.square_phase,
        edge_width=_softness(alpha) / np.maximum(_softness(template), 1.0),
        unevenness=_spread(planes, _eroded(template > 0.999)),
        grain=_spread(planes, outside & (relative < 0.25)),
        misfit=np.abs(_sharpened(alpha) - _sharpened(template)).sum(axis=(1, 2), dtype=np.float64) / area,
        stray=(np.clip(relative - STRAY_FROM, 0.0, 1.0) * outside).sum(axis=(1, 2), dtype=np.float64) / area,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Form:
    poses: Poses
    area: Floats
    elongation: Floats
    triangularity: Floats
    squareness: Floats
    triangle_phase: Complexes
    square_phase: Complexes

    @classmethod
    def of(cls, alpha: NDArray[np.float32]) -> _Form:
        """The pose and form of soft masks [F, H, W], corrected where the picture's edge cuts the shape."""
        seen = moments(alpha)
        form = cls._uncut(seen)
        edge = np.maximum(alpha[:, [0, -1], :].max(axis=(1, 2)), alpha[:, :, [0, -1]].max(axis=(1, 2)))
        cut = edge > 0.25
        if not cut.any():
            return form
        # moment matching: move the template until it, cut by the same edge, has the moments that are seen
        guess = seen
        for _ in range(3):
            drawn = moments(render_poses(cls._uncut(guess).poses))
            ideal = _ideal(cls._uncut(guess))
            guess = _shifted(seen, drawn, ideal, cut)
        return cls._uncut(guess)

    @classmethod
    def _uncut(cls, seen: Moments) -> _Form:
        radius = seen.radius
        triangularity = np.abs(seen.third) / radius**3 / TRIANGLE_MOMENT
        squareness = np.abs(seen.fourth) / radius**4 / SQUARE_MOMENT
        kind = np.where(
            np.maximum(triangularity, squareness) < 0.5, CIRCLE, np.where(triangularity > squareness, TRIANGLE, SQUARE)
        )
        return cls(
            poses=Poses(kind=kind, centre=seen.centre, angle=angle_of(kind, seen), radius=radius),
            area=seen.area,
            elongation=np.abs(seen.second) / radius**2,
            triangularity=triangularity,
            squareness=squareness,
            triangle_phase=_unit(seen.third),
            square_phase=_unit(seen.fourth),
        )


def _ideal(form: _Form) -> Moments:
    """The moments that a form's template has where nothing cuts it."""
    kind, angle, radius = form.poses.kind, form.poses.angle, form.poses.radius
    triangle = np.where(kind == TRIANGLE, TRIANGLE_MOMENT * radius**3, 0.0)
    square = np.where(kind == SQUARE, SQUARE_MOMENT * radius**4, 0.0)
    return Moments(
        area=np.pi * radius**2,
        centre=form.poses.centre,
        second=np.zeros_like(form.poses.centre),
        third=triangle * 1j * np.exp(3j * angle),
        fourth=-square * np.exp(4j * angle),
    )


def _shifted(seen: Moments, drawn: Moments, ideal: Moments, cut: NDArray[np.bool_]) -> Moments:
    return Moments(
        area=np.where(cut, np.maximum(seen.area + ideal.area - drawn.area, seen.area), seen.area),
        centre=seen.centre + cut * (ideal.centre - drawn.centre),
        second=seen.second + cut * (ideal.second - drawn.second),
        third=seen.third + cut * (ideal.third - drawn.third),
        fourth=seen.fourth + cut * (ideal.fourth - drawn.fourth),
    )


def _unit(value: Complexes) -> Complexes:
    return value / np.maximum(np.abs(value), 1e-9)


def _border_median(frames: NDArray[np.uint8]) -> Floats:
    b = BORDER_PX
    parts = (frames[:, :b], frames[:, -b:], frames[:, b:-b, :b], frames[:, b:-b, -b:])
    ring = np.concatenate([part.reshape(frames.shape[0], -1, 3) for part in parts], axis=1)
    return np.asarray(np.median(ring, axis=1), dtype=np.float64)


def _largest_blobs(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest 4-connected blob of each mask [F, H, W]."""
    blobs = np.zeros_like(mask)
    for i, one in enumerate(mask.astype(np.uint8)):
        count, labels, stats, _ = cv2.connectedComponentsWithStats(one, connectivity=4)
        if count > 1:
            blobs[i] = labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return blobs


def _dilated(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return _unstacked(cv2.dilate(_stacked(mask), _REACH))


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return _unstacked(cv2.erode(_stacked(mask), _NEAR))


def _stacked(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    # OpenCV wants the channels last; the frames of a clip are its channels
    return np.ascontiguousarray(mask.transpose(1, 2, 0)).astype(np.uint8)


def _unstacked(stacked: NDArray[np.generic]) -> NDArray[np.bool_]:
    return stacked.astype(np.bool_).reshape(*stacked.shape[:2], -1).transpose(2, 0, 1)


def _alpha(planes: NDArray[np.float32], colour_step: Floats) -> NDArray[np.float32]:
    """How far each pixel [F, N] is on the way from the background to the shape's colour, in [0, 1]."""
    along = colour_step / np.maximum((colour_step**2).sum(axis=1, keepdims=True), 1.0)
    alpha = (along.astype(np.float32)[:, None, :] @ planes)[:, 0]
    return np.asarray(np.clip(alpha, 0.0, 1.0), dtype=np.float32)


def _softness(alpha: NDArray[np.float32]) -> Floats:
    return np.asarray((alpha * (1 - alpha)).sum(axis=(1, 2)), dtype=np.float64)


def _sharpened(alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.clip((alpha - 0.5) * 3 + 0.5, 0.0, 1.0), dtype=np.float32)


def _mean_over(planes: NDArray[np.float32], mask: NDArray[np.bool_]) -> Floats:
    """Mean [F, 3] of planes [F, 3, N] over masks [F, H, W]."""
    weight = mask.reshape(mask.shape[0], -1, 1).astype(np.float32)
    total = np.asarray((planes @ weight)[:, :, 0], dtype=np.float64)
    return np.asarray(total / np.maximum(weight.sum(axis=1), 1.0), dtype=np.float64)


def _spread(planes: NDArray[np.float32], mask: NDArray[np.bool_]) -> Floats:
    """Root mean square distance from the mean colour over masks, per channel, [F]."""
    variance: Floats = _mean_over(planes**2, mask) - _mean_over(planes, mask) ** 2
    return np.asarray(np.sqrt(np.maximum(variance.sum(axis=1), 0.0) / 3), dtype=np.float64)
