"""What was found: each arm against the base and against others, the claims, and where the time went."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from of_headline import by_prompt, cell, difference_of, difference_row, estimate_row, made

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
_PHASES: Final = ("sampling", "judging", "learning")


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
        "base": {m: estimate_row(read_measured(project, BASE).report.estimates[m]) for m in study.metrics},
        "against_base": against,
        "contrasts": contrasts,
        "claims": _verdicts(study, contrasts),
        "rounds": [_rounds(project, arm, [run for run in runs if run.arm == arm]) for arm in arms],
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
    """Of each claim the difference that was found, and whether its interval holds it."""
    found: list[Row] = []
    for claim in study.claims:
        (row,) = (row for row in contrasts if (row["arm"], row["over"]) == (claim.arm, claim.against))
        difference = row["metrics"][claim.metric]
        holds = difference is not None and claim.holds(difference["low"], difference["high"])
        found.append({**claim.row(), "holds": holds})
    return found


def _rounds(project: Project, arm: str, runs: Sequence[Run]) -> Row:
    """Where an arm's time went, per round in the mean over seeds."""
    found = [json.loads((project.run(run.name) / "summary.json").read_text(encoding="utf-8")) for run in runs]
    per_round = {
        f"{phase}_seconds": round(sum(row[f"{phase}_seconds"] / row["rounds"] for row in found) / len(found), 2)
        for phase in _PHASES
    }
    return {"arm": arm, "judged_clips": sum(row["num_rollouts"] for row in found) / len(found), **per_round}


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
    lines += [
        said,
        "",
        "| | " + " | ".join(key.replace("_", " ") for key in study.metrics) + " |",
        "|---" * (len(study.metrics) + 1) + "|",
        _line("pre-trained (level)", report["base"]),
    ]
    lines += [_line(f"{arm} less base", row, sign="+") for arm, row in report["against_base"].items()]
    lines += [_line(f"{row['arm']} less {row['over']}", row["metrics"], sign="+") for row in report["contrasts"]]
    lines += ["", "| claimed beforehand | |", "|---|---|"]
    for row in report["claims"]:
        said = f"{row['arm']} has {row['goal']} {row['metric'].replace('_', ' ')} than {row['against']}"
        lines.append(f"| {said} | {'holds' if row['holds'] else 'not shown'} |")
    lines += [
        "",
        "| a round of | judged clips in all | " + " | ".join(f"{p}, s" for p in _PHASES) + " |",
        "|---" * 5 + "|",
    ]
    for row in report["rounds"]:
        spent = " | ".join(f"{row[f'{phase}_seconds']:.1f}" for phase in _PHASES)
        lines.append(f"| {row['arm']} | {row['judged_clips']:.0f} | {spent} |")
    return "\n".join([*lines, ""])


def _line(name: str, row: Mapping[str, Row | None], *, sign: str = "") -> str:
    return f"| {name} | " + " | ".join(cell(found, sign=sign) for found in row.values()) + " |"
