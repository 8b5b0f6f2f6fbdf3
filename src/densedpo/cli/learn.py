"""`densedpo learn`: preferences over pairs to an adapter, and the adapter in the formats of others."""

from __future__ import annotations

from typing import Annotated

import typer

from densedpo.cli.online import online
from densedpo.cli.options import AllowStaleOption, ConfigOption, DryRunOption, ModelOption, ProjectOption, SetOption

app = typer.Typer(no_args_is_help=True, help="Train an adapter from preferences.")


@app.callback()
def learn() -> None:
    """Train an adapter from preferences."""


@app.command()
def offline(
    name: Annotated[str, typer.Argument(help="Name of the run: runs/NAME.")],
    pairs: Annotated[str, typer.Option("--pairs", help="Name of the set of pairs.")],
    preferences: Annotated[str, typer.Option("--preferences", help="Name of the set of preferences.")],
    model: ModelOption = "tiny",
    project: ProjectOption = None,
    config: ConfigOption = None,
    set_: SetOption = [],
    allow_stale: AllowStaleOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Train on labelled pairs, or on the real clips with objective = 'sft'; goes on where it was cut."""
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project
    from densedpo.learn.config import LearnConfig
    from densedpo.learn.run import learn_offline, read_inputs

    settings = load_config(LearnConfig, config, set_)
    found = find_project(project)
    named = {"pairs": pairs, "preferences": preferences, "model": model}
    if dry_run:
        inputs = read_inputs(found, name, **named, config=settings, allow_stale=allow_stale)
        from densedpo.learn.estimate import estimate_run

        typer.echo(str(estimate_run(inputs)))
        return
    folder = learn_offline(found, name, **named, config=settings, allow_stale=allow_stale)
    left = "transformer/" if settings.train == "full" else "adapter.safetensors"
    typer.echo(f"{found.relative(folder)}/{left}; next: densedpo measure run {name} --run {name}")


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="Name of a finished run.")],
    format_: Annotated[
        str, typer.Option("--format", help="diffusers, peft, comfyui, or merged: the denoiser with the adapter in it.")
    ] = "diffusers",
    project: ProjectOption = None,
) -> None:
    """Write a run's adapter for another tool, with a model card, to runs/NAME/release/FORMAT."""
    from typing import get_args

    from densedpo.core.errors import BadInput
    from densedpo.core.workspace import find_project
    from densedpo.learn.release.formats import ReleaseFormat, release

    chosen: list[ReleaseFormat] = [known for known in get_args(ReleaseFormat) if known == format_]
    if not chosen:
        raise BadInput(f"--format {format_}: it is one of {', '.join(get_args(ReleaseFormat))}")
    found = find_project(project)
    typer.echo(found.relative(release(found, name, chosen[0])))


app.command()(online)
