"""Findings say what their intervals allow, and no more."""

from __future__ import annotations

import pytest

from densedpo.measure.differences import Claim, Difference, Verdict, claims_of, no_loss, verdict_of
from densedpo.measure.findings import further_findings, headline
from densedpo.measure.score import METRICS, Goal
from densedpo.metrics.equivalence import equivalence
from densedpo.metrics.power import Detectable
from densedpo.metrics.statistics import Estimate, PValue

DETECTABLE = Detectable(value=0.043, n=96, num_excluded=0, power=0.8, alpha=0.05, method="made up")
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
            Difference(
                base=base,
                other="dense",
                metric=metric.key,
                estimate=e,
                verdict=verdict_of(e, metric.goal),
                detectable=DETECTABLE if e is not None else None,
            )
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


def test_no_gain_is_said_plainly_with_what_would_have_been_seen() -> None:
    text = headline(differences({}), base="base", tuned="dense").text
    assert "No gain in visual quality is shown for dense against base, not significant at n=96" in text
    assert text.endswith("With this many prompts a difference of 0.0430 would be found 80 % of the time.")


def p_value(p: float) -> PValue:
    return PValue(p=p, n=96, num_excluded=0, method="made up")


def test_a_claim_has_to_survive_the_correction_over_all_claims() -> None:
    """Holm over 0.01, 0.03 and 0.9: 3 * 0.01 = 0.03, 2 * 0.03 = 0.06, 0.9; the one without a test does not count."""
    claims = claims_of({"x": p_value(0.01), "y": p_value(0.03), "z": p_value(0.9), "none": None})
    assert {key: round(claim.p_holm, 9) for key, claim in claims.items()} == {"x": 0.03, "y": 0.06, "z": 0.9}
    assert {claim.num_claims for claim in claims.values()} == {3}
    assert verdict_of(estimate(GAIN), "higher", claims["x"]) == "better"
    assert verdict_of(estimate(GAIN), "higher", claims["y"]) == "not significant"
    assert verdict_of(estimate(GAIN), "higher") == "better"  # exploratory: no claim, no correction


def test_what_the_correction_takes_back_is_said() -> None:
    claim = Claim(test=p_value(0.03), p_holm=0.06, num_claims=3)
    made = [
        Difference(
            base="base", other="dense", metric="visual_quality", estimate=estimate(GAIN),
            verdict=verdict_of(estimate(GAIN), "higher", claim), claim=claim,
        ),
    ]  # fmt: skip
    text = headline(made, base="base", tuned="dense").text
    assert "No gain in visual quality is shown" in text
    assert "Its own interval excludes zero, but corrected for 3 claims p = 0.060" in text


def test_a_loss_is_a_rise_where_lower_is_better() -> None:
    """A change of about 0 excludes a loss of 0.05 either way; one of about -1 excludes only a rise."""
    base = {(f"p{i}", 0): 1.0 for i in range(20)}
    near = {key: 0.99 + 0.001 * i for i, key in enumerate(base)}
    far = {key: 0.0 + 0.001 * i for i, key in enumerate(base)}
    found = equivalence(base, near, margin=0.05, seed=0)
    assert found is not None and no_loss(found, "lower") and no_loss(found, "higher")
    found = equivalence(base, far, margin=0.05, seed=0)
    assert found is not None and no_loss(found, "lower") and not no_loss(found, "higher")


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
