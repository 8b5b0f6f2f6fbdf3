"""Files of a model directory: JSON, classes and weights, checked before anything is loaded, and their fingerprint."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

from densedpo.core.errors import BadInput

PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
WITHOUT_WEIGHTS: Final = ("scheduler", "tokenizer", "image_processor")
MAX_HEADER_BYTES: Final = 100_000_000  # as safetensors bounds it


def read_json(path: Path) -> dict[str, object]:
    """A JSON object from a file of the model.

    Raises:
        BadInput: the file is absent, or is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path} is missing: {path.parent} is not a complete model directory") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadInput(f"{path} does not hold a JSON object")
    return value


def check_components(folder: Path, components: Mapping[str, tuple[str, ...]]) -> None:
    """Refuses a directory whose index names another class for a component than those that are supported.

    Raises:
        BadInput: names the component.
    """
    index = read_json(folder / "model_index.json")
    for component, classes in components.items():
        entry = index.get(component)
        found = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
        if found not in classes:
            raise BadInput(f"{folder}/model_index.json: {component} is {found}, supported: {', '.join(classes)}")


def check_weights(folder: Path) -> None:
    """Refuses a component whose weights are not there in full, or are not safetensors; reads their headers alone.

    Raises:
        BadInput: names the file.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} is missing: the model directory is not complete")
    if not any(folder.glob("*.safetensors")):
        pickles = [path.name for path in sorted(folder.iterdir()) if path.suffix in PICKLES]
        if pickles:
            raise BadInput(
                f"{folder / pickles[0]} is a pickle, which can run code when it is loaded: it was not opened; "
                "convert it to safetensors"
            )
        raise BadInput(f"{folder} holds no .safetensors file: the model directory is not complete")
    for file in sorted(folder.glob("*.safetensors")):
        read_header(file)
    for index_path in folder.glob("*.index.json"):
        shards = read_json(index_path).get("weight_map", {})
        names = sorted(set(shards.values())) if isinstance(shards, dict) else []
        for name in names:
            # an index may name any file: one that is not safetensors would be unpickled
            if not str(name).endswith(".safetensors") or Path(str(name)).name != name:
                raise BadInput(f"{index_path} names {name!r} as weights: only .safetensors beside it are loaded")
            if not (folder / name).is_file():
                raise BadInput(f"{folder / name} is missing: the model directory is not complete")


def read_header(file: Path) -> dict[str, dict[str, list[int]]]:
    """What a safetensors file holds, by name, from its head: JSON behind its length in 8 bytes.

    Raises:
        BadInput: the file is not one, or is shorter than its head says.
    """
    with file.open("rb") as opened:
        start = opened.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else MAX_HEADER_BYTES
        text = opened.read(length) if length < MAX_HEADER_BYTES else b""
    try:
        header = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError):
        header = None
    if not isinstance(header, dict):
        raise BadInput(f"{file} is not a whole safetensors file")
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    if file.stat().st_size != 8 + length + end:
        raise BadInput(f"{file} is not a whole safetensors file: its head tells of another size; copy it again")
    return tensors


def fingerprint(folder: Path, components: tuple[str, ...], recorded: Mapping[str, object] | None = None) -> str:
    """sha256 over the config and weight files of the components, in the order of their names.

    The content of a file is hashed once per process while its size and modification time stay the same.

    Args:
        recorded: settings that count as content.
    """
    digest = hashlib.sha256()
    for component in sorted(components):
        for path in sorted((folder / component).glob("*")):
            if path.is_file() and path.suffix in (".json", ".safetensors", ".model", ".txt"):
                stat = path.stat()
                content = _sha256(path.resolve(), stat.st_size, stat.st_mtime_ns)
                digest.update(f"{component}/{path.name}:{content}\n".encode())
    if recorded:
        digest.update(json.dumps(recorded, sort_keys=True).encode())
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:  # noqa: ARG001
    """The file's hash; size and time are only the cache's key."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
