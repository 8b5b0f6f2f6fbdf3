"""What makes a real clip worse without any model: its order in time, or its pixels (numpy and OpenCV).

The corruptions of discriminator-free DPO (arXiv 2504.08542: reversed, shuffled, noised), and blur.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from densedpo.core.records import Corruption

    Frames = NDArray[np.uint8]


def edited(frames: Frames, corruption: Corruption, rng: np.random.Generator) -> Frames:
    """The corrupted copy of a clip.

    Args:
        frames: uint8 [F, H, W, 3].
        rng: the source of the order and of the noise.

    Raises:
        ValueError: a regenerated clip, which takes a model; or a kind without the strength that it needs.
    """
    if corruption.kind == "reversed":
        return frames[::-1].copy()
    if corruption.strength is None:
        raise ValueError(f"{corruption.kind!r} is no edit of pixels with a strength")
    match corruption.kind:
        case "shuffled":
            return frames[shuffled_order(len(frames), int(corruption.strength), rng)]
        case "noised":
            return _noised(frames, corruption.strength, rng)
        case "blurred":
            return _blurred(frames, corruption.strength)
        case "regenerated":
            raise ValueError("a regenerated clip is made by a model, not by an edit")


def shuffled_order(num_frames: int, keep_together: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Frame numbers in which runs of `keep_together` frames have changed places; never the order of the clip.

    Raises:
        ValueError: there are fewer than two runs.
    """
    runs = [np.arange(start, min(start + keep_together, num_frames)) for start in range(0, num_frames, keep_together)]
    if len(runs) < 2:
        raise ValueError(f"{num_frames} frames are one run of {keep_together}: there is nothing to shuffle")
    order = rng.permutation(len(runs))
    if (np.diff(order) > 0).all():
        order = np.roll(order, 1)
    return np.concatenate([runs[place] for place in order])


def _noised(frames: Frames, std: float, rng: np.random.Generator) -> Frames:
    noisy = frames + 255 * std * rng.standard_normal(frames.shape, dtype=np.float32)
    rounded: Frames = np.rint(noisy.clip(0, 255)).astype(np.uint8)
    return rounded


def _blurred(frames: Frames, sigma_px: float) -> Frames:
    return np.stack([np.asarray(cv2.GaussianBlur(frame, (0, 0), sigma_px), dtype=np.uint8) for frame in frames])
