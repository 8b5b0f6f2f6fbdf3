"""`densedpo learn online`: rounds of generate, judge and learn with the policy in force."""

from __future__ import annotations

from typing import Annotated

import typer

from densedpo.cli.options import AllowStaleOption, ConfigOption, ModelOption, ProjectOption, SetOption


def online(
    name: Annotated[str, typer.Argument(help="Name of the run: runs/NAME.")],
    model: ModelOption = "tiny",
    project: ProjectOption = None,
    config: ConfigOption = None,
    set_: SetOption = [],
    allow_stale: AllowStaleOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Estimate time, disk and memory; write nothing.")] = False,
) -> None:
    """Train a LoRA on pairs that it makes itself and a reward judges, round by round; goes on where it was cut."""
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project
    from densedpo.learn.online.config import OnlineConfig
    from densedpo.learn.online.run import learn_online, read_online_inputs
    from densedpo.learn.stop import InterruptedByUser

    settings = load_config(OnlineConfig, config, set_)
    found = find_project(project)
    if dry_run:
        inputs = read_online_inputs(found, name, model=model, config=settings, allow_stale=allow_stale)
        from densedpo.learn.online.estimate import estimate_online

        typer.echo(str(estimate_online(inputs)))
        return
    try:
        folder = learn_online(found, name, model=model, config=settings, allow_stale=allow_stale)
    except InterruptedByUser as stop:
        typer.echo(f"densedpo: {stop}", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"{found.relative(folder)}/adapter.safetensors; next: densedpo measure run {name} --run {name}")
