"""Numbers as people read them: three significant digits, one number of decimals for a value and its interval."""

from __future__ import annotations

import math
from typing import Final

from densedpo.metrics.statistics import Estimate

MINUS: Final = "\u2212"
AT_LEAST: Final = "\u2265"
MAX_DECIMALS: Final = 6
MAX_ESTIMATE_DECIMALS: Final = 4  # what is smaller matters to no score here


def decimals(*values: float) -> int:
    """How many decimals give the largest of the values three significant digits."""
    largest = max((abs(value) for value in values), default=0.0)
    if largest == 0 or not math.isfinite(largest):
        return 2
    # rounded first: 0.9996 is shown as 1.00 and not as 1.000
    exponent = math.floor(math.log10(float(f"{largest:.2e}")))
    return min(max(2 - exponent, 0), MAX_DECIMALS)


def number(value: float, places: int | None = None, *, signed: bool = False) -> str:
    """A number with a true minus sign, and with a plus sign where signs matter."""
    shown = f"{abs(value):.{decimals(value) if places is None else places}f}"
    is_zero = float(shown) == 0
    sign = "" if is_zero else MINUS if value < 0 else "+" if signed else ""
    return f"{sign}{shown}"


def estimate_places(estimate: Estimate) -> int:
    """The decimals of an estimate, the same for its value and its interval."""
    places = decimals(*(value for value in (estimate.value, estimate.low, estimate.high) if value is not None))
    return min(places, MAX_ESTIMATE_DECIMALS)


def value_text(estimate: Estimate, *, signed: bool = False) -> str:
    """The value of an estimate."""
    return number(estimate.value, estimate_places(estimate), signed=signed)


def interval_text(estimate: Estimate, *, signed: bool = False) -> str:
    """The interval of an estimate, such as `+0.0184 to +0.0440`."""
    if estimate.low is None or estimate.high is None:
        return "no interval"
    places = estimate_places(estimate)
    return f"{number(estimate.low, places, signed=signed)} to {number(estimate.high, places, signed=signed)}"


def evidence_text(estimate: Estimate, unit: str) -> str:
    """Value, interval and n in one phrase, such as `+0.031 (95 % interval +0.018 to +0.044, n = 96 prompts)`."""
    value = value_text(estimate, signed=True) + (f" {unit}" if unit else "")
    level = f"{100 * estimate.level:g} % interval {interval_text(estimate, signed=True)}"
    if estimate.low is None:
        level = "no interval"
    return f"{value} ({level}, {count_text(estimate)})"


def count_text(estimate: Estimate) -> str:
    """How much stands behind an estimate, such as `n = 96 prompts, 192 clips, 1 excluded`."""
    text = f"n = {estimate.n} prompt{'s' if estimate.n != 1 else ''}"
    if estimate.num_values != estimate.n:
        text += f", {estimate.num_values} clips"
    if estimate.num_excluded:
        text += f", {estimate.num_excluded} excluded"
    return text


def p_text(p: float) -> str:
    """A p-value with two significant digits behind `=`, such as `= 0.031`, or `< 0.0001`."""
    return "< 0.0001" if p < 1e-4 else f"= {number(p, min(4, max(2, decimals(p) - 1)))}"
