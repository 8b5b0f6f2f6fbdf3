"""Hashes and the record of what made an artefact."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from densedpo.core.provenance import provenance, sha256_file, sha256_json


def test_hashes_are_of_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_json({"a": 1, "b": [2]}) == sha256_json({"b": [2], "a": 1}) != sha256_json({"a": 1, "b": [3]})
    with pytest.raises(ValueError, match="JSON"):
        sha256_json(float("nan"))


def test_provenance_is_json_and_loads_no_torch() -> None:
    assert json.loads(json.dumps(provenance()))["packages"]["numpy"]
    code = "import sys; from densedpo.core.provenance import provenance; provenance(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
