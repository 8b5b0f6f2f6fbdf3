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


def test_drift_is_the_change_from_the_first_quarter_to_the_last() -> None:
    """Red of 200 over 8 frames, the last 2 of them gray of 200: saturation falls from 200 / 255 to 0."""
    clip = np.zeros((8, 8, 8, 3), np.uint8)
    clip[..., 0] = 200
    clip[6:] = 200
    assert frame_scores(clip).saturation_drift == pytest.approx(200 / 255)
    assert frame_scores(clip).contrast_drift == 0.0
    # half the frame black, half 100: a deviation of 50; the last quarter flat
    striped = np.zeros((8, 8, 8, 3), np.uint8)
    striped[:6, :4] = 100
    assert frame_scores(striped).contrast_drift == pytest.approx(50 / 255)


def test_an_even_clip_has_no_drift_and_colours_that_wash_out_have() -> None:
    steady = frame_scores(CLIP)
    gray = CLIP.mean(axis=-1, keepdims=True)
    share = np.linspace(0, 1, len(CLIP))[:, None, None, None]
    washed = frame_scores(np.rint((1 - share) * CLIP + share * gray).astype(np.uint8))
    assert steady.saturation_drift < 0.005
    assert washed.saturation_drift > 5 * steady.saturation_drift + 0.01


def test_temporal_flickering_is_vbench_s_and_a_frozen_clip_has_the_most() -> None:
    """Frames that differ by 51 of 255 in every pixel: 1 - 51 / 255 = 0.8."""
    flat = np.full((5, 8, 8, 3), 100, np.uint8)
    flat[1::2] += 51
    assert frame_scores(flat).temporal_flickering == pytest.approx(0.8)
    assert frame_scores(np.repeat(CLIP[:1], 5, axis=0)).temporal_flickering == 1.0
    assert frame_scores(CLIP).temporal_flickering < 1.0


def test_refuses_what_is_no_video() -> None:
    with pytest.raises(ValueError, match="uint8"):
        frame_scores(np.zeros((0, 8, 8, 3), np.uint8))
