"""The benchmark at the shapes of real models counts what it says, and says when there is no GPU."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks" / "step_cost"
RANK = 4


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/step_cost/shapes.py, which stands beside the package and not in it."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    module = importlib.import_module("shapes")
    for name in {"shapes", "run", "random_model"} - before:
        monkeypatch.delitem(sys.modules, name)
    return module


def test_the_flops_of_a_layer_are_those_on_paper(shapes: ModuleType) -> None:
    """What one more layer adds; two clips, T tokens and S text tokens each, width D, inner width F, rank r.

    A frozen product of n to m channels costs 2 R n m on R rows, and once more for the gradient of its input, which the
    keys and values of the text do not need. A LoRA's two products cost 2 R r (n + m), twice that in the backward, less
    2 R r n where the input needs none. Attention is 4 T K D on K keys, and twice that in the backward.
    """
    size = shapes.SIZES["toy"]
    frames, rows, columns = size.latents
    tokens, words = frames * rows // 2 * columns // 2, size.text_tokens
    width, inner, here, there = size.heads * size.head_dim, size.ffn, 2 * tokens, 2 * words
    square, wide = 2 * here * width**2, 2 * here * width * inner
    frozen = 2 * (6 * square + 2 * wide) + 2 * (2 * there * width**2)
    lora = 3 * (6 * 2 * here * RANK * 2 * width + 2 * 2 * here * RANK * (width + inner))
    lora += 2 * (3 * 2 * there * RANK * 2 * width - 2 * there * RANK * width)
    attention = 3 * 2 * 4 * tokens * (tokens + words) * width
    more = shapes.step_flops(replace(size, layers=4), RANK) - shapes.step_flops(replace(size, layers=3), RANK)
    assert more == frozen + lora + attention


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_and_measures_nothing(
    shapes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["shapes.py", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="no GPU here: nothing was measured"):
        shapes.main()
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_machinery_runs_on_a_cpu_at_toy_size(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "shapes.py"), "--device", "cpu", "--sizes", "toy", "--steps", "1"]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, check=True)
    assert "toy    packed" in done.stdout
    assert "toy    apart" in done.stdout
    assert (tmp_path / "shapes.json").is_file()
