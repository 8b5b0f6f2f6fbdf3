"""`densedpo judge oracle | reference | real | export | import | serve | invite`: pairs to judgements to preferences."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from densedpo.cli.audit import audit
from densedpo.cli.judging import PairsArgument, echo_summary, open_labels, open_pairs, run_judge
from densedpo.cli.options import AllowStaleOption, ConfigOption, ProjectOption, SetOption
from densedpo.cli.probe import probe
from densedpo.cli.reward import http, reward
from densedpo.cli.vlm import custom, vlm

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
    run_judge(OracleJudge(settings), find_project(project), pairs, settings.segment_seconds, allow_stale=allow_stale)


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
    run_judge(judge, found, pairs, settings.segment_seconds, allow_stale=allow_stale)


@app.command()
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

    settings = load_config(RealConfig, config, set_)
    run_judge(RealJudge(), find_project(project), pairs, settings.segment_seconds, allow_stale=allow_stale)


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
    pair_set = open_pairs(found, pairs, allow_stale=allow_stale)
    with open_labels(found, create=False) as store:
        preferences = collect(
            pair_set,
            store,
            segment_seconds=settings.segment_seconds,
            only_annotators=annotator or None,
            dimension=settings.dimension,
            verdicts=read_verdicts(found.root),
        )
        path = write_preferences(preferences, found, name)
        if judgements is not None:
            rows = store.judgements(pair_set.hashes, annotators=annotator or None, dimension=settings.dimension)
            write_rows(judgements, [to_row(row) for row in rows])
    header = preferences.header
    typer.echo(f"{found.relative(path)}: {header.num_judgements} answers by {', '.join(header.annotators)}")
    echo_summary(preferences.summary)
    if header.num_unjudged_pairs:
        typer.echo(f"{header.num_unjudged_pairs} pairs are not judged and were left out")
    for verdict in header.probes:
        said = "passed" if verdict.passed else f"FAILED ({'; '.join(verdict.reasons)})"
        typer.echo(f"probe of {verdict.annotator} against {verdict.truth}: {said}")


@app.command()
def scored(
    name: Annotated[str, typer.Argument(help="Name of the new set of pairs: pairs/NAME.")],
    pairs: Annotated[str, typer.Option("--pairs", help="Pairs whose clips were scored one by one.")],
    project: ProjectOption = None,
    set_: SetOption = [],
    allow_stale: AllowStaleOption = False,
) -> None:
    """Pair clips that people scored one by one: each of a prompt's with each, or the best with the worst."""
    from densedpo.core.config import load_config
    from densedpo.core.workspace import find_project
    from densedpo.judge.pairset import PairSet
    from densedpo.judge.studies.scored import ScoredConfig, pair_scored

    settings = load_config(ScoredConfig, None, set_)
    found = find_project(project)
    with open_labels(found, create=False) as store:
        made = pair_scored(found, name, source=pairs, store=store, config=settings, allow_stale=allow_stale)
    pair = next(iter(PairSet.read(found.pairs(name))))
    typer.echo(f"{made.num_pairs} pairs of {made.num_clips} clips in pairs/{name}, {made.num_ties} answers are ties")
    if made.num_alike:
        typer.echo(f"{made.num_alike} prompts have no best and worst: all their clips were scored alike")
    typer.echo(
        f"next: densedpo judge export {name} --pairs {name} --set segment_seconds={pair.num_frames / pair.fps:g}"
    )


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
    with open_labels(found) as store:
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
    pair_set = open_pairs(found, pairs, allow_stale=allow_stale)

    from densedpo.judge.web.serve import serve as serve_study

    with open_labels(found) as store:
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

    with open_labels(find_project(project)) as store:
        token = invite_person(store.database, name, is_admin=admin)
    typer.echo(token)


app.command()(vlm)
app.command()(custom)
app.command()(audit)
app.command()(reward)
app.command()(http)
app.command()(probe)
