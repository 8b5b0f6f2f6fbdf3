"""`judge serve` and `judge invite` from the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from command_line import densedpo
from studio_example import make_project


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_project(tmp_path / "project", num_pairs=1).root


def test_a_token_is_printed_once_and_stored_as_its_hash(root: Path) -> None:
    first = densedpo("judge", "invite", "ann", "--project", str(root))
    second = densedpo("judge", "invite", "ann", "--admin", "--project", str(root))
    assert first.code == second.code == 0
    assert len(first.out.strip()) == 43  # 32 random bytes
    assert first.out != second.out
    assert first.out.strip().encode() not in (root / "labels.db").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "can be reached by others"),
        (["--public-url", "https://label.example.org"], "nobody can sign in yet"),
        (["--public-url", "http://label.example.org"], "nobody can sign in yet"),
        (["--host", "203.0.113.7", "--public-url", "https://x.org"], "nobody can sign in yet"),
        (["--port", "99999"], "cannot listen on 127.0.0.1, port 99999"),
        (["--set", "segment_seconds=0.01"], "hold less than one frame"),
        (["--set", "gold_annotator=oracle"], "has labelled no pair"),
        (["--set", "dimensions=['x','x']"], "different from each other"),
        (["--set", "database=postgresql://u:secret@host/d"], "does not belong on the command line"),
    ],
)
def test_what_cannot_be_served_is_one_line(root: Path, arguments: list[str], message: str) -> None:
    done = densedpo("judge", "serve", "demo", "--project", str(root), *arguments)
    assert done.code == 2
    assert message in done.err
    assert "secret" not in done.err.replace("secret-pair", "")
    assert done.err.count("\n") == 1


def test_names_of_machine_judges_are_taken(root: Path) -> None:
    done = densedpo("judge", "invite", "oracle", "--project", str(root))
    assert (done.code, "stands for a machine judge" in done.err) == (2, True)


def test_the_studio_needs_no_torch() -> None:
    code = (
        "import sys, densedpo.judge.web.serve; print([m for m in ('torch', 'diffusers', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
