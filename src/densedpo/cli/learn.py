"""`densedpo learn`: preferences over pairs to an adapter or weights, and these in the formats of others."""

from __future__ import annotations

from typing import Annotated

import typer

from densedpo.cli.options import AllowStaleOption, ConfigOption, DryRunOption, ModelOption, ProjectOption, SetOption

app = typer.Typer(no_args_is_help=True, help="Train an adapter from preferences.")


@app.callback()
def learn() -> None:
    """Train an adapter from preferences."""


@app.command()
def offline(
    name: Annotated[str, typer.Argument(help="Name of the run: runs/NAME.")],
    pairs: Annotated[str | None, typer.Option("--pairs", help="Name of the set of pairs; sft can go without.")] = None,
    preferences: Annotated[str | None, typer.Option("--preferences", help="Name of the set of preferences.")] = None,
    model: ModelOption = "tiny",
    project: ProjectOption = None,
    config: ConfigOption = None,
    set_: SetOption = [],
    allow_stale: AllowStaleOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Train on labelled pairs, or on the real clips with objective = 'sft'; goes on where it was cut."""
    from densedpo.adapters.trained import trained_file
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project
    from densedpo.learn.config import LearnConfig
    from densedpo.learn.run import learn_offline, read_inputs

    settings = load_config(LearnConfig, config, set_)
    found = find_project(project)
    if dry_run:
        inputs = read_inputs(
            found, name, pairs=pairs, preferences=preferences, model=model, config=settings, allow_stale=allow_stale
        )
        from densedpo.learn.estimate import estimate_run

        typer.echo(str(estimate_run(inputs)))
        return
    folder = learn_offline(
        found, name, pairs=pairs, preferences=preferences, model=model, config=settings, allow_stale=allow_stale
    )
    left = trained_file(folder).name
    typer.echo(f"{found.relative(folder)}/{left}; {_next(name, run=name, model=model)}")


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


@app.command()
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
    typer.echo(f"{found.relative(folder)}/adapter.safetensors; {_next(name, run=name, model=model)}")


@app.command()
def stages(
    name: Annotated[str, typer.Argument(help="Name of the runs: runs/NAME-1 and runs/NAME-2.")],
    pairs: Annotated[str | None, typer.Option("--pairs", help="Pairs for the second stage, made with NAME-1.")] = None,
    preferences: Annotated[str | None, typer.Option("--preferences", help="Name of the set of preferences.")] = None,
    model: ModelOption = "tiny",
    project: ProjectOption = None,
    config: ConfigOption = None,
    set_: SetOption = [],
    allow_stale: AllowStaleOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Train weights on the real clips, then a second run on preferences over pairs that they made."""
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project
    from densedpo.learn.stages import Stages, StagesConfig, learn_stages, stage_inputs

    settings = load_config(StagesConfig, config, set_)
    asked = Stages(
        project=find_project(project),
        name=name,
        model=model,
        config=settings,
        pairs=pairs,
        preferences=preferences,
        allow_stale=allow_stale,
    )
    if dry_run:
        inputs = stage_inputs(asked)
        from densedpo.learn.estimate import estimate_run

        for each in inputs:
            typer.echo(f"{each.name}: {estimate_run(each)}")
        return
    folder = learn_stages(asked)
    if folder.name == asked.second:
        typer.echo(f"{asked.project.relative(folder)}; {_next(name, run=folder.name, model=model)}")
    else:
        typer.echo(
            f"{asked.project.relative(folder)}; next: make pairs by `densedpo generate independent PAIRS --set "
            f"start_from={folder.name}`, judge and export them, and give them to the same command by --pairs and "
            "--preferences"
        )


def _next(report: str, *, run: str, model: str) -> str:
    """What to do with a finished run."""
    return f"next: densedpo measure run {report} --run {run}{'' if model == 'tiny' else f' --model {model}'}"
