"""A user's project folder: where each artefact lies, what it was made from, and whether that has changed since.

Every stage reads only what stands above it and writes one artefact. Beside each artefact lies a stamp with the hashes
of its inputs, so that what is stale can be told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from pydantic import ConfigDict, JsonValue

from densedpo.core.errors import BadInput
from densedpo.core.files import append_jsonl, naming_disk_errors, repair_jsonl, sync_folder, write_atomic, writing
from densedpo.core.provenance import provenance, sha256_file, sha256_json
from densedpo.core.records import from_row, to_row

__all__ = [
    "STAGES",
    "Project",
    "Stamp",
    "append_jsonl",
    "checked_name",
    "content_hash",
    "find_project",
    "init_project",
    "naming_disk_errors",
    "read_stamp",
    "repair_jsonl",
    "require_fresh",
    "stale_inputs",
    "stamp_path",
    "sync_folder",
    "write_atomic",
    "write_stamp",
    "writing",
]

PROJECT_FILE: Final = "project.toml"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
STAGES: Final = {"clips": "data", "pairs": "generate", "preferences": "judge", "runs": "learn", "reports": "measure"}
# the files of a folder that decide what it holds; videos and latents follow from them
_DECISIVE: Final = {
    "clips": ("clips.jsonl", "prompts.jsonl"),
    "pairs": ("pairs.jsonl", "frames.jsonl"),
    "runs": ("config.toml", "adapter.safetensors", "weights.json", "base.json"),
    "reports": ("report.json",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """A project folder; the paths below it are where artefacts lie, whether they exist yet or not."""

    root: Path

    @property
    def clips(self) -> Path:
        """The folder of real clips, written by `data`."""
        return self.root / "clips"

    @property
    def captions(self) -> Path:
        """Where embeddings of captions are kept for every stage, in a folder for each text encoder."""
        return self.clips / "captions"

    @property
    def labels_db(self) -> Path:
        """The store of judgements, written by `judge`."""
        return self.root / "labels.db"

    def pairs(self, name: str) -> Path:
        """The folder of a set of pairs, written by `generate`."""
        return self.root / "pairs" / checked_name(name)

    def preferences(self, name: str) -> Path:
        """The file of a set of preferences, written by `judge export`."""
        return self.root / "preferences" / f"{checked_name(name)}.jsonl"

    def run(self, name: str) -> Path:
        """The folder of a training run, written by `learn`."""
        return self.root / "runs" / checked_name(name)

    def report(self, name: str) -> Path:
        """The folder of a report, written by `measure`."""
        return self.root / "reports" / checked_name(name)

    def artefacts(self) -> list[Path]:
        """Every artefact that exists, in the order of the stages."""
        found = [self.clips] if self.clips.is_dir() else []
        for folder in ("pairs", "preferences", "runs", "reports"):
            inside = sorted((self.root / folder).glob("*.jsonl" if folder == "preferences" else "*"))
            found += [path for path in inside if folder == "preferences" or (path.is_dir() and not _only_notes(path))]
        return found

    def relative(self, path: Path) -> str:
        """A path as it is named in stamps and messages: relative to the project, with forward slashes."""
        return path.resolve().relative_to(self.root.resolve()).as_posix()


def _only_notes(folder: Path) -> bool:
    """Whether a folder of pairs holds a calibration and no pairs yet: advice, not an artefact."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {"calibration.json"}


def checked_name(name: str) -> str:
    """The name of an artefact, if it can be one: it becomes a file name on every system.

    Raises:
        BadInput: it holds anything but lower-case letters, digits, `.`, `_` and `-`, or starts with one of the latter.
    """
    if not _NAME.fullmatch(name):
        raise BadInput(f"{name!r} cannot name an artefact; use lower-case letters, digits, '.', '_' and '-'")
    return name


