"""`densedpo judge oracle | reference | export | import | serve | invite`: pairs to judgements to preferences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from densedpo.cli.audit import audit
from densedpo.cli.options import AllowStaleOption, ConfigOption, ProjectOption, SetOption
from densedpo.cli.probe import probe
from densedpo.cli.reward import http, reward
from densedpo.cli.vlm import custom, vlm

if TYPE_CHECKING:
    from densedpo.core.workspace import Project
    from densedpo.judge.aggregate import LabelSummary
    from densedpo.judge.pairset import PairSet
    from densedpo.judge.protocol import Judge
    from densedpo.judge.run import JudgeRun
    from densedpo.judge.store import LabelStore

PairsArgument = Annotated[str, typer.Argument(metavar="PAIRS", help="Name of the pairs, as in pairs/PAIRS.")]
PairsOption = Annotated[str, typer.Option("--pairs", help="Name of the pairs, as in pairs/NAME.")]

app = typer.Typer(no_args_is_help=True, help="Judge pairs segment by segment, and turn answers into preferences.")


@app.command()
def oracle(
    pairs: PairsArgument,
    project: ProjectOption = None,
    config: ConfigOption = None,
    set_: SetOption = [],
    allow_stale: AllowStaleOption = False,
) -> None:
    """Judge pairs of the procedural world from their known scenes."""
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project
    from densedpo.judge.oracle import OracleConfig, OracleJudge

    settings = load_config(OracleConfig, config, set_)
    _judge(OracleJudge(settings), find_project(project), pairs, settings.segment_seconds, allow_stale=allow_stale)


@app.command()
def reference(
    pairs: PairsArgument,
    project: ProjectOption = None,
    config: ConfigOption = None,
    set_: SetOption = [],
    allow_stale: AllowStaleOption = False,
) -> None:
    """Judge guided pairs by their likeness to the real clip that both were made from."""
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project
    from densedpo.judge.reference import RealClips, ReferenceConfig, ReferenceJudge

    settings = load_config(ReferenceConfig, config, set_)
    found = find_project(project)
    judge = ReferenceJudge(settings, RealClips.of(found.clips))
    _judge(judge, found, pairs, settings.segment_seconds, allow_stale=allow_stale)


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="Name of the preferences, as in preferences/NAME.jsonl.")],
    pairs: PairsOption,
    annotator: Annotated[list[str], typer.Option("--annotator", help="Only this one; may be repeated.")] = [],
    judgements: Annotated[
        Path | None, typer.Option("--judgements", help="Also write every answer to this .jsonl, .csv or .parquet file.")
    ] = None,
    project: ProjectOption = None,
    set_: SetOption = [],
    allow_stale: AllowStaleOption = False,
) -> None:
    """Write the preferences that the answers add up to: what `learn` reads."""
    from densedpo.core.config import load_config
    from densedpo.core.records import to_row
    from densedpo.core.workspace import find_project
    from densedpo.judge.formats import write_rows
    from densedpo.judge.preferences import ExportConfig, collect, write_preferences
    from densedpo.judge.probe.verdict import read_verdicts

    settings = load_config(ExportConfig, None, set_)
    found = find_project(project)
    pair_set = _pair_set(found, pairs, allow_stale=allow_stale)
    with _labels(found, create=False) as store:
        preferences = collect(
            pair_set,
            store,
            segment_seconds=settings.segment_seconds,
            only_annotators=annotator or None,
            verdicts=read_verdicts(found.root),
        )
        path = write_preferences(preferences, found, name)
        if judgements is not None:
            rows = store.judgements(pair_set.hashes, annotators=annotator or None)
            write_rows(judgements, [to_row(row) for row in rows])
    header = preferences.header
    typer.echo(f"{found.relative(path)}: {header.num_judgements} answers by {', '.join(header.annotators)}")
    _echo_summary(preferences.summary)
    if header.num_unjudged_pairs:
        typer.echo(f"{header.num_unjudged_pairs} pairs are not judged and were left out")
    for verdict in header.probes:
        said = "passed" if verdict.passed else f"FAILED ({'; '.join(verdict.reasons)})"
        typer.echo(f"probe of {verdict.annotator} against {verdict.truth}: {said}")


@app.command("import")
def import_(
    file: Annotated[
        Path, typer.Argument(help="JSONL, CSV or Parquet: one judgement or the labels of one pair in each row.")
    ],
    pairs: PairsOption,
    annotator: Annotated[str | None, typer.Option("--annotator", help="Who, where a row does not say.")] = None,
    project: ProjectOption = None,
    set_: SetOption = [],
) -> None:
    """Bring in labels made elsewhere; all rows of the file or none."""
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project
    from densedpo.judge.exchange import ImportConfig, import_labels
    from densedpo.judge.pairset import PairSet

    settings = load_config(ImportConfig, None, set_)
    found = find_project(project)
    pair_set = PairSet.read(found.pairs(pairs))
    with _labels(found) as store:
        done = import_labels(file, pair_set, store, segment_seconds=settings.segment_seconds, annotator=annotator)
    typer.echo(f"{done.num_new} answers stored, {done.num_known} were stored before")


@app.command()
def serve(
    pairs: PairsArgument,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen on; 0 takes a free one.")] = 8040,
    public_url: Annotated[
        str | None, typer.Option("--public-url", help="https address of the proxy through which people come.")
    ] = None,
    project: ProjectOption = None,
    config: ConfigOption = None,
    set_: SetOption = [],
    allow_stale: AllowStaleOption = False,
) -> None:
    """Open the labelling studio: a web app in which people compare pairs in time."""
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project
    from densedpo.judge.studies.config import StudyConfig

    settings = load_config(StudyConfig, config, set_)
    found = find_project(project)
    pair_set = _pair_set(found, pairs, allow_stale=allow_stale)

    from densedpo.judge.web.serve import serve as serve_study

    with _labels(found) as store:
        serve_study(found, pair_set, store, settings, host=host, port=port, public_url=public_url, say=typer.echo)


@app.command()
def invite(
    name: Annotated[str, typer.Argument(help="Of the person; answers are stored under it.")],
    admin: Annotated[bool, typer.Option("--admin", help="May see the dashboard and everybody's answers.")] = False,
    project: ProjectOption = None,
) -> None:
    """Print a token with which a person signs in; a second one for the same name replaces the first."""
    from densedpo.core.workspace import find_project
    from densedpo.judge.studies.invitations import invite as invite_person

    with _labels(find_project(project)) as store:
        token = invite_person(store.database, name, is_admin=admin)
    typer.echo(token)


def _labels(project: Project, *, create: bool = True) -> LabelStore:
    from densedpo.judge.credentials import labels_at
    from densedpo.judge.store import LabelStore

    return LabelStore.open(labels_at(project.labels_db), create=create)


app.command()(vlm)
app.command()(custom)
app.command()(audit)
app.command()(reward)
app.command()(http)
app.command()(probe)


def _judge(judge: Judge, project: Project, name: str, segment_seconds: float, *, allow_stale: bool) -> None:
    from densedpo.judge.run import judge_pairs

    pairs = _pair_set(project, name, allow_stale=allow_stale)
    with _labels(project) as store:
        done = judge_pairs(judge, pairs, store, segment_seconds=segment_seconds)
        _echo_run(done, pairs, store, segment_seconds)


def _echo_run(done: JudgeRun, pairs: PairSet, store: LabelStore, segment_seconds: float) -> None:
    from densedpo.judge.preferences import collect

    preferences = collect(pairs, store, segment_seconds=segment_seconds, only_annotators=[done.annotator])
    known = f" ({done.num_known} were judged before)" if done.num_known else ""
    typer.echo(f"{done.annotator} judged {done.num_judged} of {len(pairs)} pairs{known}")
    _echo_summary(preferences.summary)
    for kind, failed in done.failures_by_kind.items():
        first = failed[0]
        typer.echo(f"  {f'no answer, {kind}':<40} {len(failed)}, such as pair {first.pair_id}: {first.failure.detail}")
    typer.echo(f"next: densedpo judge export {pairs.name} --pairs {pairs.name} --annotator {done.annotator}")


def _pair_set(project: Project, name: str, *, allow_stale: bool) -> PairSet:
    from densedpo.core.workspace import require_fresh
    from densedpo.judge.pairset import PairSet

    pairs = PairSet.read(project.pairs(name))
    require_fresh(pairs.folder, project, allow_stale=allow_stale)
    return pairs


def _echo_summary(summary: LabelSummary) -> None:
    typer.echo(f"{summary.num_segments} segments of {summary.num_pairs} pairs")
    for what, share in (
        ("ties", summary.tie_share),
        ("pairs in which each clip wins a segment", summary.both_signs_share),
        ("a wins, of segments that are not ties", summary.a_share),
    ):
        typer.echo(f"  {what:<40} {'none' if share is None else f'{100 * share:.1f} %'}")
