"""Rules about the tree: rooms, names, sizes. Exceptions are explicit and may only shrink."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "densedpo"
STAGES = ("data", "generate", "judge", "learn", "measure")
ROOMS = {*STAGES, "adapters", "cli", "core", "demo", "metrics", "recipes", "world"}
MODULES = sorted(PACKAGE.rglob("*.py"))
ALL_PYTHON = MODULES + sorted((ROOT / "tests").rglob("*.py"))
MAX_LINES_OF_FILE, MAX_LINES_OF_FUNCTION, MAX_FILES, MAX_DEPTH = 500, 80, 16, 3
# the two stages with the most parts, training and reporting, and the room with a module for each family of models
LARGER_FOLDERS = {"learn": 19, "measure": 20, "adapters": 18}


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_rooms_are_those_of_the_design() -> None:
    found = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.rglob("*.*"))} - {"__pycache__"}
    assert found <= ROOMS
    assert set(STAGES) <= found


def test_every_stage_has_its_verb() -> None:
    from densedpo.cli.main import VERBS

    assert sorted(STAGES) == list(STAGES) == [verb for verb in VERBS if verb in STAGES]
    for stage in STAGES:
        assert (PACKAGE / "cli" / f"{stage}.py").is_file()


def test_no_file_is_a_drawer_for_odds_and_ends() -> None:
    drawers = {"util", "utils", "helper", "helpers", "common", "misc"}
    parts = {path: {*_name(path).removesuffix(".py").replace("/", "_").split("_")} for path in ALL_PYTHON}
    assert [_name(path) for path in ALL_PYTHON if parts[path] & drawers] == []


def test_no_file_and_no_function_is_too_long() -> None:
    found = []
    for path in ALL_PYTHON:
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > MAX_LINES_OF_FILE:
            found.append(f"{_name(path)}: {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_LINES_OF_FUNCTION:
                    found.append(f"{_name(path)}:{node.lineno}: {node.name} has {length} lines")
    assert found == []


def test_folders_stay_shallow_and_small() -> None:
    for folder in {path.parent for path in MODULES}:
        name = folder.relative_to(PACKAGE).as_posix()
        assert len(folder.relative_to(PACKAGE).parts) <= MAX_DEPTH, name
        num_files = len(list(folder.glob("*.py"))) - 1  # __init__.py is no part of its own
        assert num_files <= LARGER_FOLDERS.get(name, MAX_FILES), f"{name} holds {num_files} files"


def test_tests_are_no_packages() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []
