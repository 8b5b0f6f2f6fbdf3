"""The modules of studies under benchmarks, which stand beside the package and not in it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
HEADLINE = BENCHMARKS / "headline"
HEADLINE_STUDIES = (
    HEADLINE / "headline.toml",
    HEADLINE / "recipe.toml",
    *sorted((HEADLINE / "ablations").glob("*.toml")),
)


@contextmanager
def study_modules(name: str) -> Iterator[dict[str, ModuleType]]:
    """The modules of benchmarks/`name` by name, importable by each other while the context lasts."""
    before, known = list(sys.path), set(sys.modules)
    sys.path[:0] = [str(BENCHMARKS / name), str(BENCHMARKS)]
    try:
        yield {path.stem: importlib.import_module(path.stem) for path in sorted((BENCHMARKS / name).glob("*.py"))}
    finally:
        sys.path[:] = before
        # another study has modules of the same names
        for module, found in list(sys.modules.items()):
            if module not in known and BENCHMARKS in Path(getattr(found, "__file__", None) or "/").parents:
                del sys.modules[module]
