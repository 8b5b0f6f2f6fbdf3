"""`densedpo judge audit`: which labels to look at again. It stands apart from the other judges since it asks runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from densedpo.cli.options import ProjectOption

if TYPE_CHECKING:
    from densedpo.learn.audit.rank import Ranking


def audit(
    name: Annotated[str, typer.Argument(help="Name of the preferences, as in preferences/NAME.jsonl.")],
    run: Annotated[list[str], typer.Option("--run", help="A run that left a part out (fold = [i, k]); each of the k.")],
    top: Annotated[int, typer.Option("--top", min=0, help="How many segments to print; all are written.")] = 20,
    project: ProjectOption = None,
) -> None:
    """Rank labelled segments by how much models trained without them disagree; to be judged again first."""
    from densedpo.core.workspace import find_project
    from densedpo.learn.audit.runs import audit_labels

    found = find_project(project)
    done = audit_labels(found, name, run)
    _echo_trust(done.ranking)
    for suspect in done.ranking.suspects[:top]:
        label = {1: "a", -1: "b", 0: "tie"}[suspect.label]
        typer.echo(
            f"{suspect.rank:>4}  {suspect.pair_id}  segment {suspect.segment} (frames {suspect.start_frame} to "
            f"{suspect.stop_frame}): labelled {label}, the model prefers {suspect.model_prefers}, "
            f"surprise {suspect.surprise:.2f}"
        )
    typer.echo(f"{found.relative(done.path)}: {len(done.ranking.suspects)} segments, the most surprising label first")


def _echo_trust(ranking: Ranking) -> None:
    if ranking.accuracy is None or ranking.error is None:
        typer.echo("too few labels have a winner to say whether the runs can tell right from wrong")
        return
    typer.echo(
        f"the runs side with {100 * ranking.accuracy:.1f} +- {100 * ranking.error:.1f} % of the {ranking.num_ranked} "
        "labels with a winner, none of which they have seen (one standard error over pairs)"
    )
    if not ranking.tells:
        typer.echo("that is no better than chance: this ranking finds no wrong labels; train the runs for longer")
