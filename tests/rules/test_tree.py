"""Rules about the tree: rooms, names, sizes. Exceptions are explicit lists that may only shrink."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "densedpo"
STAGES = ("data", "generate", "judge", "learn", "measure")
ROOMS = {*STAGES, "adapters", "cli", "core", "demo", "metrics", "recipes", "world"}
MODULES = sorted(PACKAGE.rglob("*.py"))
ALL_PYTHON = MODULES + sorted((ROOT / "tests").rglob("*.py"))
MAX_LINES_OF_FILE, MAX_LINES_OF_FUNCTION, MAX_FILES, MAX_DEPTH = 500, 80, 14, 3


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_rooms_are_those_of_the_design() -> None:
    found = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.rglob("*.*"))} - {"__pycache__"}
    assert found <= ROOMS
    assert set(STAGES) <= found


def test_every_stage_has_its_verb() -> None:
    from densedpo.cli.main import VERBS

    assert set(STAGES) <= set(VERBS)
    assert sorted(STAGES) == list(STAGES) == [verb for verb in VERBS if verb in STAGES]
    for stage in STAGES:
        assert (PACKAGE / "cli" / f"{stage}.py").is_file()


@pytest.mark.parametrize("path", ALL_PYTHON, ids=_name)
def test_no_file_is_a_drawer_for_odds_and_ends(path: Path) -> None:
    parts = {part for name in path.relative_to(ROOT).with_suffix("").parts for part in name.split("_")}
    assert not parts & {"util", "utils", "helper", "helpers", "common", "misc"}


@pytest.mark.parametrize("path", ALL_PYTHON, ids=_name)
def test_no_file_and_no_function_is_too_long(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES_OF_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_LINES_OF_FUNCTION, f"{node.name} has {length} lines"


def test_folders_stay_shallow_and_small() -> None:
    for folder in {path.parent for path in MODULES}:
        assert len(folder.relative_to(PACKAGE).parts) <= MAX_DEPTH, folder
        assert len(list(folder.glob("*.py"))) <= MAX_FILES, folder


def test_tests_are_no_packages() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []
