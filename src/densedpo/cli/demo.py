"""`densedpo demo`: the whole loop on the shipped model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

FolderOption = Annotated[
    Path | None,
    typer.Option("--project", help="Folder of the demo's project; made if it is not there.  [default: demo_project]"),
]
LongOption = Annotated[
    bool,
    typer.Option("--long", help="Enough pairs and prompts to see a gain: about 20 minutes, in long_demo_project."),
]


def demo(project: FolderOption = None, long: LongOption = False) -> None:
    """Run the whole loop on the shipped model in about 5 minutes, and end with a report to open."""
    from densedpo.demo.run import PAIRS, demo_config, open_demo_project, run_demo

    opened = open_demo_project(project or Path("long_demo_project" if long else "demo_project"))
    result = run_demo(opened, demo_config(long=long), say=lambda line: typer.echo(line, err=True))
    typer.echo("\n".join(finding.text for finding in (result.report.headline, *result.report.findings)))
    typer.echo(f"open {result.page}")
    typer.echo(f"judge the pairs yourself: densedpo judge serve {PAIRS} --project {opened.root}")
