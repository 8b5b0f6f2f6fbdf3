"""Numbers as they are written on the page."""

from __future__ import annotations

import pytest

from densedpo.measure.numbers import MINUS, count_text, evidence_text, interval_text, number, p_text, value_text
from densedpo.metrics.statistics import Estimate


def estimate(value: float, low: float | None, high: float | None, *, excluded: int = 0) -> Estimate:
    return Estimate(
        value=value, low=low, high=high, n=96, num_values=192, num_excluded=excluded, method="made up", seed=0
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (0.031249, "0.0312"),
        (-0.031249, f"{MINUS}0.0312"),
        (0.9996, "1.00"),
        (1.0, "1.00"),
        (12.345, "12.3"),
        (1234.5, "1234"),
        (1e-9, "0.000000"),
    ],
)
def test_three_significant_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_sign_only_where_asked_and_never_on_zero() -> None:
    assert number(0.5, signed=True) == "+0.500"
    assert number(-1e-9, signed=True) == "0.000000"


def test_value_and_interval_share_their_decimals() -> None:
    e = estimate(0.0312, 0.00184, 0.0605)
    assert value_text(e, signed=True) == "+0.0312"
    assert interval_text(e, signed=True) == "+0.0018 to +0.0605"


def test_evidence_names_interval_and_n_and_what_was_left_out() -> None:
    text = evidence_text(estimate(0.0312, 0.0018, 0.0605, excluded=2), "px/frame")
    assert text == "+0.0312 px/frame (95 % interval +0.0018 to +0.0605, n = 96 prompts, 192 clips, 2 excluded)"
    assert "no interval" in evidence_text(estimate(0.1, None, None), "")


def test_one_clip_per_prompt_is_said_once() -> None:
    one = Estimate(value=1.0, low=None, high=None, n=1, num_values=1, num_excluded=0, method="made up", seed=0)
    assert count_text(one) == "n = 1 prompt"


@pytest.mark.parametrize(
    ("p", "text"), [(0.031, "= 0.031"), (0.06, "= 0.060"), (0.9, "= 0.90"), (1.0, "= 1.00"), (2e-5, "< 0.0001")]
)
def test_p_values_have_two_digits_and_a_floor(p: float, text: str) -> None:
    assert p_text(p) == text
