"""Where an artefact comes from: versions, code state and content hashes."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import JsonValue

PACKAGES = ("torch", "diffusers", "transformers", "peft", "safetensors", "numpy", "scipy", "av",
             "opencv-python-headless", "pydantic", "SQLAlchemy")  # fmt: skip
_SOURCE_TREE = Path(__file__).resolve().parents[3]


def provenance() -> dict[str, JsonValue]:
    """Everything about the code and the machine that could explain a difference between two runs."""
    torch = sys.modules.get("torch")  # never imported for the sake of this record
    return {
        "densedpo": package_version("densedpo"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "num_cpus": os.cpu_count(),
        "torch_threads": torch.get_num_threads() if torch is not None else None,
        "code": code_version(),
        "packages": {name: package_version(name) for name in PACKAGES},
    }


def package_version(name: str) -> str | None:
    """The installed version of a distribution, None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def code_version() -> str | None:
    """The git commit of this source tree, with `-dirty` where files differ; None for an installed wheel."""
    if not (_SOURCE_TREE / ".git").exists():
        return None
    command = ["git", "-C", str(_SOURCE_TREE), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def sha256_file(path: Path) -> str:
    """The sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: object) -> str:
    """The sha256 of a JSON value, whatever the order of its keys.

    Raises:
        ValueError: the value holds NaN or an infinity, which JSON cannot say.
        TypeError: the value is not a JSON value.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
