"""Rules about the project as a whole: what it depends on, what importing it costs, what its files give away."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
BASE = PYPROJECT["project"]["dependencies"]
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
# the shipped reward is a network: only its judge loads these, when it is made
NETWORKS = ("densedpo.judge.reward.network", "densedpo.judge.reward.train")
HEAVY = ("torch", "diffusers", "transformers", "peft")
# written so that this file does not match itself
MACHINE_PATH = re.compile(r"/(?:home|root|Users|work|mnt|opt)/[\w.]")
REGISTRY = re.compile(r"https?://[\w.-]*(?:pypi|pythonhosted|artifactory|nexus|jfrog|conda|index\.)[\w.-]*")


def _packages(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9-]", requirement)[0].lower() for requirement in requirements}


def _constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {name.lower().replace("_", "-"): pinned for name, pinned in (line.split("==") for line in lines)}


def _tracked_texts() -> list[Path]:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_the_base_needs_no_torch_and_nothing_needs_torchvision() -> None:
    assert not _packages(BASE) & {*HEAVY, "torchvision", "matplotlib", "safetensors"}
    everything = _packages([*BASE, *(requirement for extra in EXTRAS.values() for requirement in extra)])
    assert not everything & {"torchvision", "decord", "litellm", "lpips", "pyiqa"}
    assert "torchvision" not in _constraints()


def test_every_dependency_is_pinned_and_no_pin_is_of_one_machine() -> None:
    pins = _constraints()
    needed = _packages([*BASE, *(requirement for extra in EXTRAS.values() for requirement in extra)]) - {"densedpo"}
    assert needed <= set(pins)
    assert not [pin for pin in pins.values() if not re.fullmatch(r"[0-9][0-9A-Za-z.]*", pin)]


def test_no_tracked_file_names_a_machine_or_a_registry() -> None:
    found = []
    for path in _tracked_texts():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            if MACHINE_PATH.search(line) or REGISTRY.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_importing_the_package_imports_no_torch_and_exports_little() -> None:
    code = f"import sys, densedpo, densedpo.cli.main; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert _run("-c", code).stdout.strip() == "[]"
    import densedpo

    assert len(densedpo.__all__) <= 25
    assert all(name in vars(densedpo) for name in densedpo.__all__)


@pytest.mark.parametrize("room", ["core.records", "core.layout", "core.workspace", "judge", "metrics", "world"])
def test_rooms_without_torch_import_without_it(room: str) -> None:
    """Every module of the room, with torch made impossible to import."""
    code = f"""
import importlib, pkgutil, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
module = importlib.import_module("densedpo.{room}")
for inner in pkgutil.walk_packages(module.__path__ if "." not in "{room}" else [], "densedpo.{room}."):
    if ".migrations." not in inner.name and inner.name not in {NETWORKS!r}:
        importlib.import_module(inner.name)
"""
    done = _run("-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.alone
def test_help_answers_at_once() -> None:
    """Under half a second on a quiet machine; the best of three against thrice that, as others may be at work here."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        done = _run("-m", "densedpo.cli.main", "--help")
        times.append(time.perf_counter() - started)
        assert done.returncode == 0, done.stderr
    assert min(times) < 1.5
