"""Many shapes at once: the renderer's shapes at given poses for a whole clip, and the moments that tell them apart.

Moments are complex: with z = x + iy measured from the centroid and averaged over the shape, E[z^2], E[z^3] and E[z^4]
do not change when the image is blurred by an isotropic kernel (after Flusser and Suk, "Degraded image analysis: an
invariant approach", PAMI 1998), so a soft edge is never mistaken for another shape. An equilateral triangle of
circumradius R has |E[z^3]| = R^3 / 10, a square of half side h |E[z^4]| = h^4 * 4 / 15, a circle neither.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from densedpo.world.render import EDGE_PX, FRAME_SIZE
from densedpo.world.scene import SHAPES

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

# circumradius / radius of the circle with the same area, in the order of SHAPES
CIRCUMRADIUS: Final = np.array([1.0, math.sqrt(math.pi / 2), math.sqrt(4 * math.pi / (3 * math.sqrt(3)))])
TRIANGLE_MOMENT: Final = CIRCUMRADIUS[2] ** 3 / 10  # |E[z^3]| / radius^3 of a triangle
SQUARE_MOMENT: Final = (math.sqrt(math.pi) / 2) ** 4 * 4 / 15  # |E[z^4]| / radius^4 of a square
CIRCLE, SQUARE, TRIANGLE = (SHAPES.index(name) for name in ("circle", "square", "triangle"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Poses:
    """A shape's pose in each frame: all arrays are [F]; `kind` indexes SHAPES, `radius` is the equal-area circle's."""

    kind: NDArray[np.int64]
    centre: Complexes
    angle: Floats
    radius: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """Area and central complex moments of a soft mask per frame, each [F]; lengths in pixels, y down."""

    area: Floats
    centre: Complexes
    second: Complexes
    third: Complexes
    fourth: Complexes

    @property
    def radius(self) -> Floats:
        """Radius of the circle with the same area."""
        return np.sqrt(np.maximum(self.area, 1e-6) / math.pi)


def _powers() -> Floats:
    y, x = np.mgrid[0:FRAME_SIZE, 0:FRAME_SIZE]
    z = (x + 1j * y).reshape(-1) - _MIDDLE
    columns = [np.ones(z.size)]
    for k in range(1, 5):
        columns += [(z**k).real, (z**k).imag]
    return np.stack(columns, axis=1)


_MIDDLE: Final = (FRAME_SIZE - 1) / 2 * (1 + 1j)
_POWERS: Final = _powers()


def moments(alpha: NDArray[np.float32]) -> Moments:
    """Moments of soft masks [F, H, W]; an empty mask has area 0 and lies in the middle."""
    raw = alpha.reshape(alpha.shape[0], -1).astype(np.float64) @ _POWERS
    area = raw[:, 0]
    powers = (raw[:, 1::2] + 1j * raw[:, 2::2]).astype(np.complex128) / np.maximum(area, 1e-6)[:, None]
    z1, z2, z3, z4 = powers.T
    return Moments(
        area=area,
        centre=z1 + _MIDDLE,
        second=z2 - z1**2,
        third=z3 - 3 * z1 * z2 + 2 * z1**3,
        fourth=z4 - 4 * z1 * z3 + 6 * z1**2 * z2 - 3 * z1**4,
    )


def angle_of(kind: NDArray[np.int64], shape: Moments) -> Floats:
    """Angle [F] of each frame's shape in the renderer's sense, within its symmetry (90 or 120 degrees; circle 0)."""
    # at angle 0 the renderer's triangle has E[z^3] on the positive imaginary axis, its square E[z^4] negative and real
    triangle = np.angle(shape.third * -1j) / 3
    square = np.angle(-shape.fourth) / 4
    return np.where(kind == TRIANGLE, triangle, np.where(kind == SQUARE, square, 0.0))


def render_poses(poses: Poses) -> NDArray[np.float32]:
    """Coverage float32 [F, H, W] of each frame's shape, by the renderer's own signed distances."""
    grid = np.arange(FRAME_SIZE, dtype=np.float32)
    dx = grid[None, None, :] - poses.centre.real.astype(np.float32)[:, None, None]
    dy = grid[None, :, None] - poses.centre.imag.astype(np.float32)[:, None, None]
    cos, sin = (f(poses.angle).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))
    outer = (poses.radius * CIRCUMRADIUS[poses.kind]).astype(np.float32)[:, None, None]
    distance = np.empty((poses.kind.size, FRAME_SIZE, FRAME_SIZE), dtype=np.float32)
    for kind in np.unique(poses.kind):
        of = poses.kind == kind
        x = cos[of] * dx[of] + sin[of] * dy[of]
        y = cos[of] * dy[of] - sin[of] * dx[of]
        if kind == CIRCLE:
            distance[of] = np.sqrt(x * x + y * y) - outer[of]
        elif kind == SQUARE:
            distance[of] = np.maximum(np.abs(x), np.abs(y)) - outer[of] * np.float32(1 / math.sqrt(2))
        else:
            slope = np.abs(x) * np.float32(math.sqrt(3) / 2) - y * np.float32(0.5)
            distance[of] = np.maximum(y, slope) - outer[of] * np.float32(0.5)
    return np.asarray(np.clip(np.float32(0.5) - distance / np.float32(EDGE_PX), 0.0, 1.0), dtype=np.float32)
