"""The benchmark of pair making measures what it says, at a size that takes a moment."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from densedpo.adapters import load
from densedpo.generate.sampler import guided_sigmas

FILE = Path(__file__).resolve().parents[3] / "benchmarks" / "pair_cost" / "run.py"


@pytest.fixture(scope="module")
def benchmark():
    """benchmarks/pair_cost/run.py, which stands beside the package and not in it."""
    spec = importlib.util.spec_from_file_location("pair_cost_run", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["pair_cost_run"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["pair_cost_run"]


def test_pair_making_is_timed_against_its_own_forwards(benchmark, toy_model_dir: Path):
    """Each level from eta down to the last but one takes a forward with the caption and one without."""
    model = load(toy_model_dir)
    predict = type(model).predict
    cost = benchmark.measure(model, benchmark.Scale(num_pairs=1, num_steps=4, rounds=1))
    assert cost.forwards == 2 * (len(guided_sigmas(model.sigmas(4), 0.75)) - 1)
    assert type(model).predict is predict
    assert min(cost.made_s, cost.forwards_s, cost.encode_s, cost.decode_s, cost.video_s, cost.times_forwards) > 0
