"""Frame scores move with what they are named after, and stay with the rest."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from densedpo.metrics.frames import frame_scores
from densedpo.world.render import render
from densedpo.world.scene import draw_scene

CLIP = render(draw_scene(3))


def test_blur_lowers_sharpness_only() -> None:
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 2.0) for frame in CLIP])
    before, after = frame_scores(CLIP), frame_scores(blurred)
    assert after.sharpness < 0.5 * before.sharpness
    assert after.saturation == pytest.approx(before.saturation, rel=0.05)
    assert after.flicker < 0.2


def test_flicker_is_zero_for_even_motion_and_the_planted_amplitude_otherwise() -> None:
    """A whole frame that alternates by 10 levels has second differences of 20 levels."""
    flat = np.full((9, 8, 8, 3), 100, np.uint8)
    flat[1::2] += 10
    assert frame_scores(flat).flicker == pytest.approx(20.0)
    assert frame_scores(CLIP).flicker < 0.2


def test_gray_has_no_saturation_and_a_flat_frame_no_contrast_or_sharpness() -> None:
    scores = frame_scores(np.full((1, 8, 8, 3), 77, np.uint8))
    assert (scores.sharpness, scores.flicker, scores.saturation, scores.contrast) == (0.0, 0.0, 0.0, 0.0)


def test_refuses_what_is_no_video() -> None:
    with pytest.raises(ValueError, match="uint8"):
        frame_scores(np.zeros((0, 8, 8, 3), np.uint8))
