"""The benchmark of a step measures what it says, at a size that takes a moment."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks" / "step_cost"


@pytest.fixture(scope="module")
def benchmark():
    """benchmarks/step_cost/run.py, which stands beside the package and not in it."""
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("step_cost_run", FOLDER / "run.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["step_cost_run"] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("random_model", None)
        sys.modules.pop("step_cost_run", None)


def test_every_variant_is_timed_against_the_floor_and_the_plain_script(benchmark, tmp_path: Path):
    scale = benchmark.Scale(size="toy", num_pairs=2, rounds=1, device="cpu")
    pairs = benchmark.random_pairs(tmp_path, benchmark.SIZES["toy"], 2)
    times = benchmark.measure_time(scale, pairs, tmp_path / "cache")
    assert set(times.variants) == set(benchmark.VARIANTS)
    assert times.variants["floor"]["times_floor"] == times.variants["plain"]["times_plain"] == 1
    assert all(row["seconds"] > 0 for row in times.variants.values())
    # 26 visits: with as many draws each visit has a fill of its own, with 4 of them 4 / 26 of one
    packed = times.variants["packed"]["seconds"]
    assert times.whole_run["26"]["seconds"] == pytest.approx(packed + times.fill_s)
    assert times.whole_run["4"]["seconds"] == pytest.approx(packed + times.fill_s * 4 / 26)


@pytest.mark.parametrize(
    ("variant", "with_graph", "without"), [("floor", [4], []), ("packed", [4], []), ("apart", [2, 2], [2, 2]),
                                           ("live", [4], [4]), ("plain", [2, 2], [2, 2])]
)  # fmt: skip
def test_a_variant_makes_the_forwards_that_it_stands_for(
    benchmark, tmp_path: Path, variant: str, with_graph: list[int], without: list[int]
):
    """Clips in each forward of a step over two pairs."""
    scale = benchmark.Scale(size="toy", num_pairs=2, rounds=1, device="cpu")
    pairs = benchmark.random_pairs(tmp_path, benchmark.SIZES["toy"], 2)
    bench = benchmark.Bench(variant, scale, pairs, tmp_path / "cache")
    seen: list[tuple[int, bool]] = []

    def record(module, args, kwargs):
        seen.append((len(kwargs["hidden_states"]), torch.is_grad_enabled()))

    models = [bench.model] if bench._reference is None else [bench.model, bench._reference]
    hooks = [model.denoiser.register_forward_pre_hook(record, with_kwargs=True) for model in models]
    bench.step()
    for hook in hooks:
        hook.remove()
    assert [size for size, has_graph in seen if has_graph] == with_graph
    assert [size for size, has_graph in seen if not has_graph] == without
