"""`densedpo generate` as a command: exit codes, one line for bad input, and no torch before it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from command_line import densedpo
from densedpo.adapters import load
from densedpo.core.records import Pair, read_jsonl
from toy import add_toy_clips

PROGRAM = """
import sys
from densedpo.cli.main import run
try:
    run(sys.argv[1:])
finally:
    print("TORCH" if "torch" in sys.modules else "NO TORCH")
"""


def densedpo_and_torch(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A process of its own, whose last word is whether it has imported torch."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


@pytest.fixture
def filled(project: Path, toy_model_dir: Path) -> Path:
    add_toy_clips(project, load(toy_model_dir), 2)
    return project


def test_pairs_from_the_command_line(filled: Path, toy_model_dir: Path) -> None:
    common = ("g", "--project", filled, "--model", toy_model_dir, "--set", "num_pairs=2", "--set", "num_steps=2")
    dry = densedpo("generate", "guided", *common, "--dry-run")
    assert dry.code == 0, dry.err
    assert "2 pairs to make (0 are there)" in dry.out
    assert not (filled / "pairs").exists()
    done = densedpo("generate", "guided", *common)
    assert done.code == 0, done.err
    assert "generating pairs: 2" in done.err
    assert "2 pairs made, 2 in pairs/g" in done.out
    assert len(read_jsonl(filled / "pairs" / "g" / "pairs.jsonl", Pair)) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "num_pair=3"], "num_pair"),
        (["--set", "num_pairs=0"], "num_pairs"),
        (["--model", "no-such-model"], "no model at no-such-model"),
        (["--config", "no-such-file.toml"], "no-such-file.toml"),
        (["--set", "splits=['held_out']"], "held_out"),
    ],
)
def test_bad_input_is_one_line_and_needs_no_torch(
    filled: Path, toy_model_dir: Path, arguments: list[str], words: str
) -> None:
    model = [] if "--model" in arguments else ["--model", toy_model_dir]
    done = densedpo_and_torch("generate", "guided", "g", "--project", filled, *model, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout.strip() == "NO TORCH"
    assert not (filled / "pairs").exists()


def test_an_unfit_name_or_a_missing_project_is_refused(filled: Path, toy_model_dir: Path, tmp_path: Path) -> None:
    named = densedpo_and_torch("generate", "guided", "../out", "--project", filled, "--model", toy_model_dir)
    assert (named.returncode, named.stdout.strip()) == (2, "NO TORCH")
    assert "'../out' cannot name an artefact" in named.stderr
    nowhere = densedpo_and_torch("generate", "independent", "g", "--project", tmp_path, "--model", toy_model_dir)
    assert (nowhere.returncode, nowhere.stdout.strip()) == (2, "NO TORCH")
