"""The page of a comparison: one HTML file with everything in it, drawn from plain records by templates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from densedpo.core.errors import BadInput
from densedpo.core.provenance import sha256_file
from densedpo.core.records import to_row
from densedpo.core.workspace import Project, read_stamp, require_fresh, write_atomic, write_stamp, writing
from densedpo.measure.charts.panel import HEIGHT, WIDTH, Panel
from densedpo.measure.charts.training import Run, panels, read_run
from densedpo.measure.compare import Comparison, Member
from densedpo.measure.config import CompareConfig
from densedpo.measure.findings import Finding
from densedpo.measure.goodhart import alarm_text
from densedpo.measure.numbers import count_text, interval_text, value_text
from densedpo.measure.players import PlayerWall, player_wall
from densedpo.measure.records import REPORT_FILE, require_free
from densedpo.measure.score import METRICS
from densedpo.measure.strip import AXIS_WIDTH, BAR_HEIGHT, Strip, read_strips
from densedpo.measure.table import BAR_WIDTH, IntervalBar, Table, build_table, interval_bar
from densedpo.measure.templates import template
from densedpo.measure.wins import WinBar, Wins, win_bar

PAGE_FILE: Final = "index.html"


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Where the strips and the curves come from: names in the project, None where there is nothing of the kind."""

    run: str | None
    pairs: str | None
    preferences: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A finding in large type, with its interval as a bar; the texts are empty where nothing was computed."""

    finding: Finding
    metric: str
    unit: str
    value: str
    interval: str
    count: str
    bar: IntervalBar | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Everything that the templates read."""

    title: str
    headline: Finding
    cards: tuple[Card, ...]
    members: tuple[Member, ...]
    wall: PlayerWall | None
    table: Table
    wins: tuple[tuple[str, tuple[WinBar, ...]], ...]  # "other against base", with its bars
    runs: tuple[Run, ...]
    alarms: tuple[tuple[str, str], ...]  # a model's name, and what the alarm says of it
    panels: tuple[Panel, ...]
    strips: tuple[Strip, ...]
    evidence: Evidence
    hashes: tuple[tuple[str, str], ...]
    command: str
    made: dict[str, object]
    num_prompts: int
    num_seeds: int


def find_evidence(
    project: Project, comparison: Comparison, *, run: str | None, pairs: str | None, preferences: str | None
) -> Evidence:
    """What was named, and where nothing was, the tuned report's run and the pairs and preferences that it learned from.

    Raises:
        BadInput: something that was named does not exist.
    """
    if (pairs is None) != (preferences is None):
        raise BadInput(
            "the strip needs pairs and the preferences for them: name both --pairs and --preferences, or neither"
        )
    run = run or comparison.tuned.report.subject.run
    if run is not None and not project.run(run).is_dir():
        raise BadInput(f"runs/{run} does not exist; name a run of this project")
    if run is not None and pairs is None:
        stamp = read_stamp(project.run(run))
        inputs = list(stamp.inputs) if stamp is not None else []
        pairs = next((Path(path).name for path in inputs if path.startswith("pairs/")), None)
        preferences = next((Path(path).stem for path in inputs if path.startswith("preferences/")), None)
    return Evidence(run=run, pairs=pairs, preferences=preferences)


def write_comparison(
    project: Project, comparison: Comparison, evidence: Evidence, config: CompareConfig, *, allow_stale: bool = False
) -> Path:
    """Writes report.json and index.html, and returns the page's path.

    Raises:
        BadInput: an input is missing, damaged or stale, or another process is writing there.
    """
    inputs = _inputs(project, comparison, evidence)
    for path in inputs:
        require_fresh(path, project, allow_stale=allow_stale)
    page = _page(project, comparison, evidence, config, inputs)
    folder = project.report(comparison.report.name)
    require_free(project, folder, "comparison")
    with writing(folder):
        write_atomic(folder / REPORT_FILE, json.dumps(to_row(comparison.report), indent=2) + "\n")
        write_atomic(folder / PAGE_FILE, render(page))
        write_stamp(folder, inputs, project)
    return folder / PAGE_FILE


