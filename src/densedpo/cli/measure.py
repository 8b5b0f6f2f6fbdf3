"""`densedpo measure run | compare | judge`: clips of a model scored, reports compared, and judges with each other."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Annotated, Final

import typer

from densedpo.cli.options import AllowStaleOption, ConfigOption, JsonOption, ModelOption, ProjectOption, SetOption

if TYPE_CHECKING:
    from densedpo.measure.compare import ComparisonReport
    from densedpo.measure.records import Coverage, RunReport

MAX_LISTED: Final = 20  # clips that were left out

app = typer.Typer(no_args_is_help=True, help="Measure models on held-out prompts, and compare models and judges.")

NameArgument = Annotated[str, typer.Argument(help="Name of the report: reports/NAME.")]


@app.command()
def run(
    name: NameArgument,
    run: Annotated[
        str | None, typer.Option("--run", help="Run whose adapter is measured; the base model if not given.")
    ] = None,
    model: ModelOption = "tiny",
    project: ProjectOption = None,
    config: ConfigOption = None,
    settings: SetOption = [],
    allow_stale: AllowStaleOption = False,
    as_json: JsonOption = False,
) -> None:
    """Generate clips for held-out prompts and score them."""
    from densedpo.core.config import load_config
    from densedpo.core.records import to_row
    from densedpo.core.workspace import find_project
    from densedpo.measure.config import MeasureConfig
    from densedpo.measure.plan import plan_measurement

    loaded = load_config(MeasureConfig, config, settings)
    plan = plan_measurement(find_project(project), name, model=model, run=run, config=loaded, allow_stale=allow_stale)

    from densedpo.measure.run import measure
    from densedpo.measure.sample import clip_source

    report = measure(plan, clip_source(plan))
    typer.echo(json.dumps(to_row(report), indent=2) if as_json else _run_table(report))


@app.command()
def compare(
    name: NameArgument,
    base: Annotated[str, typer.Argument(help="Report that the others are compared with.")],
    others: Annotated[list[str], typer.Argument(help="Reports: the tuned model first, then controls and the ceiling.")],
    pairs: Annotated[
        str | None, typer.Option("--pairs", help="Pairs of the strip; the run's own if not given.")
    ] = None,
    preferences: Annotated[str | None, typer.Option("--preferences", help="Their preferences.")] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="Run of the strip and first curve; the tuned report's if not given.")
    ] = None,
    project: ProjectOption = None,
    config: ConfigOption = None,
    settings: SetOption = [],
    allow_stale: AllowStaleOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare reports on the same prompts and seeds, and write the page."""
    from densedpo.core.config import load_config
    from densedpo.core.records import to_row
    from densedpo.core.workspace import find_project
    from densedpo.measure.compare import compare as compare_reports
    from densedpo.measure.config import CompareConfig
    from densedpo.measure.page import find_evidence, write_comparison
    from densedpo.measure.table import build_table, text_table

    loaded = load_config(CompareConfig, config, settings)
    found = find_project(project)
    named = [("--pairs", pairs), ("--preferences", preferences), ("--run", run)]
    words = ["densedpo", "measure", "compare", name, base, *others]
    words += [word for flag, value in named if value is not None for word in (flag, value)]
    words += [word for setting in settings for word in ("--set", setting)]
    comparison = compare_reports(
        found, name, [base, *others], command=shlex.join(words), config=loaded, allow_stale=allow_stale
    )
    evidence = find_evidence(found, comparison, run=run, pairs=pairs, preferences=preferences)
    page = write_comparison(found, comparison, evidence, loaded, allow_stale=allow_stale)
    if as_json:
        typer.echo(json.dumps(to_row(comparison.report), indent=2))
        return
    left_out = [text for member in comparison.report.members if (text := _coverage(member.name, member.coverage))]
    typer.echo("\n".join([_findings(comparison.report), "", text_table(build_table(comparison)), *left_out]))
    typer.echo(f"open {page}")


@app.command()
def judge(
    name: NameArgument,
    pairs: Annotated[str, typer.Option("--pairs", help="Name of the pairs that both have judged.")],
    annotator: Annotated[str, typer.Option("--annotator", help="Judge or person whose answers are looked at.")],
    against: Annotated[str, typer.Option("--against", help="Judge or person whose answers they are held against.")],
    project: ProjectOption = None,
    config: ConfigOption = None,
    settings: SetOption = [],
    allow_stale: AllowStaleOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say how far one judge's answers agree with another's, and whether they pay for stillness."""
    from densedpo.core.config import load_config
    from densedpo.core.records import to_row
    from densedpo.core.workspace import find_project
    from densedpo.measure.config import JudgeConfig
    from densedpo.measure.judges.page import PAGE_FILE, text
    from densedpo.measure.judges.run import compare_judges

    loaded = load_config(JudgeConfig, config, settings)
    found = find_project(project)
    words = ["densedpo", "measure", "judge", name, "--pairs", pairs, "--annotator", annotator, "--against", against]
    words += [word for setting in settings for word in ("--set", setting)]
    report = compare_judges(
        found,
        name,
        pairs=pairs,
        annotator=annotator,
        against=against,
        command=shlex.join(words),
        config=loaded,
        allow_stale=allow_stale,
    )
    typer.echo(
        json.dumps(to_row(report), indent=2) if as_json else f"{text(report)}\nopen {found.report(name) / PAGE_FILE}"
    )


def _run_table(report: RunReport) -> str:
    from densedpo.measure.numbers import count_text, interval_text, value_text
    from densedpo.measure.score import METRICS

    lines = [f"reports/{report.name}"]
    width = max(len(metric.label) for metric in METRICS) + 2
    for metric in METRICS:
        estimate = report.estimates[metric.key]
        label = f"  {metric.label:<{width}}"
        if estimate is None:
            lines.append(f"{label}not computed")
            continue
        value = f"{value_text(estimate)} {metric.unit}".rstrip()
        lines.append(f"{label}{value:<16} {interval_text(estimate):<22} {count_text(estimate)}")
    left_out = _coverage(report.name, report.coverage)
    return "\n".join([*lines, left_out] if left_out else lines)


def _coverage(name: str, coverage: Coverage) -> str:
    """What was left out, one clip a line; empty where nothing was."""
    if not coverage.excluded:
        return ""
    head = (
        f"{name}: {coverage.num_scored} of {coverage.num_clips} clips scored ({100 * coverage.share:.1f} %); left out:"
    )
    clips = [f"  prompt {clip.prompt_id} seed {clip.number}: {clip.fault}" for clip in coverage.excluded[:MAX_LISTED]]
    more = len(coverage.excluded) - len(clips)
    return "\n".join([head, *clips, *([f"  and {more} more, in report.json"] if more else [])])


def _findings(report: ComparisonReport) -> str:
    return "\n".join(finding.text for finding in (report.headline, *report.findings))
