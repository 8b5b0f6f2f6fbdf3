"""The noise path and its inverses."""

from __future__ import annotations

import pytest
import torch

from densedpo.core.paths import (
    eps_from_velocity,
    eta_to_alpha_bar,
    noised,
    path_norm,
    velocity,
    without_signal,
    x0_from_velocity,
)
from densedpo.core.seeds import noise

X0 = noise((3, 2, 5, 4, 4), 1, "x0")
EPS = noise((3, 2, 5, 4, 4), 1, "eps")
T = torch.tensor([0.0, 0.37, 1.0])


def test_the_path_goes_from_clean_to_noise() -> None:
    x_t = noised(X0, EPS, T)
    assert torch.equal(x_t[0], X0[0])
    assert torch.equal(x_t[2], EPS[2])
    torch.testing.assert_close(x_t[1], 0.63 * X0[1] + 0.37 * EPS[1])


def test_sampling_begins_with_the_noise_itself_where_nothing_else_is_left() -> None:
    """At t = 1 bit for bit; at 0.6 with the path's variance of 0.16 + 0.36 for unit ends."""
    start = without_signal(EPS[:2], torch.tensor([1.0, 0.6]))
    assert torch.equal(start[0], EPS[0])
    torch.testing.assert_close(start[1], EPS[1] * 0.52**0.5)
    torch.testing.assert_close(start[1] / path_norm(torch.tensor(0.6)), EPS[1])


def test_velocity_gives_both_ends_back() -> None:
    x_t = noised(X0, EPS, T)
    v = velocity(X0, EPS)
    torch.testing.assert_close(x0_from_velocity(x_t, v, T), X0, atol=1e-6, rtol=0)
    torch.testing.assert_close(eps_from_velocity(x_t, v, T), EPS, atol=1e-6, rtol=0)


def test_velocity_is_the_slope_of_the_path() -> None:
    x0, eps = X0.double(), EPS.double()
    t = torch.full((3,), 0.4, dtype=torch.float64)
    step = 1e-6
    slope = (noised(x0, eps, t + step) - noised(x0, eps, t - step)) / (2 * step)
    torch.testing.assert_close(slope, velocity(x0, eps), atol=1e-8, rtol=0)


def test_alpha_bar_keeps_the_ratio_of_noise_to_signal() -> None:
    """At eta 0.75 the ratio is 3, so abar = 1 / (1 + 9) = 0.1; the ends are exact."""
    alpha_bar = eta_to_alpha_bar(torch.tensor([0.0, 0.5, 0.75, 1.0]))
    torch.testing.assert_close(alpha_bar, torch.tensor([1.0, 0.5, 0.1, 0.0]))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        eta_to_alpha_bar(torch.tensor([1.1]))
