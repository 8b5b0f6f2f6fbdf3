"""Where a clip is made anew: a random shape that moves through the latent grid (LocalDPO, arXiv 2601.04068).

One closed curve, drawn around a centre that crosses the frame in a straight line while the clip runs. The paper's
shapes are Bezier curves; a periodic cubic spline is one, piece by piece. Drawn at latent length, as the paper's are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
from scipy.interpolate import CubicSpline

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NUM_CORNERS: Final = 7
_FINE: Final = 16  # points of a cell's side at which the curve is drawn, before it is read in cells
_ROUGHNESS: Final = 0.35  # by how much a corner's distance from the centre varies


def random_mask(grid: tuple[int, int, int], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A moving shape, true inside; every frame has some of it and none is all of it.

    Args:
        grid: latent frames, rows and columns.
        share: of a frame's cells that the shape covers, about: what leaves the frame is lost.

    Raises:
        ValueError: a share that is not in (0, 1), or a grid of one cell.
    """
    num_frames, height, width = grid
    if not 0 < share < 1:
        raise ValueError(f"the share of a frame that is masked is in (0, 1), not {share}")
    if height * width < 2:
        raise ValueError("a grid of one cell has no inside and outside")
    outline = _outline(share * height * width, rng)
    start, stop = (rng.uniform(0.2, 0.8, 2) * (width, height) for _ in range(2))
    along = np.linspace(0, 1, num_frames)[:, None]
    return np.stack([_cells(outline + centre, height, width) for centre in start + along * (stop - start)])


def _outline(area: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A closed smooth curve around the origin with an area in cells, as points x, y."""
    angles = np.linspace(0, 2 * math.pi, _NUM_CORNERS + 1)
    radii = rng.uniform(1 - _ROUGHNESS, 1 + _ROUGHNESS, _NUM_CORNERS)
    corners = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.append(radii, radii[0])[:, None]
    corners[-1] = corners[0]  # the cosine of 2 pi is not that of 0 to the last bit
    fine = np.linspace(0, 2 * math.pi, 128, endpoint=False)
    curve: NDArray[np.float64] = CubicSpline(angles, corners, bc_type="periodic")(fine)
    x, y = curve.T
    enclosed = abs(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))) / 2  # the shoelace formula
    return curve * math.sqrt(area / enclosed)


def _cells(curve: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """The cells of which the curve covers half, and at least the one of which it covers most."""
    canvas = np.zeros((height * _FINE, width * _FINE), np.uint8)
    cv2.fillPoly(canvas, [np.rint(curve * _FINE).astype(np.int32)], (1,))
    covered = canvas.reshape(height, _FINE, width, _FINE).mean((1, 3))
    inside: NDArray[np.bool_] = covered >= 0.5
    inside.flat[covered.argmax()] = True
    if inside.all():
        inside.flat[covered.argmin()] = False
    return inside
