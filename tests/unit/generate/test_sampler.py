"""Schedules, and the sampler's promise that a row does not depend on its neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from densedpo.adapters import load
from densedpo.core.seeds import noise
from densedpo.generate.sampler import guided_sigmas, sample, stack_schedules
from toy import toy_scene

ETAS = st.floats(0.01, 1.0).map(lambda eta: float(np.float32(eta)))


@given(eta=ETAS, num_steps=st.integers(1, 60), shift=st.sampled_from([1.0, 3.0, 5.66]))
def test_the_first_level_is_eta_exactly_and_the_rest_is_the_samplers(eta: float, num_steps: int, shift: float) -> None:
    u = torch.linspace(1, 0, num_steps + 1)
    sigmas = shift * u / (1 + (shift - 1) * u)
    guided = guided_sigmas(sigmas, eta)
    assert float(guided[0]) == eta
    assert float(guided[-1]) == 0
    assert bool((guided.diff() < 0).all())
    assert torch.equal(guided[1:], sigmas[sigmas < eta])


@pytest.mark.parametrize("eta", [0.0, -0.1, 1.01])
def test_an_eta_outside_its_range_is_refused(eta: float) -> None:
    with pytest.raises(ValueError, match="eta is in"):
        guided_sigmas(torch.tensor([1.0, 0.5, 0.0]), eta)


def test_rows_with_schedules_of_their_own_match_rows_alone(toy_model_dir: Path) -> None:
    model = load(toy_model_dir)
    captions = [toy_scene(index).caption for index in range(3)]
    schedules = [guided_sigmas(model.sigmas(4), eta) for eta in (0.2, 0.5, 1.0)]
    assert len({len(schedule) for schedule in schedules}) == 3
    start, null = noise((3, *model.geometry.latent_shape), "rows"), model.encode_text([""])
    together = sample(
        model,
        start=start,
        sigmas=stack_schedules(schedules),
        text=model.encode_text(captions),
        null_text=null,
        guidance_scale=3.0,
    )
    for row, schedule in enumerate(schedules):
        alone = sample(
            model,
            start=start[row : row + 1],
            sigmas=schedule,
            text=model.encode_text([captions[row]]),
            null_text=null,
            guidance_scale=3.0,
        )
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-4, rtol=0)


def test_one_step_from_eta_to_zero_is_the_clean_end_of_the_path(toy_model_dir: Path) -> None:
    """x_0 = x_eta - eta * v: with one step of size eta the sampler must land there."""
    model = load(toy_model_dir)
    x, text = noise((1, *model.geometry.latent_shape), "one step"), model.encode_text(["a red circle"])
    found = sample(model, start=x, sigmas=torch.tensor([0.7, 0.0]), text=text, null_text=text, guidance_scale=1.0)
    with torch.no_grad():
        velocity = model.predict(x, torch.tensor([0.7]), text)
    torch.testing.assert_close(found, x - 0.7 * velocity)
