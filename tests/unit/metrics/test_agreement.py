"""Agreement against published examples, an independent twin and statsmodels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from statsmodels.stats import inter_rater

from densedpo.core.errors import BadInput
from densedpo.metrics.agreement import Agreement, Rating, agreement

# Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, section D: 4 observers, 12 units, 7 values missing
KRIPPENDORFF = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]

# Fleiss (1971), table 1: 30 subjects, 6 psychiatrists, 5 diagnoses
FLEISS = """\
00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031
00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006"""


def rated(rows: list[list[int | None]]) -> list[Rating]:
    """Rows are annotators, columns are pairs of one segment each."""
    return [
        Rating(pair=f"p{j:03d}", segment=0, annotator=f"rater {i}", value=value)
        for i, row in enumerate(rows)
        for j, value in enumerate(row)
    ]


def two_raters(table: list[list[int]]) -> list[Rating]:
    """From how often the first gave row i and the second column j."""
    first: list[int | None] = [i for i, row in enumerate(table) for count in row for _ in range(count)]
    second: list[int | None] = [j for row in table for j, count in enumerate(row) for _ in range(count)]
    return rated([first, second])


def value_of(found: Agreement, name: str) -> float:
    estimate = {
        "percent": found.percent,
        "cohen": found.cohen,
        "fleiss": found.fleiss,
        "alpha_nominal": found.alpha_nominal,
        "alpha_ordinal": found.alpha_ordinal,
        "ac1": found.ac1,
    }[name]
    assert estimate is not None, found.not_computed
    return estimate.value


def alpha_twin(rows: list[list[int | None]], *, ordinal: bool) -> float:
    """1 - observed / expected disagreement, by going through every pair of values one at a time."""
    units = [[row[j] for row in rows if row[j] is not None] for j in range(len(rows[0]))]
    units = [unit for unit in units if len(unit) >= 2]
    pooled = [value for unit in units for value in unit]

    def difference(a: int, b: int) -> float:
        if not ordinal or a == b:
            return float(a != b)
        low, high = min(a, b), max(a, b)
        between = sum(low <= value <= high for value in pooled)
        return (between - (pooled.count(low) + pooled.count(high)) / 2) ** 2

    observed = sum(difference(a, b) / (len(unit) - 1) for unit in units for a, b in itertools.permutations(unit, 2))
    expected = sum(difference(a, b) for a, b in itertools.permutations(pooled, 2)) / (len(pooled) - 1)
    return 1 - observed / expected


def test_krippendorffs_example() -> None:
    """Published: nominal 0.743, ordinal 0.815; Gwet's irrCAC gives AC1 0.77544 and, of 11 units, 0.81818 percent."""
    found = agreement(rated(KRIPPENDORFF), seed=0, values=(1, 2, 3, 4, 5))
    assert value_of(found, "alpha_nominal") == pytest.approx(0.743, abs=5e-4)
    assert value_of(found, "alpha_ordinal") == pytest.approx(0.815, abs=5e-4)
    assert value_of(found, "ac1") == pytest.approx(0.77544, abs=5e-6)
    assert value_of(found, "percent") == pytest.approx(0.81818, abs=5e-6)
    assert value_of(found, "alpha_nominal") == pytest.approx(alpha_twin(KRIPPENDORFF, ordinal=False), abs=1e-9)
    assert value_of(found, "alpha_ordinal") == pytest.approx(alpha_twin(KRIPPENDORFF, ordinal=True), abs=1e-9)
    assert value_of(found, "alpha_nominal") == pytest.approx(0.743421, abs=1e-6)
    assert value_of(found, "alpha_ordinal") == pytest.approx(0.815388, abs=1e-6)
    assert "fleiss" in found.not_computed and "cohen" in found.not_computed
    assert found.alpha_nominal is not None
    assert (found.alpha_nominal.num_values, found.alpha_nominal.num_excluded) == (40, 8)


def test_fleiss_example() -> None:
    """Published: p bar 0.5556, p_e 0.2201, kappa 0.430."""
    counts = np.array([[int(digit) for digit in row] for row in FLEISS.split()])
    assert counts.shape == (30, 5) and (counts.sum(axis=1) == 6).all()
    assert counts.sum(axis=0).tolist() == [26, 26, 30, 55, 43]
    columns = [[value for value, count in enumerate(row) for _ in range(count)] for row in counts.tolist()]
    rows: list[list[int | None]] = [[column[i] for column in columns] for i in range(6)]
    found = agreement(rated(rows), seed=0, values=(0, 1, 2, 3, 4))
    assert value_of(found, "fleiss") == pytest.approx(0.430, abs=5e-4)
    assert value_of(found, "percent") == pytest.approx(0.5556, abs=5e-5)
    assert value_of(found, "fleiss") == pytest.approx(inter_rater.fleiss_kappa(counts, method="fleiss"), abs=1e-9)


def test_cohens_example() -> None:
    """Cohen (1960): 140 of 200 agree, chance is 0.41: kappa = 0.29 / 0.59."""
    table = [[88, 14, 18], [10, 40, 10], [2, 6, 12]]
    found = agreement(two_raters(table), seed=0, values=(0, 1, 2))
    assert value_of(found, "cohen") == pytest.approx(0.29 / 0.59, abs=1e-9)
    expected = inter_rater.cohens_kappa(np.array(table), return_results=False)
    assert value_of(found, "cohen") == pytest.approx(expected, abs=1e-9)


