"""How the frames of a segment are prepared for the shipped reward: thinned to 8 per second, made 64 pixels small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Frames = NDArray[np.uint8]

RATE: Final = 8.0  # frames per second that the reward was trained on
SIDE: Final = 64  # pixels of the short side


def thinning(fps: float) -> int:
    """The n of "every n-th frame" that leaves about 8 per second; 1 for a slower video."""
    return max(1, round(fps / RATE))


def thinned(frames: Frames, fps: float) -> Frames:
    """Every n-th frame, so that about 8 per second are left; a slower video keeps all of its frames."""
    return frames[:: thinning(fps)]


def small(frames: Frames) -> Frames:
    """Frames [F, H, W, 3] with a short side of 64 pixels and about the same aspect, both sides even."""
    height, width = frames.shape[1:3]
    if min(height, width) == SIDE:
        return frames[:, : height // 2 * 2, : width // 2 * 2]
    scale = SIDE / min(height, width)
    size = (2 * round(width * scale / 2), 2 * round(height * scale / 2))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.stack([cv2.resize(frame, size, interpolation=way) for frame in frames]).astype(np.uint8)


def as_input(clips: Frames) -> Float[Tensor, "batch frame 3 row column"]:
    """Clips uint8 [B, F, H, W, 3] as the network reads them."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(clips)).permute(0, 1, 4, 2, 3).float() / 255
