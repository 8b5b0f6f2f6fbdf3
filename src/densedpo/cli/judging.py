"""What the verbs of `densedpo judge` share: the pairs, the label store, a run of a judge and what is said of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from densedpo.core.workspace import Project
    from densedpo.judge.aggregate import LabelSummary
    from densedpo.judge.pairset import PairSet
    from densedpo.judge.protocol import Judge
    from densedpo.judge.run import JudgeRun
    from densedpo.judge.store import LabelStore

PairsArgument = Annotated[str, typer.Argument(metavar="PAIRS", help="Name of the pairs, as in pairs/PAIRS.")]


def open_labels(project: Project, *, create: bool = True) -> LabelStore:
    """The project's label store, or the one that the environment names; to be closed."""
    from densedpo.judge.credentials import labels_at
    from densedpo.judge.store import LabelStore

    return LabelStore.open(labels_at(project.labels_db), create=create)


def run_judge(judge: Judge, project: Project, name: str, segment_seconds: float, *, allow_stale: bool) -> None:
    """Judges the pairs that this judge has not judged, and says what it found and what comes next."""
    from densedpo.judge.run import judge_pairs

    pairs = open_pairs(project, name, allow_stale=allow_stale)
    with open_labels(project) as store:
        done = judge_pairs(judge, pairs, store, segment_seconds=segment_seconds)
        echo_run(done, pairs, store, segment_seconds)


def echo_run(done: JudgeRun, pairs: PairSet, store: LabelStore, segment_seconds: float) -> None:
    """Says what a run of a judge did and what its answers add up to."""
    from densedpo.judge.preferences import collect

    preferences = collect(pairs, store, segment_seconds=segment_seconds, only_annotators=[done.annotator])
    known = f" ({done.num_known} were judged before)" if done.num_known else ""
    typer.echo(f"{done.annotator} judged {done.num_judged} of {len(pairs)} pairs{known}")
    echo_summary(preferences.summary)
    for kind, failed in done.failures_by_kind.items():
        first = failed[0]
        typer.echo(f"  {f'no answer, {kind}':<40} {len(failed)}, such as pair {first.pair_id}: {first.failure.detail}")
    typer.echo(f"next: densedpo judge export {pairs.name} --pairs {pairs.name} --annotator {done.annotator}")


def open_pairs(project: Project, name: str, *, allow_stale: bool) -> PairSet:
    """The pairs of a name.

    Raises:
        BadInput: there are none, or what they were made from has changed.
    """
    from densedpo.core.workspace import require_fresh
    from densedpo.judge.pairset import PairSet

    pairs = PairSet.read(project.pairs(name))
    require_fresh(pairs.folder, project, allow_stale=allow_stale)
    return pairs


def echo_summary(summary: LabelSummary) -> None:
    """Says what labels look like: ties, and which clip wins."""
    typer.echo(f"{summary.num_segments} segments of {summary.num_pairs} pairs")
    for what, share in (
        ("ties", summary.tie_share),
        ("pairs in which each clip wins a segment", summary.both_signs_share),
        ("a wins, of segments that are not ties", summary.a_share),
    ):
        typer.echo(f"  {what:<40} {'none' if share is None else f'{100 * share:.1f} %'}")
