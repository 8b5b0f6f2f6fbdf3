"""Findings say what their intervals allow, and no more."""

from __future__ import annotations

import pytest

from densedpo.measure.findings import Difference, Verdict, further_findings, headline, verdict_of
from densedpo.measure.score import METRICS, Goal
from densedpo.metrics.statistics import Estimate

GAIN, LOSS, NOTHING = (0.03, 0.01, 0.05), (-0.03, -0.05, -0.01), (0.01, -0.02, 0.04)


def estimate(numbers: tuple[float, float, float]) -> Estimate:
    value, low, high = numbers
    return Estimate(value=value, low=low, high=high, n=96, num_values=96, num_excluded=0, method="made up", seed=0)


def differences(found: dict[str, tuple[float, float, float] | None], base: str = "base") -> list[Difference]:
    """Differences of `dense` from a base in every metric; what is not named did not change."""
    made = []
    for metric in METRICS:
        numbers = found.get(metric.key, NOTHING)
        e = None if numbers is None else estimate(numbers)
        made.append(
            Difference(base=base, other="dense", metric=metric.key, estimate=e, verdict=verdict_of(e, metric.goal))
        )
    return made


@pytest.mark.parametrize(
    ("numbers", "goal", "verdict"),
    [
        (GAIN, "higher", "better"),
        (LOSS, "higher", "worse"),
        (GAIN, "lower", "worse"),
        (LOSS, "lower", "better"),
        (GAIN, "keep", "more"),
        (LOSS, "keep", "less"),
        (NOTHING, "higher", "not significant"),
        (NOTHING, "keep", "not significant"),
    ],
)
def test_verdict(numbers: tuple[float, float, float], goal: Goal, verdict: Verdict) -> None:
    assert verdict_of(estimate(numbers), goal) == verdict


def test_an_estimate_without_an_interval_is_never_significant() -> None:
    alone = Estimate(value=5.0, low=None, high=None, n=1, num_values=1, num_excluded=0, method="made up", seed=0)
    assert verdict_of(alone, "higher") == "not significant"
    assert verdict_of(None, "higher") == "not computed"


def test_gain_is_said_with_its_interval_and_n() -> None:
    text = headline(differences({"visual_quality": GAIN}), base="base", tuned="dense").text
    assert text.startswith(
        "dense gains visual quality over base: +0.0300 (95 % interval +0.0100 to +0.0500, n = 96 prompts)"
    )


def test_no_gain_is_said_plainly_with_what_could_not_be_seen() -> None:
    """The interval is 0.06 wide, so effects under 0.03 are beyond it."""
    text = headline(differences({}), base="base", tuned="dense").text
    assert "No gain in visual quality is shown for dense against base, not significant at n=96" in text
    assert "an effect under about 0.0300 could not be seen" in text


def test_loss_is_said_plainly() -> None:
    assert (
        "dense loses visual quality against base"
        in headline(differences({"visual_quality": LOSS}), base="base", tuned="dense").text
    )


def test_without_a_scene_the_headline_is_about_motion() -> None:
    found = differences({"visual_quality": None, "object_motion": LOSS})
    assert headline(found, base="base", tuned="dense").sentence == "dense loses object motion against base"
    assert further_findings(found, base="base", tuned="dense", controls=[]) == []


def test_motion_and_controls_are_always_said_and_other_scores_where_they_changed() -> None:
    found = differences({"visual_quality": GAIN, "text_alignment": LOSS}) + differences({}, base="shuffled")
    sentences = [f.sentence for f in further_findings(found, base="base", tuned="dense", controls=["shuffled"])]
    assert sentences == [
        "No change in object motion is shown for dense against base, not significant at n=96",
        "dense loses text alignment against base",
        "No gain in visual quality is shown for dense against shuffled, not significant at n=96",
    ]
