"""`densedpo learn online`: rounds of generate, judge and learn with the policy in force."""

from __future__ import annotations

from typing import Annotated

import typer

from densedpo.cli.options import AllowStaleOption, ConfigOption, DryRunOption, ModelOption, ProjectOption, SetOption


def online(
    name: Annotated[str, typer.Argument(help="Name of the run: runs/NAME.")],
    model: ModelOption = "tiny",
    project: ProjectOption = None,
    config: ConfigOption = None,
    set_: SetOption = [],
    allow_stale: AllowStaleOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Train a LoRA on pairs that it makes itself and a reward judges, round by round; goes on where it was cut."""
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project
    from densedpo.learn.online.config import OnlineConfig
    from densedpo.learn.online.run import learn_online, read_online_inputs

    settings = load_config(OnlineConfig, config, set_)
    found = find_project(project)
    if dry_run:
        inputs = read_online_inputs(found, name, model=model, config=settings, allow_stale=allow_stale)
        from densedpo.learn.online.estimate import estimate_online

        typer.echo(str(estimate_online(inputs)))
        return
    folder = learn_online(found, name, model=model, config=settings, allow_stale=allow_stale)
    typer.echo(f"{found.relative(folder)}/adapter.safetensors; next: densedpo measure run {name} --run {name}")
