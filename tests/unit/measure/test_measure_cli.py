"""`densedpo measure` as a command: exit codes, one line for bad input, and no torch where none is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from densedpo.core.workspace import Project

PROGRAM = """
import sys
from densedpo.cli.main import run
try:
    run(sys.argv[1:])
finally:
    print("TORCH" if "torch" in sys.modules else "NO TORCH", file=sys.stderr)
"""


def densedpo(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_compare_prints_what_was_found_and_the_page(measured_project: Project) -> None:
    names = ["base", "dense", "shuffled", "--set", 'claims=["visual_quality"]']
    done = densedpo("measure", "compare", "cmp", *names, "--project", measured_project.root)
    assert done.returncode == 0, done.stderr
    assert "dense gains visual quality over base: +" in done.stdout
    assert "n = 10 prompts" in done.stdout
    assert "dense - base\n  Visual quality" in done.stdout
    assert "not significant at n=10" in done.stdout
    assert str(measured_project.root / "reports" / "cmp" / "index.html") in done.stdout
    assert "NO TORCH" in done.stderr


def test_compare_as_json_is_report_json(measured_project: Project) -> None:
    done = densedpo("measure", "compare", "cmp", "base", "dense", "--json", "--project", measured_project.root)
    assert done.returncode == 0, done.stderr
    written = json.loads((measured_project.root / "reports" / "cmp" / "report.json").read_text())
    assert json.loads(done.stdout) == written


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "cmp", "base", "nothing"], "no report at reports/nothing/report.json"),
        (["compare", "cmp", "base", "dense", "--pairs", "guided"], "name both --pairs and --preferences"),
        (["compare", "cmp", "base", "dense", "--set", "num_player=2"], "num_player"),
        (["compare", "cmp", "base", "dense", "--set", "margins.beauty=0.1"], "margins names 'beauty'"),
        (
            ["judge", "x", "--pairs", "guided", "--annotator", "me", "--against", "you"],
            "labels.db does not exist: nothing is judged yet",
        ),
        (["run", "x", "--model", "no-such-model"], "no model at no-such-model"),
    ],
)
def test_bad_input_is_one_line_and_needs_no_torch(measured_root: Path, arguments: list[str], words: str) -> None:
    done = densedpo("measure", *arguments, "--project", measured_root)
    assert done.returncode == 2
    line, torch = done.stderr.strip().splitlines()
    assert words in line
    assert torch == "NO TORCH"
    assert not (measured_root / "reports" / "x").exists()
