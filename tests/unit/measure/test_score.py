"""What the scores of a clip say of planted faults, and what is not computed rather than 0."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from numpy.typing import NDArray

from densedpo.measure.score import DIVERSITY, METRICS, clip_values
from densedpo.world.faults import plant
from densedpo.world.render import render
from densedpo.world.scene import draw_scene

SCENE = draw_scene(6)
CLIP = render(SCENE)
# of which a frozen clip gets the best there is
STEADY = {
    "subject_consistency": 1.0,
    "background_consistency": 1.0,
    "motion_smoothness": 1.0,
    "temporal_flickering": 1.0,
    "flicker": 0.0,
    "saturation_drift": 0.0,
    "contrast_drift": 0.0,
}
MOVING = ("object_motion", "frame_motion", "top_motion", "residual_motion", "camera_motion", "vbench_dynamic_degree")


def scored(frames: NDArray[np.uint8], *, fps: float = 8.0) -> dict[str, float]:
    values = clip_values(frames, fps=fps, scene=asdict(SCENE), where="here")
    assert set(values) == {metric.key for metric in METRICS}
    return {key: value for key, value in values.items() if value is not None}


TRUTH = scored(CLIP)


def test_all_but_diversity_is_computed_of_one_clip() -> None:
    assert {metric.key for metric in METRICS} - set(TRUTH) == {DIVERSITY}


def test_a_frozen_clip_has_the_best_steadiness_and_no_motion_and_the_report_says_so() -> None:
    frozen = scored(np.repeat(CLIP[:1], len(CLIP), axis=0))
    assert {key: frozen[key] for key in STEADY} == pytest.approx(STEADY, abs=1e-9)
    assert {key: frozen[key] for key in MOVING} == dict.fromkeys(MOVING, 0.0)
    assert frozen["static_share"] == 1.0
    for metric in METRICS:
        if metric.key in STEADY:
            assert "if frozen" in metric.meaning
            assert "beside motion" in metric.group


def test_higher_is_better_is_claimed_of_no_score_that_freezing_raises() -> None:
    """A model that stops moving must not be told that it got better."""
    frozen = scored(np.repeat(CLIP[:1], len(CLIP), axis=0))
    raised = {m.key for m in METRICS if m.goal == "higher" and m.key in frozen and frozen[m.key] > TRUTH[m.key] + 1e-3}
    assert raised == set()


@pytest.mark.parametrize(
    ("fault", "sees", "blind"),
    [
        (
            "blur",
            {"sharpness": -0.2},
            ("object_motion", "subject_consistency", "motion_smoothness", "saturation_drift"),
        ),
        ("colour drift", {"subject_consistency": -0.005}, ("top_motion", "sharpness", "background_consistency")),
        ("shape morph", {"subject_consistency": -0.005}, ("saturation", "contrast", "background_consistency")),
        ("flicker", {"temporal_flickering": -0.05, "flicker": 20.0}, ("sharpness", "saturation_drift")),
        ("freeze", {"residual_motion": -5.0, "object_motion": -0.5}, ("saturation", "sharpness", "contrast")),
    ],
)
def test_each_fault_moves_the_scores_that_should_see_it_and_leaves_others(
    fault: str, sees: dict[str, float], blind: tuple[str, ...]
) -> None:
    faulty = scored(plant(SCENE, fault))
    for key, least in sees.items():
        change = faulty[key] - TRUTH[key]
        assert change * np.sign(least) > abs(least), key
    for key in blind:
        assert faulty[key] == pytest.approx(TRUTH[key], rel=0.07, abs=0.01), key


def test_pixels_per_frame_refer_to_8_per_second_even_for_a_slower_clip() -> None:
    """Every second frame shown at 4 fps is the same motion; none of its steps stands still."""
    slow = scored(CLIP[::2], fps=4.0)
    assert slow["object_motion"] == pytest.approx(TRUTH["object_motion"], rel=0.15)
    assert slow["residual_motion"] == pytest.approx(TRUTH["residual_motion"], rel=0.15)
    assert slow["static_share"] == 0.0


def test_what_a_clip_is_too_short_for_is_not_computed() -> None:
    two = clip_values(CLIP[:2], fps=8.0, scene=None, where="here")
    assert two["motion_smoothness"] is None
    assert two["vbench_dynamic_degree"] is None
    assert two["object_motion"] is not None
    one = clip_values(CLIP[:1], fps=8.0, scene=None, where="here")
    assert one["object_motion"] is None
    assert one["subject_consistency"] is None
    assert one["sharpness"] is not None
