"""Two one-sided tests by hand, and how often they claim an equivalence that is not there."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from densedpo.core.errors import BadInput
from densedpo.metrics.equivalence import EquivalenceMethod, equivalence, within_margin
from densedpo.metrics.statistics import Key, paired_difference


def keyed(values: list[float]) -> dict[Key, float | None]:
    return {(f"p{i:04d}", 0): value for i, value in enumerate(values)}


def zeros(n: int) -> dict[Key, float | None]:
    return keyed([0.0] * n)


def test_equivalence_by_hand() -> None:
    """Differences -1, 0, 1, 0: mean 0, standard deviation sqrt(2 / 3), error 0.40825, margin 1: t = 2.44949 each way.

    P(t(3) > 2.44949) = 0.0459; t(3) at 95 % is 2.35336, so the 90 % interval is -+0.96076, just inside the margin.
    """
    found = equivalence(zeros(4), keyed([-1.0, 0.0, 1.0, 0.0]), margin=1.0, seed=0)
    assert found is not None
    assert found.p_loss == pytest.approx(float(stats.t.sf(2.449489743, 3)), abs=1e-9)
    assert found.p_gain == pytest.approx(found.p_loss)
    assert found.p == pytest.approx(0.0459, abs=5e-5)
    assert found.difference.level == pytest.approx(0.9)
    assert found.difference.high == pytest.approx(0.96076, abs=1e-5)
    assert found.equivalent and found.no_loss


@pytest.mark.parametrize("method", ["t", "bootstrap"])
@pytest.mark.parametrize(
    ("shift", "equivalent", "no_loss"), [(0.0, True, True), (1.0, False, True), (-1.0, False, False)]
)
def test_a_gain_is_no_loss_but_not_equivalent(
    method: EquivalenceMethod, shift: float, equivalent: bool, no_loss: bool
) -> None:
    values = (np.random.default_rng(0).standard_normal(100) + shift).tolist()
    found = equivalence(zeros(100), keyed(values), margin=0.5, seed=0, method=method)
    assert found is not None
    assert (found.equivalent, found.no_loss) == (equivalent, no_loss)


def test_few_data_claim_neither_difference_nor_equivalence() -> None:
    base, other = zeros(6), keyed([-2.0, 2.0, -1.0, 1.5, 0.5, -0.5])
    found = equivalence(base, other, margin=0.2, seed=0)
    difference = paired_difference(base, other, seed=0)
    assert found is not None and difference is not None
    assert not found.equivalent and not found.no_loss and not difference.excludes_zero


def test_bootstrap_agrees_with_t_on_many_prompts() -> None:
    values = (0.1 + np.random.default_rng(1).standard_normal(300)).tolist()
    t = equivalence(zeros(300), keyed(values), margin=0.15, seed=0)
    drawn = equivalence(zeros(300), keyed(values), margin=0.15, seed=0, method="bootstrap")
    assert t is not None and drawn is not None and "bootstrap-t" in drawn.difference.method
    assert t.difference.low is not None and drawn.difference.low is not None
    assert drawn.difference.low == pytest.approx(t.difference.low, abs=0.01)
    assert drawn.p == pytest.approx(t.p, abs=0.03)


def test_interval_and_p_value_say_the_same() -> None:
    rng = np.random.default_rng(2)
    for i in range(50):
        found = equivalence(zeros(20), keyed(rng.standard_normal(20).tolist()), margin=0.5, seed=i)
        assert found is not None
        assert found.equivalent == within_margin(found.difference, 0.5)


def test_bootstrap_of_nearly_equal_values_falls_back_to_t() -> None:
    found = equivalence(zeros(30), keyed([0.0] * 29 + [1.0]), margin=0.2, seed=0, method="bootstrap")
    assert found is not None and "Student's t" in found.difference.method


def test_equal_values_are_decided_by_their_value() -> None:
    inside, outside = (equivalence(zeros(5), keyed([value] * 5), margin=0.5, seed=0) for value in (0.1, 0.5))
    assert inside is not None and inside.equivalent
    assert outside is not None and not outside.equivalent and outside.no_loss


@pytest.mark.parametrize("method", ["t", "bootstrap"])
def test_a_loss_of_the_margin_is_rarely_called_none(method: EquivalenceMethod) -> None:
    """The true loss equals the margin: "no loss" is claimed in 5 % of 200 runs, four errors of which are 6 points."""
    rng = np.random.default_rng(4)
    claimed = 0
    for i in range(200):
        values = (rng.standard_normal(40) - 0.5).tolist()
        found = equivalence(zeros(40), keyed(values), margin=0.5, seed=i, method=method, num_draws=400)
        claimed += found is not None and found.no_loss
    assert 0.01 <= claimed / 200 <= 0.11


def test_bad_margins_and_narrow_intervals_are_refused() -> None:
    with pytest.raises(BadInput, match="margin is 0"):
        equivalence(zeros(4), zeros(4), margin=0.0, seed=0)
    with pytest.raises(BadInput, match=r"alpha is 0\.5"):
        equivalence(zeros(4), zeros(4), margin=1.0, seed=0, alpha=0.5)
    assert equivalence(zeros(1), zeros(1), margin=1.0, seed=0) is None
    narrow = paired_difference(zeros(4), keyed([0.1, 0.2, 0.3, 0.4]), seed=0, level=0.8)
    assert narrow is not None
    with pytest.raises(BadInput, match=r"level 0\.8 is too narrow"):
        within_margin(narrow, 1.0)
