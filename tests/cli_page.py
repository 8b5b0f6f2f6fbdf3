"""docs/make_cli_page.py as a module: it knows every command and every setting."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def cli_page():
    """The module, from its file: docs/ is no package."""
    path = ROOT / "docs" / "make_cli_page.py"
    spec = importlib.util.spec_from_file_location("make_cli_page", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
