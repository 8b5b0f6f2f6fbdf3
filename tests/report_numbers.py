"""Walks a report.json and finds the numbers that do not say what they stand on."""

from __future__ import annotations

from collections.abc import Iterator

# what a number may stand in without an interval of its own: what was set, and counts
SET = {"settings", "manifest", "coverage", "declared", "made"}
SETTINGS = {"segment_seconds", "motion_threshold"}
ESTIMATE = {"value", "low", "high", "n", "num_values", "num_excluded", "method", "seed", "level"}
COUNTS = {
    "num_clips",
    "num_claims",
    "wins",
    "ties",
    "losses",
    "num_pairs",
    "num_segments",
    "num_ties",
    "num_annotators",
    "a",
    "tie",
    "b",
}
BESIDE = {
    "p_holm",
    "margin",
    "alpha",
    "p_loss",
    "p_gain",
    "against",
}  # of the test or the estimate that stands with them


def unaudited(row: object, path: str = "") -> Iterator[str]:
    """Every number of a report that does not say what it stands on."""
    if isinstance(row, list):
        for index, inside in enumerate(row):
            yield from unaudited(inside, f"{path}[{index}]")
    elif isinstance(row, dict):
        is_estimate = {"value", "low"} <= row.keys()
        if is_estimate and row.keys() != ESTIMATE:
            yield f"{path}: {sorted(ESTIMATE - row.keys())} missing"
        has_ground = {"n", "num_excluded", "method"} <= row.keys()
        for key, inside in row.items():
            if isinstance(inside, dict | list):
                if key not in SET:
                    yield from unaudited(inside, f"{path}.{key}")
                continue
            is_number = isinstance(inside, int | float) and not isinstance(inside, bool)
            if is_number and not (has_ground or key in COUNTS | BESIDE | SETTINGS):
                yield f"{path}.{key}"
