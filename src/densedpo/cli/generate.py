"""`densedpo generate`: pairs of clips to be judged, first frames for them, and how they start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from densedpo.cli.options import (
    ConfigOption,
    DryRunOption,
    ModelOption,
    PairNameArgument,
    ProjectOption,
    SetOption,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from densedpo.generate.estimate import Estimate
    from densedpo.generate.plan import PairPlan, PlannedPair

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
    dry_run: DryRunOption = False,
) -> None:
    """Draw first frames from prompts by a text-to-image model, in the size of the video model that continues them."""
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project
    from densedpo.generate.config import FirstFramesConfig
    from densedpo.generate.drawn import draw_first_frames, estimate_first_frames, plan_first_frames

    loaded = load_config(FirstFramesConfig, config, settings)
    plan = plan_first_frames(find_project(project), name, model=model, config=loaded)
    if dry_run:
        typer.echo(str(estimate_first_frames(plan)))
        return
    num_drawn = draw_first_frames(plan)
    typer.echo(
        f"{num_drawn} frames drawn, {len(plan.frames)} in pairs/{name}; next: densedpo generate independent PAIRS "
        f"--model {model} --set first_frames={name}"
    )


@app.command()
def corrupted(
    name: PairNameArgument,
    model: ModelOption = "tiny",
    project: ProjectOption = None,
    config: ConfigOption = None,
    settings: SetOption = [],
    dry_run: DryRunOption = False,
) -> None:
    """Make pairs of a real clip and a worse copy of it, which need no labels."""
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project
    from densedpo.generate.corrupted.config import CorruptedConfig
    from densedpo.generate.corrupted.plan import plan_corrupted

    loaded = load_config(CorruptedConfig, config, settings)
    plan = plan_corrupted(find_project(project), name, model=model, config=loaded)

    def cost(todo: Sequence[PlannedPair]) -> Estimate:
        from densedpo.generate.corrupted.run import estimate_corrupted

        return estimate_corrupted(plan, todo)

    def make() -> int:
        from densedpo.generate.corrupted.run import generate_corrupted

        return generate_corrupted(plan)

    _make_or_estimate(plan.pairs, cost, make, dry_run=dry_run)


@app.command()
def arena(
    first: Annotated[str, typer.Argument(help="A run's name, or 'base' for the model without an adapter.")],
    second: Annotated[str, typer.Argument(help="The other one.")],
    name: Annotated[str, typer.Option("--name", help="Name of the set of pairs; FIRST-SECOND if not given.")] = "",
    model: ModelOption = "tiny",
    project: ProjectOption = None,
    config: ConfigOption = None,
    settings: SetOption = [],
    dry_run: DryRunOption = False,
) -> None:
    """Make pairs of two models' clips, from the same prompts and noise, to be compared blind."""
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project
    from densedpo.generate.arena import generate_arena, plan_arena
    from densedpo.generate.config import ArenaConfig

    loaded = load_config(ArenaConfig, config, settings)
    called = name or f"{first}-{second}"
    plan = plan_arena(find_project(project), called, first, second, model=model, config=loaded)

    def cost(todo: Sequence[PlannedPair]) -> Estimate:
        from densedpo.generate.estimate import estimate_arena

        return estimate_arena(plan, todo)

    _make_or_estimate(plan.pairs, cost, lambda: generate_arena(plan), dry_run=dry_run)


@app.command()
def calibrate(
    name: PairNameArgument,
    model: ModelOption = "tiny",
    project: ProjectOption = None,
    config: ConfigOption = None,
    settings: SetOption = [],
    dry_run: DryRunOption = False,
) -> None:
    """Find the highest noise level that keeps the motion of the real clip."""
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project
    from densedpo.generate.calibration.plan import clips_to_calibrate
    from densedpo.generate.config import CalibrateConfig

    loaded = load_config(CalibrateConfig, config, settings)
    found = find_project(project)
    clips = clips_to_calibrate(found, model=model, config=loaded)

    from densedpo.generate.calibration.run import calibrate as measure
    from densedpo.generate.calibration.run import estimate_calibration

    if dry_run:
        typer.echo(str(estimate_calibration(clips, model=model, config=loaded)))
        return
    result = measure(clips, found.pairs(name), model=model, config=loaded, captions=found.captions)
    typer.echo(result.table())


def _generate(plan: PairPlan, *, dry_run: bool) -> None:
    def cost(todo: Sequence[PlannedPair]) -> Estimate:
        from densedpo.generate.estimate import estimate

        return estimate(plan, todo)

    def make() -> int:
        from densedpo.generate.pairs import generate_pairs

        return generate_pairs(plan)

    _make_or_estimate(plan, cost, make, dry_run=dry_run)


def _make_or_estimate(
    plan: PairPlan, cost: Callable[[Sequence[PlannedPair]], Estimate], make: Callable[[], int], *, dry_run: bool
) -> None:
    """Makes what a plan's folder lacks, or says what that will take.

    Args:
        cost: the estimate for what is lacking; imports torch, as `make` does.
        make: returns how many pairs were made.
    """
    from densedpo.generate.resume import remaining

    todo = remaining(plan)  # refuses what cannot go on before torch is imported
    if dry_run:
        typer.echo(str(cost(todo)))
        return
    num_made, name = make(), plan.folder.name
    typer.echo(
        f"{num_made} pairs made, {len(plan.pairs)} in pairs/{name}; "
        f"next: densedpo judge {_judge_of(plan.pairs[0])} {name}"
    )


def _judge_of(planned: PlannedPair) -> str:
    """The judge that needs nothing more than such pairs; people where there is none."""
    pair = planned.pair
    if pair.kind == "arena":
        return "serve"
    if planned.first is not None and planned.first.content:
        return "serve"  # a frame that was drawn shows no scene that is known
    if pair.corruption is not None:
        return "real"
    if pair.scene is not None:
        return "oracle"
    return "reference" if pair.kind == "guided" else "serve"
