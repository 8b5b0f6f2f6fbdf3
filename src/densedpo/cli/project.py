"""`densedpo init | status`: the project folder."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from densedpo.cli.options import JsonOption, ProjectOption

if TYPE_CHECKING:
    from densedpo.core.workspace import Project


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtefactStatus:
    """What `status` says about one artefact; `unfinished` is one that has no stamp (yet)."""

    stage: str
    path: str
    state: Literal["fresh", "stale", "unfinished"]
    stale: tuple[str, ...]


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