def test_gwets_example() -> None:
    """Gwet (2014), 100 subjects, 3 values: percent 0.89, kappa 0.676471, AC1 0.867570 by hand with
    pi = (0.8, 0.075, 0.125): p_e = (0.16 + 0.069375 + 0.109375) / 2."""
    found = agreement(two_raters([[75, 1, 4], [5, 4, 1], [0, 0, 10]]), seed=0, values=(0, 1, 2))
    chance = (0.16 + 0.069375 + 0.109375) / 2
    assert value_of(found, "percent") == pytest.approx(0.89)
    assert value_of(found, "cohen") == pytest.approx(0.676471, abs=1e-6)
    assert value_of(found, "ac1") == pytest.approx((0.89 - chance) / (1 - chance), abs=1e-9)
    assert value_of(found, "alpha_nominal") == pytest.approx(0.676900, abs=1e-6)


def test_skewed_labels_part_kappa_from_ac1() -> None:
    """Gwet (2008): 118 of 125 agree and nearly all labels are one value: kappa -0.023, AC1 0.941."""
    found = agreement(two_raters([[118, 5], [2, 0]]), seed=0, values=(0, 1))
    assert value_of(found, "percent") == pytest.approx(0.944)
    assert value_of(found, "cohen") == pytest.approx(-0.023392, abs=1e-6)
    assert value_of(found, "ac1") == pytest.approx(0.940776, abs=1e-6)


def test_ordinal_alpha_counts_a_tie_as_half_way() -> None:
    """A tie against a win is less far off than a loss against a win."""
    near: list[list[int | None]] = [[1, 1, -1, -1, 0, 1], [1, 0, -1, 0, 0, 1]]
    far: list[list[int | None]] = [[1, 1, -1, -1, 0, 1], [1, -1, -1, 1, 0, 1]]
    ordinal = [value_of(agreement(rated(rows), seed=0), "alpha_ordinal") for rows in (near, far)]
    assert ordinal[0] > ordinal[1]


def test_direction_and_ties_are_told_apart() -> None:
    """Ties of both or neither: 3 of 5; both no tie: units 0 and 1, of which unit 0 agrees in direction."""
    found = agreement(rated([[1, 1, 0, 0, 1], [1, -1, 0, 1, 0]]), seed=0)
    assert found.direction is not None and found.direction.value == pytest.approx(1 / 2)
    assert found.tie_or_not is not None and found.tie_or_not.value == pytest.approx(3 / 5)


def test_segments_of_a_pair_are_drawn_together() -> None:
    """Eight equal segments of 40 pairs have the interval of 40, not of 320."""
    rng = np.random.default_rng(0)
    drawn = [(int(rng.integers(-1, 2)), int(rng.integers(-1, 2))) for _ in range(40)]

    def labels(segments: int) -> list[Rating]:
        return [
            Rating(pair=f"p{i:03d}", segment=k, annotator=f"r{j}", value=value)
            for i, both in enumerate(drawn)
            for k in range(segments)
            for j, value in enumerate(both)
        ]

    one, many = agreement(labels(1), seed=0).ac1, agreement(labels(8), seed=0).ac1
    assert one is not None and many is not None
    assert (one.n, many.n, many.num_values) == (40, 40, 640)
    assert (many.value, many.low, many.high) == pytest.approx((one.value, one.low, one.high))


def test_chance_agreement_has_an_interval_about_zero_as_often_as_it_says() -> None:
    """Two annotators who toss coins: of 200 intervals of alpha 5 % miss 0; four standard errors are 6 points."""
    rng = np.random.default_rng(1)
    missed = 0
    for i in range(200):
        rows: list[list[int | None]] = rng.integers(-1, 2, size=(2, 60)).tolist()
        found = agreement(rated(rows), seed=i, num_draws=300).alpha_nominal
        assert found is not None
        missed += found.excludes_zero
    assert 0.005 <= missed / 200 <= 0.11


def test_what_does_not_exist_is_told_with_its_reason() -> None:
    same = agreement(rated([[0, 0, 0], [0, 0, 0]]), seed=0)
    assert same.cohen is None and "one value" in same.not_computed["cohen"]
    assert same.ac1 is not None and same.ac1.value == 1.0
    assert same.direction is None
    alone = agreement(rated([[1, 0, -1]]), seed=0)
    assert alone.percent is None and "no segment has two ratings" in alone.not_computed["percent"]
    assert agreement([], seed=0).num_segments == 0


def test_bad_ratings_are_refused_by_name() -> None:
    rating = Rating(pair="p", segment=2, annotator="ann", value=1)
    with pytest.raises(BadInput, match="two ratings of segment 2 of pair p by annotator ann"):
        agreement([rating, rating], seed=0)
    with pytest.raises(BadInput, match="is 3; the values are"):
        agreement([Rating(pair="p", segment=2, annotator="ann", value=3)], seed=0)
    with pytest.raises(BadInput, match="ascending"):
        agreement([rating], seed=0, values=(1, 0))