def render(page: Page) -> str:
    """The page as HTML."""
    sizes = {
        "bar_width": BAR_WIDTH,
        "panel_width": WIDTH,
        "panel_height": HEIGHT,
        "axis_width": AXIS_WIDTH,
        "bar_height": BAR_HEIGHT,
    }
    return template("page.html").render(page=page, **sizes)


def _inputs(project: Project, comparison: Comparison, evidence: Evidence) -> list[Path]:
    inputs = [measured.folder for measured in comparison.measured]
    inputs += [project.run(name) for name in _run_names(comparison, evidence)]
    if evidence.pairs is not None and evidence.preferences is not None:
        inputs += [project.pairs(evidence.pairs), project.preferences(evidence.preferences)]
    return inputs


def _run_names(comparison: Comparison, evidence: Evidence) -> list[str]:
    """The runs whose curves are shown: the one of the strip, then those of the compared reports."""
    names = [evidence.run, *(m.report.subject.run for m in comparison.measured)]
    return list(dict.fromkeys(name for name in names if name is not None))


def _page(
    project: Project, comparison: Comparison, evidence: Evidence, config: CompareConfig, inputs: list[Path]
) -> Page:
    report = comparison.report
    runs = [read_run(project, name, style) for style, name in enumerate(_run_names(comparison, evidence))]
    strips: tuple[Strip, ...] = ()
    if evidence.pairs is not None and evidence.preferences is not None and config.num_strips:
        strips = read_strips(
            project,
            pairs=evidence.pairs,
            preferences=evidence.preferences,
            run=evidence.run,
            num_strips=config.num_strips,
        )
    settings = comparison.base.report.settings
    return Page(
        title=config.title or f"{comparison.tuned.name} against {comparison.base.name}",
        headline=report.headline,
        cards=tuple(_card(finding) for finding in (report.headline, *report.findings)),
        members=report.members,
        wall=player_wall(comparison, num_players=config.num_players, max_bytes=config.max_video_mb * 1e6),
        table=build_table(comparison),
        wins=_win_bars(report.wins),
        runs=tuple(runs),
        alarms=tuple((alarm.checkpoint, alarm_text(alarm, comparison.base.name)) for alarm in report.alarms),
        panels=panels(runs),
        strips=strips,
        evidence=evidence,
        hashes=tuple((project.relative(path), sha256_file(_decisive(path))) for path in inputs),
        command=report.command,
        made=dict(report.made),
        num_prompts=settings.num_prompts,
        num_seeds=settings.seeds_per_prompt,
    )


def _card(finding: Finding) -> Card:
    metric = next(metric for metric in METRICS if metric.key == finding.difference.metric)
    estimate = finding.difference.estimate
    if estimate is None:
        return Card(finding=finding, metric=metric.label, unit="", value="", interval="", count="", bar=None)
    reach = max(abs(bound) for bound in (estimate.value, estimate.low, estimate.high) if bound is not None)
    return Card(
        finding=finding,
        metric=metric.label,
        unit=metric.unit,
        value=value_text(estimate, signed=True),
        interval=interval_text(estimate, signed=True),
        count=count_text(estimate),
        bar=interval_bar(estimate, reach),
    )


def _win_bars(wins: Sequence[Wins]) -> tuple[tuple[str, tuple[WinBar, ...]], ...]:
    by_match: dict[str, list[WinBar]] = {}
    for each in wins:
        bar = win_bar(each)
        if bar is not None:
            by_match.setdefault(f"{each.other} against {each.base}", []).append(bar)
    return tuple((match, tuple(bars)) for match, bars in by_match.items())


def _decisive(path: Path) -> Path:
    """The file whose hash stands for an artefact in the page's footer."""
    if path.is_file():
        return path
    names = {"reports": REPORT_FILE, "runs": "adapter.safetensors", "pairs": "pairs.jsonl"}
    return path / names[path.parent.name]
