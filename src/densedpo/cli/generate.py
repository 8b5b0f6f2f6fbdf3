"""`densedpo generate`: pairs of clips to be judged, first frames for them, and how they start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from densedpo.cli.corrupted import corrupted
from densedpo.cli.options import (
    ConfigOption,
    DryRunOption,
    ModelOption,
    PairNameArgument,
    ProjectOption,
    SetOption,
)

if TYPE_CHECKING:
    from densedpo.generate.plan import PairPlan

app = typer.Typer(no_args_is_help=True, help="Generate pairs of clips, and calibrate how they start.")


@app.command()
def independent(
    name: PairNameArgument,
    model: ModelOption = "tiny",
    project: ProjectOption = None,
    config: ConfigOption = None,
    settings: SetOption = [],
    dry_run: DryRunOption = False,
) -> None:
    """Make pairs from two independent noises."""
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project
    from densedpo.generate.config import IndependentConfig
    from densedpo.generate.plan import plan_independent

    loaded = load_config(IndependentConfig, config, settings)
    _generate(plan_independent(find_project(project), name, model=model, config=loaded), dry_run=dry_run)


@app.command()
def guided(
    name: PairNameArgument,
    model: ModelOption = "tiny",
    project: ProjectOption = None,
    config: ConfigOption = None,
    settings: SetOption = [],
    dry_run: DryRunOption = False,
) -> None:
    """Make pairs from real clips, each noised twice to the same level."""
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project
    from densedpo.generate.config import GuidedConfig
    from densedpo.generate.plan import plan_guided

    loaded = load_config(GuidedConfig, config, settings)
    _generate(plan_guided(find_project(project), name, model=model, config=loaded), dry_run=dry_run)


@app.command("first-frames")
def first_frames(
    name: Annotated[str, typer.Argument(help="Name of the set of frames: pairs/NAME.")],
    model: ModelOption = "tiny",
    project: ProjectOption = None,
    config: ConfigOption = None,
    settings: SetOption = [],
) -> None:
    """Draw first frames from prompts by a text-to-image model, in the size of the video model that continues them."""
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project
    from densedpo.generate.config import FirstFramesConfig
    from densedpo.generate.drawn import draw_first_frames, plan_first_frames

    loaded = load_config(FirstFramesConfig, config, settings)
    plan = plan_first_frames(find_project(project), name, model=model, config=loaded)
    num_drawn = draw_first_frames(plan)
    typer.echo(
        f"{num_drawn} frames drawn, {len(plan.frames)} in pairs/{name}; next: densedpo generate independent PAIRS "
        f"--set first_frames={name}"
    )


app.command()(corrupted)


@app.command()
def arena(
    first: Annotated[str, typer.Argument(help="A run's name, or 'base' for the model without an adapter.")],
    second: Annotated[str, typer.Argument(help="The other one.")],
    name: Annotated[str, typer.Option("--name", help="Name of the set of pairs; FIRST-SECOND if not given.")] = "",
    model: ModelOption = "tiny",
    project: ProjectOption = None,
    config: ConfigOption = None,
    settings: SetOption = [],
) -> None:
    """Make pairs of two models' clips, from the same prompts and noise, to be compared blind."""
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project
    from densedpo.generate.arena import generate_arena, plan_arena
    from densedpo.generate.config import ArenaConfig

    loaded = load_config(ArenaConfig, config, settings)
    called = name or f"{first}-{second}"
    plan = plan_arena(find_project(project), called, first, second, model=model, config=loaded)
    num_made = generate_arena(plan)
    typer.echo(f"{num_made} pairs made, {len(plan.pairs.pairs)} in pairs/{called}; next: densedpo judge serve {called}")


@app.command()
def calibrate(
    name: PairNameArgument,
    model: ModelOption = "tiny",
    project: ProjectOption = None,
    config: ConfigOption = None,
    settings: SetOption = [],
) -> None:
    """Find the highest noise level that keeps the motion of the real clip."""
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project
    from densedpo.generate.config import CalibrateConfig
    from densedpo.generate.plan import clips_to_calibrate

    loaded = load_config(CalibrateConfig, config, settings)
    found = find_project(project)
    clips = clips_to_calibrate(found, model=model, config=loaded)

    from densedpo.generate.calibrate import calibrate as measure

    result = measure(clips, found.pairs(name), model=model, config=loaded, captions=found.captions)
    typer.echo(result.table())


def _generate(plan: PairPlan, *, dry_run: bool) -> None:
    from densedpo.generate.resume import remaining

    todo = remaining(plan)  # refuses what cannot go on before torch is imported
    if dry_run:
        from densedpo.generate.estimate import estimate

        typer.echo(str(estimate(plan, todo)))
        return

    from densedpo.generate.pairs import generate_pairs

    num_made = generate_pairs(plan)
    name = plan.folder.name
    typer.echo(f"{num_made} pairs made, {len(plan.pairs)} in pairs/{name}; next: densedpo judge oracle {name}")
