"""What is seen in each frame of a clip: background, the shape's colour, place, form, and how cleanly it is drawn.

Nothing here knows what the caption asked for. The foreground is what differs from the border's median colour; its largest
connected blob is the shape; its pose comes from blur-invariant moments, and the pose's own rendering is what a clean
frame would be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

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
SUPPORT_PX: Final = 5  # how far past the half-contrast outline the shape's own soft edge may reach
CONTRAST_RANK: Final = 40  # the contrast is the 40th largest difference: well inside the smallest shape (177 pixels)
_SMALL: Final = np.ones((3, 3), dtype=np.uint8)
_KERNEL: Final = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * SUPPORT_PX + 1, 2 * SUPPORT_PX + 1))


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


def ramp(value: Floats, zero: float, one: float) -> Floats:
    """Straight ramp from 0 at `zero` to 1 at `one` (which may be the smaller), clipped."""
    return np.clip((value - zero) / (one - zero), 0.0, 1.0)


def track(frames: NDArray[np.uint8]) -> Track:
    """Measures every frame of a clip uint8 [F, 64, 64, 3]."""
    pixels = frames.astype(np.float32)
    background = _border_median(frames)
    difference = pixels - background[:, None, None, :].astype(np.float32)
    magnitude = np.sqrt(np.einsum("fhwc,fhwc->fhw", difference, difference))
    flat = magnitude.reshape(frames.shape[0], -1)
    contrast = np.maximum(np.partition(flat, -CONTRAST_RANK, axis=1)[:, -CONTRAST_RANK], 1.0)[:, None, None]
    blob = _largest_blobs(magnitude > 0.5 * contrast)
    support = _morph(cv2.dilate, blob, _KERNEL)
    core = blob & (magnitude > 0.85 * contrast)
    core |= blob & ~core.any(axis=(1, 2))[:, None, None]
    colour_step = _mean_over(difference, core)
    alpha = np.einsum("fhwc,fc->fhw", difference, colour_step.astype(np.float32))
    alpha /= np.maximum((colour_step**2).sum(axis=1), 1.0).astype(np.float32)[:, None, None]
    alpha = np.clip(alpha, 0.0, 1.0) * support
    form = _Form.of(alpha)
    template = render_poses(form.poses)
    area = np.maximum(template.sum(axis=(1, 2)), 1.0)
    inside = template > 0.999
    outside = ~support
    return Track(
        background=background,
        colour=background + colour_step,
        presence=ramp(contrast[:, 0, 0].astype(np.float64), 15.0, 50.0) * ramp(form.area, 20.0, 90.0),
        poses=form.poses,
        elongation=form.elongation,
        triangularity=form.triangularity,
        squareness=form.squareness,
        triangle_phase=form.triangle_phase,
        square_phase=form.square_phase,
        edge_width=_softness(alpha) / np.maximum(_softness(template), 1.0),
        unevenness=_spread(pixels, _morph(cv2.erode, inside, _SMALL)),
        grain=_spread(pixels, outside & (magnitude < 0.25 * contrast)),
        misfit=np.abs(_sharpened(alpha) - _sharpened(template)).sum(axis=(1, 2)) / area,
        stray=(np.clip(magnitude / contrast - 0.12, 0.0, 1.0) * outside).sum(axis=(1, 2)) / area,
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
    return np.median(ring, axis=1)


def _largest_blobs(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest 4-connected blob of each mask [F, H, W]."""
    blobs = np.zeros_like(mask)
    for i, one in enumerate(mask.astype(np.uint8)):
        count, labels, stats, _ = cv2.connectedComponentsWithStats(one, connectivity=4)
        if count > 1:
            blobs[i] = labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return blobs


def _morph(
    operation: Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.uint8]],
    mask: NDArray[np.bool_],
    kernel: NDArray[np.uint8],
) -> NDArray[np.bool_]:
    # OpenCV wants the channels last; the frames of a clip are its channels
    stacked = np.ascontiguousarray(mask.transpose(1, 2, 0)).astype(np.uint8)
    return operation(stacked, kernel).reshape(stacked.shape).transpose(2, 0, 1) > 0


def _softness(alpha: NDArray[np.float32]) -> Floats:
    return (alpha * (1 - alpha)).sum(axis=(1, 2)).astype(np.float64)


def _sharpened(alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.clip((alpha - np.float32(0.5)) * np.float32(3) + np.float32(0.5), 0.0, 1.0)


def _mean_over(pixels: NDArray[np.float32], mask: NDArray[np.bool_]) -> Floats:
    weight = mask.astype(np.float32)
    return np.einsum("fhwc,fhw->fc", pixels, weight) / np.maximum(weight.sum(axis=(1, 2)), 1.0)[:, None].astype(
        np.float64
    )


def _spread(pixels: NDArray[np.float32], mask: NDArray[np.bool_]) -> Floats:
    """Root mean square distance from the mean colour over a mask, per channel."""
    mean = _mean_over(pixels, mask)
    square = np.einsum("fhwc,fhwc,fhw->f", pixels, pixels, mask.astype(np.float32)) / np.maximum(
        mask.sum(axis=(1, 2)), 1
    )
    return np.sqrt(np.maximum(square - (mean**2).sum(axis=1), 0.0) / 3)
