"""`densedpo judge vlm | custom`: judges that are models elsewhere, and judges that others wrote."""

from __future__ import annotations

from typing import Annotated

import typer

from densedpo.cli.judging import PairsArgument, echo_run, open_labels, open_pairs, run_judge
from densedpo.cli.options import AllowStaleOption, ConfigOption, ProjectOption, SetOption


def vlm(
    pairs: PairsArgument,
    project: ProjectOption = None,
    config: ConfigOption = None,
    set_: SetOption = [],
    allow_stale: AllowStaleOption = False,
) -> None:
    """Judge pairs by a vision-language model behind any server that speaks the OpenAI wire format."""
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project, writing
    from densedpo.judge.credentials import api_key
    from densedpo.judge.vlm.config import VlmConfig, require_endpoint

    settings = load_config(VlmConfig, config, set_)
    found = find_project(project)
    pair_set = open_pairs(found, pairs, allow_stale=allow_stale)
    require_endpoint(settings)
    key = api_key(settings.key_env)

    from densedpo.judge.run import judge_pairs
    from densedpo.judge.vlm.failures import FailureList
    from densedpo.judge.vlm.judge import VlmJudge

    with open_labels(found) as store, VlmJudge(settings, key=key, folder=found.root / "judges") as judge:
        failures = FailureList(path=judge.folder / "failures.jsonl")
        with writing(judge.folder):
            done = judge_pairs(
                judge,
                pair_set,
                store,
                segment_seconds=settings.seconds,
                pairs_at_once=settings.pairs_at_once,
                watch=judge.watch,
                note=judge.spending.text,
                on_failure=failures.add,
            )
        echo_run(done, pair_set, store, settings.segment_seconds)
        typer.echo(f"cost{judge.spending.text()[1:]}; {done.cost.num_cached} answers were on the disk already")
        for what, share in (
            ("winner changed with the order shown", judge.watch.flip_rate),
            ("shown first wins, of answers with a winner", judge.watch.first_share),
        ):
            if share is not None:
                typer.echo(f"  {what:<44} {100 * share:.1f} %")
        if done.failures:
            typer.echo(f"questions without an answer are listed in {found.relative(failures.path)}")


def custom(
    judge: Annotated[str, typer.Argument(metavar="MODULE:CLASS", help="What makes the judge, by its import path.")],
    pairs: PairsArgument,
    project: ProjectOption = None,
    config: ConfigOption = None,
    set_: SetOption = [],
    allow_stale: AllowStaleOption = False,
) -> None:
    """Judge pairs by a judge of your own: a class with the members of `densedpo.judge.protocol.Judge`."""
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project
    from densedpo.judge.custom import CustomConfig, load_judge

    settings = load_config(CustomConfig, config, set_)
    found = find_project(project)
    made = load_judge(judge, settings.options)
    run_judge(made, found, pairs, settings.segment_seconds, allow_stale=allow_stale)
