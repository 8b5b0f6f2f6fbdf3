"""`densedpo demo`: the whole loop on the shipped model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

FolderOption = Annotated[Path, typer.Option("--project", help="Folder of the demo's project; made if it is not there.")]


def demo(project: FolderOption = Path("demo_project")) -> None:
    """Run the whole loop on the shipped model in about 5 minutes, and end with a report to open."""
    from densedpo.demo.run import PAIRS, demo_config, open_demo_project, run_demo

    opened = open_demo_project(project)
    result = run_demo(opened, demo_config(), say=lambda line: typer.echo(line, err=True))
    typer.echo("\n".join(finding.text for finding in (result.report.headline, *result.report.findings)))
    typer.echo(f"open {result.page}")
    typer.echo(f"judge the pairs yourself: densedpo judge serve {PAIRS} --project {project}")
