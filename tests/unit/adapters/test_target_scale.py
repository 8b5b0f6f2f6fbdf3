"""What a family's training target is to the flow velocity, and what is refused of each family's files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from densedpo.adapters import catalogue
from densedpo.adapters.base import TextCondition, target_scale
from densedpo.adapters.layouts.cogvideox import CLASSES
from densedpo.core.errors import BadInput
from densedpo.core.seeds import noise


def test_the_scale_of_v_is_derived_by_hand() -> None:
    """t = 0.6: n^2 = 0.16 + 0.36 = 0.52; t = 1/2: n^2 = 1/2; at the ends 1. The velocity's scale is 1 everywhere."""
    t = torch.tensor([0.0, 0.5, 0.6, 1.0])
    torch.testing.assert_close(target_scale("v_prediction", t), torch.tensor([1.0, 0.5, 0.52, 1.0]).sqrt())
    assert torch.equal(target_scale("velocity", t), torch.ones(4))


def test_scaled_velocity_residuals_are_v_residuals() -> None:
    """From the definitions alone: v = alpha eps - sigma x, and a model that is off by d in v.

    x and eps as v and z give them are alpha z - sigma v and alpha v + sigma z.
    """
    x, eps, d = (noise((1, 2, 3, 4, 4), name) for name in ("x", "eps", "d"))
    t = torch.tensor([0.7])
    n = (0.3**2 + 0.7**2) ** 0.5
    alpha, sigma = 0.3 / n, 0.7 / n
    z, v = alpha * x + sigma * eps, alpha * eps - sigma * x
    wrong = v + d
    velocity = (alpha * wrong + sigma * z) - (alpha * z - sigma * wrong)
    torch.testing.assert_close((velocity - (eps - x)) * target_scale("v_prediction", t), d)


def test_scaled_velocity_residuals_are_eps_residuals() -> None:
    """From the definitions alone: a model that is off by d in eps, and x as z = alpha x + sigma eps gives it.

    At the last level of Stable Diffusion 1, abar = 0.00466, t = 0.93587: a squared error is 1/243 of the velocity's.
    """
    x, eps, d = (noise((1, 2, 3, 4, 4), name) for name in ("x", "eps", "d"))
    t = torch.tensor([0.7])
    n = (0.3**2 + 0.7**2) ** 0.5
    alpha, sigma = 0.3 / n, 0.7 / n
    z, wrong = alpha * x + sigma * eps, eps + d
    velocity = wrong - (z - sigma * wrong) / alpha
    torch.testing.assert_close((velocity - (eps - x)) * target_scale("eps", t), d)
    alpha, sigma = 0.00466**0.5, (1 - 0.00466) ** 0.5
    last = torch.tensor([sigma / (alpha + sigma)])
    assert float(target_scale("eps", last) ** -2) == pytest.approx(243, abs=1)


def test_conditions_are_taken_apart_and_put_together() -> None:
    one = TextCondition(embeds=torch.ones(1, 3, 2), mask=torch.ones(1, 3, dtype=torch.bool), pooled=torch.ones(1, 4))
    two = TextCondition(embeds=torch.zeros(1, 3, 2), mask=torch.zeros(1, 3, dtype=torch.bool), pooled=torch.zeros(1, 4))
    both = TextCondition.cat([one, two])
    again = both.rows(torch.tensor([1, 0, 1]))
    assert again.mask is not None
    assert again.pooled is not None
    assert again.embeds[:, 0, 0].tolist() == again.pooled[:, 0].tolist() == again.mask[:, 0].tolist() == [0, 1, 0]
    assert one.expand(5).embeds.shape == (5, 3, 2)
    bare = TextCondition.cat([TextCondition(embeds=torch.ones(1, 3, 2))] * 2)
    assert (bare.embeds.shape, bare.mask, bare.pooled) == ((2, 3, 2), None, None)


def cogvideox_files(folder: Path, *, transformer: dict[str, object], **schedule: object) -> Path:
    """A CogVideoX directory as far as its JSON goes."""
    index = {name: ["diffusers", classes[0]] for name, classes in CLASSES.items()}
    released = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    files = {
        "model_index.json": {"_class_name": "CogVideoXPipeline", **index},
        "scheduler/scheduler_config.json": released | schedule,
        "transformer/config.json": transformer,
        "vae/config.json": {},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("key", "value"),
    [("prediction_type", "epsilon"), ("rescale_betas_zero_snr", False), ("timestep_spacing", "linspace")],
)
def test_another_schedule_is_refused(tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(BadInput, match=f"{key} is {value!r}"):
        catalogue.find(cogvideox_files(tmp_path, transformer={}, **{key: value}))


def test_a_token_of_two_latent_frames_needs_an_even_number_of_them(tmp_path: Path) -> None:
    """81 frames are 21 latent frames; 85 are 22, which the family's default is."""
    folder = cogvideox_files(tmp_path, transformer={"patch_size_t": 2})
    family = catalogue.family_of(folder)
    assert family.geometry(folder).latent_shape == (16, 22, 96, 170)
    (folder / "densedpo.json").write_text(json.dumps({"num_frames": 81}))
    with pytest.raises(BadInput, match=r"num_frames = 81 gives 21 latent frames.*85 frames fit"):
        family.geometry(folder)
