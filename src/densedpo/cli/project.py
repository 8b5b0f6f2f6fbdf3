"""`densedpo init | doctor | status`: the project folder and the machine."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from densedpo.cli.options import JsonOption, ProjectOption

if TYPE_CHECKING:
    from densedpo.core.workspace import Project

_MODULES_OF_EXTRA: Final = {
    "train": ("torch", "diffusers", "transformers", "peft", "safetensors", "jaxtyping", "tensorboard"),
    "report": ("matplotlib",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtefactStatus:
    """What `status` says about one artefact; `unfinished` is one that has no stamp (yet)."""

    stage: str
    path: str
    state: Literal["fresh", "stale", "unfinished"]
    stale: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What `doctor` says: versions are None and extras lack packages where something is not installed."""

    densedpo: str
    code: str | None
    python: str
    platform: str
    num_cpus: int
    memory_gib: float
    free_disk_gib: float
    gpu: str | None
    packages: dict[str, str | None]
    missing: dict[str, tuple[str, ...]]  # extra -> the packages of it that are not installed


def init(folder: Annotated[Path, typer.Argument(help="Folder to make a project; made if missing.")] = Path()) -> None:
    """Make a folder a project."""
    from densedpo.core.workspace import init_project

    project = init_project(folder)
    typer.echo(f"{project.root.resolve()} is a project now; next: densedpo data add SOURCE")


def status(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Show what each stage has made, and what is stale."""
    from densedpo.core.workspace import STAGES, find_project

    found = find_project(project)
    artefacts = artefact_statuses(found)
    if as_json:
        rows = [dataclasses.asdict(artefact) for artefact in artefacts]
        typer.echo(json.dumps({"project": str(found.root), "artefacts": rows}, indent=2))
        return
    typer.echo(f"project {found.root}")
    for stage in STAGES.values():
        of_stage = [artefact for artefact in artefacts if artefact.stage == stage]
        typer.echo(stage if of_stage else f"{stage:<10} nothing yet")
        for artefact in of_stage:
            reasons = f": {'; '.join(artefact.stale)}" if artefact.stale else ""
            typer.echo(f"  {artefact.path:<36} {artefact.state}{reasons}")


def doctor(as_json: JsonOption = False) -> None:
    """Show versions, extras, processors, memory and disk."""
    machine = examine_machine()
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(machine), indent=2))
        return
    typer.echo(f"densedpo {machine.densedpo}{f' at {machine.code}' if machine.code else ''}")
    typer.echo(f"python {machine.python} on {machine.platform}")
    typer.echo(f"{machine.num_cpus} processors, {machine.memory_gib:.1f} GiB memory, {machine.gpu or 'no GPU in use'}")
    typer.echo(f"{machine.free_disk_gib:.1f} GiB free here")
    for name, version in machine.packages.items():
        typer.echo(f"  {name:<26} {version or 'not installed'}")
    for extra, missing in machine.missing.items():
        remedy = f"lacks {', '.join(missing)}; pip install 'densedpo[{extra}]'" if missing else "complete"
        typer.echo(f"extra [{extra}] {remedy}")


def artefact_statuses(project: Project) -> list[ArtefactStatus]:
    """The state of every artefact of a project, in the order of the stages."""
    from densedpo.core.workspace import STAGES, read_stamp, stale_inputs

    statuses = []
    changed: dict[str, str] = {}  # preferences -> what has happened to their labels; labels have no stamp of their own
    for artefact in project.artefacts():
        path = project.relative(artefact)
        stale = stale_inputs(artefact, project)
        if not stale and STAGES[path.split("/", maxsplit=1)[0]] == "judge":
            changed |= _changed_labels(project, path)
        stale += [changed[above] for above in _with_inputs(path, project) if above in changed]
        state: Literal["fresh", "stale", "unfinished"] = "stale" if stale else "fresh"
        if read_stamp(artefact) is None:
            state = "unfinished"
        statuses.append(
            ArtefactStatus(stage=STAGES[path.split("/", maxsplit=1)[0]], path=path, state=state, stale=tuple(stale))
        )
    return statuses


def _changed_labels(project: Project, path: str) -> dict[str, str]:
    from densedpo.core.errors import BadInput
    from densedpo.judge.preferences import changed_labels

    try:
        phrase = changed_labels(project, Path(path).stem)
    except BadInput as error:  # damaged labels are for `status` to tell, not to fail on
        phrase = str(error)
    return {} if phrase is None else {path: phrase}


def _with_inputs(path: str, project: Project) -> list[str]:
    """An artefact and everything that it was made from, directly or further up, each once."""
    from densedpo.core.workspace import read_stamp

    stamp = read_stamp(project.root / path)
    above = [name for direct in (stamp.inputs if stamp else ()) for name in _with_inputs(direct, project)]
    return list(dict.fromkeys([path, *above]))


def examine_machine() -> Machine:
    """What there is to work with; imports torch, where it is installed, to ask it for a GPU."""
    from densedpo import __version__
    from densedpo.core.provenance import PACKAGES, code_version, package_version

    missing = {
        extra: tuple(module for module in modules if find_spec(module) is None)
        for extra, modules in _MODULES_OF_EXTRA.items()
    }
    return Machine(
        densedpo=__version__,
        code=code_version(),
        python=platform.python_version(),
        platform=platform.platform(),
        num_cpus=len(os.sched_getaffinity(0)) if platform.system() == "Linux" else os.cpu_count() or 1,
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        free_disk_gib=shutil.disk_usage(Path.cwd()).free / 2**30,
        gpu=None if "torch" in missing["train"] else _gpu_name(),
        packages={name: package_version(name) for name in PACKAGES},
        missing=missing,
    )


def _gpu_name() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
