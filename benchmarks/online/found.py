"""What was found: each arm against the base and against others, the claims, and where the time went."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from of_headline import MIN_SEEDS, by_prompt, cell, difference_of, difference_row, estimate_row, made
from passes import learning_passes_of, sampling_passes

from densedpo.adapters import catalogue
from densedpo.core.files import write_atomic
from densedpo.learn.course import RUN_FILE
from densedpo.learn.watch.track import read_metrics
from densedpo.measure.records import read_measured
from densedpo.metrics.statistics import beside_every_seed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from of_headline import Run
    from pydantic import JsonValue
    from settings import Study

    from densedpo.core.workspace import Project

Row = dict[str, "JsonValue"]
Values = dict[tuple[int, str], "float | None"]

BASE: Final = "base"
_PHASES: Final = ("sampling", "judging", "waiting", "learning")
_COUNTS: Final = ("rounds", "judged_clips", "num_pairs", "steps", "refreshes")


def collect(project: Project, study: Study, runs: Sequence[Run], *, quick: bool) -> Row:
    """Everything found so far, as results.json holds it.

    Args:
        runs: the ones that are measured.
    """
    arms = _values(project, study, runs)
    base = {metric: by_prompt(read_measured(project, BASE), metric) for metric in study.metrics}
    seeds = sorted({run.seed for run in runs})
    against = {
        arm: {m: difference_row(difference_of(own[m], beside_every_seed(base[m], seeds))) for m in study.metrics}
        for arm, own in arms.items()
    }
    contrasts = [
        {
            "arm": one,
            "over": other,
            "metrics": {m: difference_row(difference_of(arms[one][m], arms[other][m])) for m in study.metrics},
        }
        for one, other in study.contrasts
    ]
    return {
        "quick": quick,
        "seeds": seeds,
        "made": made(),
        "study": study.rows(),
        "base": {m: estimate_row(read_measured(project, BASE).report.estimates[m]) for m in study.metrics},
        "against_base": against,
        "contrasts": contrasts,
        "claims": _verdicts(study, contrasts),
        "rounds": [_rounds(project, study, arm, [run for run in runs if run.arm == arm]) for arm in arms],
        "runs": [_course(project, run) for run in runs],
    }


def _values(project: Project, study: Study, runs: Sequence[Run]) -> dict[str, dict[str, Values]]:
    """Each arm's metrics by training seed and prompt."""
    found: dict[str, dict[str, Values]] = {}
    for run in runs:
        measured = read_measured(project, run.name)
        for metric in study.metrics:
            own = found.setdefault(run.arm, {}).setdefault(metric, {})
            own |= {(run.seed, prompt): value for prompt, value in by_prompt(measured, metric).items()}
    return found


def _verdicts(study: Study, contrasts: Sequence[Row]) -> list[Row]:
    """Of each claim what became of the difference, by the rule of the paper's table."""
    found: list[Row] = []
    for claim in study.claims:
        (row,) = (row for row in contrasts if (row["arm"], row["over"]) == (claim.arm, claim.against))
        difference = row["metrics"][claim.metric]
        found.append({**claim.row(), "answer": claim.answer(difference and difference["goes"])})
    return found


def _rounds(project: Project, study: Study, arm: str, runs: Sequence[Run]) -> Row:
    """What an arm did and where its time went, per run in the mean over seeds."""
    summaries = [json.loads((project.run(run.name) / "summary.json").read_text(encoding="utf-8")) for run in runs]
    found = [{**row, "judged_clips": row["num_rollouts"]} for row in summaries]
    keys = (*_COUNTS, *(f"{phase}_seconds" for phase in _PHASES))
    means = {key: round(sum(row[key] for row in found) / len(found), 2) for key in keys}
    config = study.arms[arm]
    num_steps = config.sampler_steps or catalogue.defaults(study.model).num_steps
    passes = {
        "sampling_passes": sampling_passes(config, num_steps=num_steps),
        "learning_passes": round(learning_passes_of(config, means["steps"])),
    }
    return {"arm": arm, **means, **passes}


def _course(project: Project, run: Run) -> Row:
    """A run's looks, and the alarms it raised."""
    folder = project.run(run.name)
    alarms = json.loads((folder / RUN_FILE).read_text(encoding="utf-8")).get("alarms", [])
    return {"arm": run.arm, "seed": run.seed, "alarms": alarms, "looks": read_metrics(folder, "guard")}


def write(report: Row, study: Study, folder: Path) -> None:
    """results.json and table.md."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "results.json", json.dumps(report, indent=1) + "\n")
    write_atomic(folder / "table.md", table(report, study))


def table(report: Row, study: Study) -> str:
    """The results as Markdown."""
    lines = ["# Online against offline", ""]
    if report["quick"]:
        lines += ["**These sizes check the machinery. The numbers say nothing about the methods.**", ""]
    said = (
        f"Differences on the same {study.measure.num_prompts} held-out prompts and noise, "
        f"{study.measure.seeds_per_prompt} clips each; 95 % intervals over {len(report['seeds'])} of "
        f"{len(study.seeds)} training seeds and prompts. A star: the interval excludes 0 and four of five seeds agree."
    )
    lines += [said, ""]
    if len(report["seeds"]) < MIN_SEEDS:
        lines += [f"No win can be claimed from fewer than {MIN_SEEDS} seeds: stars and answers are what is seen.", ""]
    lines += [
        "| | " + " | ".join(key.replace("_", " ") for key in study.metrics) + " |",
        "|---" * (len(study.metrics) + 1) + "|",
        _line("pre-trained (level)", report["base"]),
    ]
    lines += [_line(f"{arm} less base", row, sign="+") for arm, row in report["against_base"].items()]
    lines += [_line(f"{row['arm']} less {row['over']}", row["metrics"], sign="+") for row in report["contrasts"]]
    lines += ["", "| claimed beforehand | |", "|---|---|"]
    for row in report["claims"]:
        said = f"{row['arm']} has {row['goal']} {row['metric'].replace('_', ' ')} than {row['against']}"
        lines.append(f"| {said} | {row['answer']} |")
    return "\n".join([*lines, *_times(report["rounds"]), ""])


def _times(rounds: Sequence[Row]) -> list[str]:
    """What every arm did, and where its time went."""
    counts = [key.removeprefix("num_").replace("_", " ") for key in _COUNTS]
    said = (
        "Means per run. Seconds are of the wall with other runs beside it: compare them within a row. Most judging is "
        "beside sampling; waiting is what of it comes after. The guard's looks are in none."
    )
    lines = [
        "",
        said,
        "",
        "| a run of | " + " | ".join([*counts, "passes at most", *(f"{phase}, s" for phase in _PHASES)]) + " |",
        "|---" * (2 + len(_COUNTS) + len(_PHASES)) + "|",
    ]
    for row in rounds:
        cells = [f"{row[key]:,.0f}" for key in _COUNTS]
        cells += [f"{row['sampling_passes'] + row['learning_passes']:,}"]
        cells += [f"{row[f'{phase}_seconds']:.0f}" for phase in _PHASES]
        lines.append(f"| {row['arm']} | " + " | ".join(cells) + " |")
    return lines


def _line(name: str, row: Mapping[str, Row | None], *, sign: str = "") -> str:
    return f"| {name} | " + " | ".join(cell(found, sign=sign) for found in row.values()) + " |"
