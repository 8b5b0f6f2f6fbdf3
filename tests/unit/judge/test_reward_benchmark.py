"""The table of benchmarks/reward: what a clip scores, and what is left out."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from densedpo.judge.probe.answers import Answers

FILE = Path(__file__).resolve().parents[3] / "benchmarks" / "reward" / "table3.py"


@pytest.fixture(scope="module")
def table3() -> ModuleType:
    spec = importlib.util.spec_from_file_location("table3", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def clips(labels: dict[str, int]) -> Answers:
    return Answers(annotator="x", segments={}, clips=labels, shown_left={}, labels_sha256="")


def test_a_clip_scores_1_for_the_truths_answer_half_for_a_tie_and_0_for_the_other(table3: ModuleType) -> None:
    """p2, which the truth ties, and p4, which was not judged, do not count; two pairs of one prompt stay two."""
    truth = clips({"p0": 1, "p1": -1, "p2": 0, "p3": 1, "p4": 1})
    judged = clips({"p0": 1, "p1": 1, "p2": 1, "p3": 0})
    prompts = {"p0": "one", "p1": "one", "p2": "two", "p3": "two", "p4": "two"}
    assert table3.clip_points(judged, truth, prompts) == {("one", 0): 1.0, ("one", 1): 0.0, ("two", 2): 0.5}
