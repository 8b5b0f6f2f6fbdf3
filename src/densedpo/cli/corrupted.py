"""`densedpo generate corrupted` and `densedpo judge real`: pairs that nobody has to label, and their labels."""

from __future__ import annotations

import typer

from densedpo.cli.judging import PairsArgument, run_judge
from densedpo.cli.options import (
    AllowStaleOption,
    ConfigOption,
    DryRunOption,
    ModelOption,
    PairNameArgument,
    ProjectOption,
    SetOption,
)


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
    from densedpo.generate.resume import remaining

    loaded = load_config(CorruptedConfig, config, settings)
    plan = plan_corrupted(find_project(project), name, model=model, config=loaded)
    todo = remaining(plan.pairs)  # refuses what cannot go on before torch is imported
    if dry_run:
        from densedpo.generate.corrupted.run import estimate_corrupted

        typer.echo(str(estimate_corrupted(plan, todo)))
        return

    from densedpo.generate.corrupted.run import generate_corrupted

    num_made = generate_corrupted(plan)
    typer.echo(f"{num_made} pairs made, {len(plan.pairs.pairs)} in pairs/{name}; next: densedpo judge real {name}")


def real(
    pairs: PairsArgument,
    project: ProjectOption = None,
    config: ConfigOption = None,
    set_: SetOption = [],
    allow_stale: AllowStaleOption = False,
) -> None:
    """Judge corrupted pairs by what is known of them: the real clip is better."""
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project
    from densedpo.judge.known import RealConfig, RealJudge

    loaded = load_config(RealConfig, config, set_)
    run_judge(RealJudge(), find_project(project), pairs, loaded.segment_seconds, allow_stale=allow_stale)
