"""The modules of benchmarks/headline, which stand beside the package and not in it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "headline"
STUDIES = (FOLDER / "headline.toml", FOLDER / "recipe.toml", *sorted((FOLDER / "ablations").glob("*.toml")))
_NAMES = ("bias", "claims", "figures", "making", "plan", "results", "run", "study", "table")


@contextmanager
def headline_modules() -> Iterator[dict[str, ModuleType]]:
    """The modules by name, importable by each other while the context lasts."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: importlib.import_module(name) for name in _NAMES}
    finally:
        sys.path.remove(str(FOLDER))
        for name in _NAMES:
            sys.modules.pop(name, None)
