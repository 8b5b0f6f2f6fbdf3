"""Levels of one pair, regions in space, and D2-DPO, against numbers derived by hand."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from densedpo.learn.objectives import (
    LevelFields,
    LevelWeights,
    PairErrors,
    PairTokens,
    d2_dpo,
    dense_dpo,
    dpo,
    dpo_levels,
    dpo_levels_weight,
    region_dpo,
    token_errors,
    with_winner_anchor,
)
from objective_cases import SPACE, by_hand, log1p_exp, random_errors, random_field


def labels(values: list[int]) -> torch.Tensor:
    return torch.tensor(values).reshape(1, -1, 1, 1)


def hand_fields(region: list[int] | None = None) -> LevelFields:
    return LevelFields(sign=torch.tensor([1]), segment=labels([1, -1, 0]), region=labels(region or [0, -1, 0]))


def test_the_levels_of_a_pair_by_hand():
    """beta = 10 and d_a - d_b = (-.4, .2, .7).

    Clip: u = -5 * (.5/3) = -5/6. Segments: u = 2 and 1, whose mean loss counts. Region, frame 1 alone: u = 1. With the
    weights .8, .6, .4 the loss is .8 l(-5/6) + .6 (l(2) + l(1))/2 + .4 l(1), the weight 1.8, the margin their mean.
    """
    errors, _ = by_hand()
    weights = LevelWeights(clip=0.8, segment=0.6, region=0.4)
    output = dpo_levels(errors, hand_fields(), beta=10.0, weights=weights)
    segments = (log1p_exp(2) + log1p_exp(1)) / 2
    expected = 0.8 * log1p_exp(-5 / 6) + 0.6 * segments + 0.4 * log1p_exp(1)
    assert output.loss.item() == pytest.approx(expected, abs=1e-6)
    assert output.weight.item() == pytest.approx(1.8)
    assert output.metrics.margin.item() == pytest.approx((0.8 * -5 / 6 + 0.6 * 1.5 + 0.4 * 1) / 1.8)
    assert output.metrics.accuracy.item() == pytest.approx((0.6 + 0.4) / 1.8)


def test_the_anchor_of_each_level_is_its_own_winner_by_hand():
    """The winner is a in the clip (errors .8, 1.1, 1.3), a (.8) and b (.9) in segments, b (.9) in the region."""
    errors, _ = by_hand()
    weights = LevelWeights(clip=0.8, segment=0.6, region=0.4)
    plain, anchored = (
        dpo_levels(errors, hand_fields(), beta=10.0, weights=weights, winner_anchor=strength) for strength in (0.0, 0.1)
    )
    added = 0.1 * (0.8 * 3.2 / 3 + 0.6 * 0.85 + 0.4 * 0.9)
    assert (anchored.loss - plain.loss).item() == pytest.approx(added, abs=1e-6)


def test_a_level_that_a_pair_lacks_does_not_count():
    errors, _ = by_hand()
    weights = LevelWeights(clip=1.0, segment=0.0, region=1.0)
    fields = hand_fields(region=[0, 0, 0])
    output = dpo_levels(errors, fields, beta=10.0, weights=weights)
    assert output.weight.item() == 1
    assert output.loss.item() == pytest.approx(log1p_exp(-5 / 6), abs=1e-6)
    tie = LevelFields(sign=torch.tensor([0]), segment=labels([0, 0, 0]), region=labels([0, 0, 0]))
    nothing = dpo_levels(errors, tie, beta=10.0, weights=weights)
    assert (nothing.loss.item(), nothing.weight.item()) == (0, 0)


def test_clip_and_region_with_an_anchor_are_the_loss_of_localdpo():
    """L = dpo(clip) + dpo(mask) + .1 winner + .1 winner in the mask, each mean over its cells (2601.04068's code)."""
    errors, sign = random_errors(SPACE), torch.tensor([1, -1, 1])
    mask = random_field(SPACE) > 0
    fields = LevelFields(
        sign=sign, segment=sign[:, None, None, None].expand(SPACE), region=sign[:, None, None, None] * mask
    )
    weights = LevelWeights(clip=1.0, segment=0.0, region=1.0)
    output = dpo_levels(errors, fields, beta=40.0, weights=weights, winner_anchor=0.1)
    for pair in range(SPACE[0]):
        expected = 0.0
        for cells in (np.ones(SPACE[1:], dtype=bool), mask[pair].numpy()):
            gaps = [
                float((policy[pair] - reference[pair]).numpy()[cells].mean())
                for policy, reference in (
                    (errors.policy_a, errors.reference_a),
                    (errors.policy_b, errors.reference_b),
                )
            ]
            winner = (errors.policy_a if sign[pair] > 0 else errors.policy_b)[pair].numpy()[cells].mean()
            expected += log1p_exp(-20 * int(sign[pair]) * (gaps[0] - gaps[1])) + 0.1 * float(winner)
        assert output.loss[pair].item() == pytest.approx(expected, rel=1e-6)
    assert output.weight.tolist() == [2, 2, 2]


def test_the_weight_of_levels_is_known_from_labels_alone():
    errors = random_errors(SPACE)
    for seed in range(5):
        field = random_field(SPACE, seed)
        fields = LevelFields(sign=field[:, 0, 0, 0], segment=field, region=field * (field > 0))
        weights = LevelWeights(clip=0.3, segment=1.0, region=0.5)
        known = dpo_levels_weight(fields, errors.valid, weights=weights)
        torch.testing.assert_close(known, dpo_levels(errors, fields, beta=1.0, weights=weights).weight)


def test_weights_of_levels_are_checked():
    for bad in ({"clip": -1.0}, {"clip": 0.0, "segment": 0.0, "region": 0.0}):
        with pytest.raises(ValueError, match="weights of levels"):
            LevelWeights(**bad)


def test_space_time_cells_of_one_sign_are_averaged_within_their_frame_by_hand():
    """One frame of 2 x 2 cells, labels +, +, -, tie, d_a - d_b = (-.2, -.6, .4, 9), beta = 10.

    u(+) = -5 * mean(-.2, -.6) = 2, u(-) = 5 * .4 = 2; the region's one logistic: -5 * (-.2 - .6 - .4)/3 = 2.
    """
    difference = torch.tensor([[-0.2, -0.6], [0.4, 9.0]], dtype=torch.float64)[None, None]
    ones = torch.ones_like(difference)
    errors = PairErrors(
        policy_a=ones + difference, policy_b=ones, reference_a=ones, reference_b=ones, valid=ones.bool()
    )
    field = torch.tensor([[1, 1], [-1, 0]])[None, None]
    dense, region = dense_dpo(errors, field, beta=10.0), region_dpo(errors, field, beta=10.0)
    assert dense.loss.item() == pytest.approx(2 * log1p_exp(2))
    assert dense.weight.item() == 2
    assert region.loss.item() == pytest.approx(log1p_exp(2))
    assert region.weight.item() == 1


def tokens_by_hand() -> PairTokens:
    def logs(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64).log().reshape(1, 2, 1, 1)

    return PairTokens(
        policy_a=logs([0.5, math.nan]),
        policy_b=logs([0.25, 0.5]),
        reference_a=logs([0.25, 0.3]),
        reference_b=logs([0.5, 0.5]),
        masked_a=torch.tensor([True, False]).reshape(1, 2, 1, 1),
        masked_b=torch.tensor([True, True]).reshape(1, 2, 1, 1),
        t=torch.tensor([0.5], dtype=torch.float64),
    )


def test_d2_dpo_by_hand():
    """t = 1/2 and two tokens: D(a) = 2 log(.5/.25) = 2 log 2, of its one masked token; D(b) = 2 log(1/2) + 0.

    With beta = 8, u = 8/(2 * 2) * 4 log 2 = 8 log 2: the loss is log(1 + 2^-8). Swapped labels mirror u.
    """
    output = d2_dpo(tokens_by_hand(), torch.tensor([1]), beta=8.0)
    assert output.loss.item() == pytest.approx(math.log1p(2**-8))
    assert output.metrics.margin.item() == pytest.approx(8 * math.log(2))
    mirrored = d2_dpo(tokens_by_hand(), torch.tensor([-1]), beta=8.0)
    assert mirrored.loss.item() == pytest.approx(math.log1p(2**8))


def test_a_token_that_is_not_valid_counts_in_no_mean_by_hand():
    """The second token of the pair above is given: D(a) = 2 log 2, D(b) = 2 log(1/2), N = 1, so u = 8/2 * 4 log 2."""
    tokens = replace(tokens_by_hand(), valid=torch.tensor([True, False]).reshape(1, 2, 1, 1))
    output = d2_dpo(tokens, torch.tensor([1]), beta=8.0)
    assert output.metrics.margin.item() == pytest.approx(16 * math.log(2))


def test_d2_dpo_is_the_papers_difference_of_path_measures():
    """D = sum over j of R_q log(R_policy/R_reference) + R_reference - R_policy, from whole distributions over 5 tokens.

    Rates out of a masked place: p(j)/t for a model, 1/t at the clean token for q; a place that is not masked has none.
    """
    rng = np.random.default_rng(0)
    shape, vocabulary, beta = (2, 3, 2, 2), 5, 30.0
    clean = {side: rng.integers(0, vocabulary, shape) for side in "ab"}
    masked = {side: rng.random(shape) < 0.6 for side in "ab"}
    probabilities = {
        (model, side): rng.dirichlet(np.ones(vocabulary), shape) for model in ("policy", "reference") for side in "ab"
    }
    t = np.array([0.4, 0.9])

    def measure(side: str, pair: int) -> float:
        total = 0.0
        for place in np.ndindex(*shape[1:]):
            if masked[side][pair][place]:
                policy, reference = (
                    probabilities[model, side][pair][place] / t[pair] for model in ("policy", "reference")
                )
                token = clean[side][pair][place]
                total += math.log(policy[token] / reference[token]) / t[pair] + (reference - policy).sum()
        return total

    def log_of_clean(model: str, side: str) -> torch.Tensor:
        return torch.from_numpy(
            np.log(np.take_along_axis(probabilities[model, side], clean[side][..., None], -1)[..., 0])
        )

    output = d2_dpo(
        PairTokens(
            policy_a=log_of_clean("policy", "a"),
            policy_b=log_of_clean("policy", "b"),
            reference_a=log_of_clean("reference", "a"),
            reference_b=log_of_clean("reference", "b"),
            masked_a=torch.from_numpy(masked["a"]),
            masked_b=torch.from_numpy(masked["b"]),
            t=torch.from_numpy(t),
        ),
        torch.tensor([1, -1]),
        beta=beta,
    )
    for pair, sign in enumerate((1, -1)):
        u = beta / (2 * math.prod(shape[1:])) * sign * (measure("a", pair) - measure("b", pair))
        assert output.loss[pair].item() == pytest.approx(log1p_exp(u), rel=1e-9)


def test_unfit_tokens_are_refused():
    tokens = tokens_by_hand()
    given = {name: getattr(tokens, name) for name in PairTokens.__dataclass_fields__}
    with pytest.raises(ValueError, match="share of masked tokens"):
        PairTokens(**(given | {"t": torch.zeros(1)}))


VOCABULARY, CLIP = 6, (3, 4, 4)


class ToyTokenModel(torch.nn.Module):
    """A masked discrete video model: each place sees its neighbours in space and time; token 6 is the mask."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(VOCABULARY + 1, 8)
        self.mix = torch.nn.Conv3d(8, 8, 3, padding=1)
        self.head = torch.nn.Conv3d(8, VOCABULARY, 1)

    def logs(self, clean: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        """log p(clean token) at each place of [pair, F, H, W]."""
        seen = torch.where(masked, VOCABULARY, clean)
        hidden = torch.relu(self.mix(self.embed(seen).movedim(-1, 1)))
        return self.head(hidden).log_softmax(1).gather(1, clean[:, None])[:, 0]


def test_a_toy_token_model_comes_to_prefer_the_winners():
    """Winners are made of tokens 0 to 2, losers of 3 to 5; which clip wins changes from pair to pair."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy = ToyTokenModel()
    reference = copy.deepcopy(policy).requires_grad_(requires_grad=False)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    sign = torch.tensor([1, -1] * 8)
    low, high = (torch.randint(0, 3, (16, *CLIP), generator=generator) + shift for shift in (0, 3))
    wins = (sign > 0)[:, None, None, None]
    a, b = torch.where(wins, low, high), torch.where(wins, high, low)
    margins = []
    for _ in range(12):
        t = 0.2 + 0.8 * torch.rand(16, generator=generator)
        masked = torch.rand((16, *CLIP), generator=generator) < t[:, None, None, None]
        tokens = PairTokens(
            policy_a=policy.logs(a, masked),
            policy_b=policy.logs(b, masked),
            reference_a=reference.logs(a, masked),
            reference_b=reference.logs(b, masked),
            masked_a=masked,
            masked_b=masked,
            t=t,
        )
        output = d2_dpo(tokens, sign, beta=2.0)
        optimizer.zero_grad()
        output.loss.mean().backward()
        optimizer.step()
        margins.append(output.metrics.margin.mean().item())
    assert margins[0] == pytest.approx(0, abs=1e-6)
    assert margins[-1] > 0.5
    assert output.metrics.accuracy.min() == 1
    # labels per frame go through the same errors
    frames = sign[:, None, None, None].expand(16, *CLIP)
    assert dense_dpo(token_errors(tokens), frames, beta=2.0).metrics.accuracy.mean() > 0.9


def test_an_anchor_of_no_strength_changes_nothing():
    errors, field = by_hand()
    output = dpo(errors, torch.tensor([1]), beta=10.0)
    assert torch.equal(with_winner_anchor(output, errors, field, strength=0.0).loss, output.loss)
