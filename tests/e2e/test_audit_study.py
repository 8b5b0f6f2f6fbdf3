"""The study of the audit, from pairs to its results, on a toy model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from study_modules import BENCHMARKS


@pytest.mark.slow
def test_flips_are_planted_ranked_and_counted(tmp_path: Path, toy_model_dir_64: Path):
    """Edited pairs: what random weights make of guided ones is all the same to the oracle."""
    command = [sys.executable, str(BENCHMARKS / "audit" / "run.py"), "edited", "--out", str(tmp_path), "--quick"]
    command += ["--model", str(toy_model_dir_64), "--pairs", "16", "--share", "0.5"]
    command += ["--set", "num_steps=2", "--set", "batch_pairs=2", "--set", "warmup_steps=1", "--set", "lora_rank=2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "results" / "edited.json").read_text())
    assert (report["kind"], report["quick"], report["folds"]) == ("edited", True, 2)
    assert 0 < report["flipped"] < report["decided"] <= report["segments"]
    assert set(report["lift"]) == {"0.05", "0.1", "0.2"}
    assert f"{report['flipped']} of {report['decided']} training segments with a winner are flipped" in done.stdout
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout.splitlines()[-3:]) == (0, done.stdout.splitlines()[-3:])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == made