def init_project(root: Path) -> Project:
    """Makes a folder a project.

    Raises:
        BadInput: it is one already, or is a file.
    """
    if (root / PROJECT_FILE).exists():
        raise BadInput(f"{root} is a project already")
    if root.exists() and not root.is_dir():
        raise BadInput(f"{root} is a file; name a folder")
    with naming_disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
    write_atomic(root / PROJECT_FILE, "# marks this folder as a densedpo project\nversion = 1\n")
    return Project(root=root)


def find_project(start: Path | None = None) -> Project:
    """The project that a folder (default: the current one) is or lies in.

    Raises:
        BadInput: neither the folder nor a parent holds a project.toml.
    """
    origin = (start if start is not None else Path.cwd()).resolve()
    for folder in (origin, *origin.parents):
        if (folder / PROJECT_FILE).is_file():
            return Project(root=folder)
    raise BadInput(f"no project in {origin} or above it; make one with `densedpo init`")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stamp:
    """Who made an artefact, from which inputs (path relative to the project -> sha256), with which code."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    stage: str
    inputs: dict[str, str]
    made: dict[str, JsonValue]


def stamp_path(artefact: Path) -> Path:
    """Inside an artefact that is a folder, beside one that is a file."""
    return artefact / "stamp.json" if artefact.is_dir() else artefact.with_name(f"{artefact.name}.stamp.json")


def write_stamp(artefact: Path, inputs: Sequence[Path], project: Project) -> Stamp:
    """Records what an artefact was made from. Written last: an artefact without a stamp may be unfinished.

    Args:
        inputs: files or artefact folders of the project.
    """
    stamp = Stamp(
        stage=STAGES[project.relative(artefact).split("/")[0]],
        inputs={project.relative(path): content_hash(path, project) for path in inputs},
        made=provenance(),
    )
    write_atomic(stamp_path(artefact), json.dumps(to_row(stamp), indent=2) + "\n")
    return stamp


def read_stamp(artefact: Path) -> Stamp | None:
    """The stamp of an artefact; None where there is none, as when another tool wrote it.

    Raises:
        BadInput: the stamp is there but is not one.
    """
    path = stamp_path(artefact)
    if not path.exists():
        return None
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not JSON: {error}") from None
    return from_row(Stamp, row, str(path))


def stale_inputs(artefact: Path, project: Project) -> list[str]:
    """What has changed under an artefact since it was made, directly or further up, one phrase each; [] if fresh."""
    return list(dict.fromkeys(_stale(artefact, project)))


def require_fresh(artefact: Path, project: Project, *, allow_stale: bool = False) -> None:
    """Refuses an artefact that is missing, or whose inputs have changed since it was made.

    Raises:
        BadInput: names the artefact, what changed and the way out.
    """
    name = project.relative(artefact)
    if not artefact.exists():
        raise BadInput(f"{name} does not exist; make it with `densedpo {STAGES.get(name.split('/')[0], 'status')}`")
    stale = [] if allow_stale else stale_inputs(artefact, project)
    if stale:
        raise BadInput(f"{name} is stale: {'; '.join(stale)}; make it again, or pass --allow-stale")


def content_hash(path: Path, project: Project) -> str:
    """The hash that a stamp keeps of an input: of a file's bytes, or of the files that decide a folder's content."""
    if path.is_file():
        return sha256_file(path)
    decisive = _DECISIVE.get(project.relative(path).split("/")[0])
    files = [path / name for name in decisive] if decisive else sorted(path.rglob("*"))
    return sha256_json({file.relative_to(path).as_posix(): sha256_file(file) for file in files if file.is_file()})


def _stale(artefact: Path, project: Project) -> Iterator[str]:
    stamp = read_stamp(artefact)
    for name, recorded in (stamp.inputs if stamp is not None else {}).items():
        path = project.root / name
        if not path.exists():
            yield f"{name} is gone"
        elif content_hash(path, project) != recorded:
            yield f"{name} changed"
        else:
            yield from _stale(path, project)
