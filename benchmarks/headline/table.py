"""The table of a study: every arm against the base, over prompts and seeds, and what its training said.

python benchmarks/headline/table.py build/recipe
"""

from __future__ import annotations

import argparse
import json
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING

from densedpo.core.workspace import Project
from densedpo.learn.watch.track import read_metrics
from densedpo.measure.records import Measured, read_measured
from densedpo.measure.score import METRICS
from densedpo.metrics.statistics import beside_every_seed, two_way_difference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from study import Run

SHOWN = ("visual_quality", "temporal_consistency", "text_alignment", "dynamic_degree", "object_motion", "flicker")
WATCHED = ("frame_accuracy", "win_gap", "lose_gap")


def results(project: Project, runs: Sequence[Run]) -> dict[str, dict[str, object]]:
    """Differences from the base by arm and metric, and the last evaluation of every run."""
    arms: dict[str, list[Run]] = {}
    for run in runs:
        arms.setdefault(run.arm, []).append(run)
    base = read_measured(project, "base")
    levels = {m.key: estimate_row(base.report.estimates[m.key]) for m in METRICS}
    report: dict[str, dict[str, object]] = {"base": dict(levels), "arms": {}}
    for arm, of_arm in arms.items():
        row: dict[str, object] = {"seeds": [run.seed for run in of_arm]}
        of_seed = {run.seed: read_measured(project, run.name) for run in of_arm}
        for metric in METRICS:
            tuned = {number: by_prompt(measured, metric.key) for number, measured in of_seed.items()}
            own = {(number, prompt): value for number, values in tuned.items() for prompt, value in values.items()}
            like = beside_every_seed(by_prompt(base, metric.key), tuned)
            difference = two_way_difference(like, own, seed=0)
            row[metric.key] = None if difference is None else estimate_row(difference.estimate)
        row["training"] = [training(project.run(run.name)) for run in of_arm]
        report["arms"][arm] = row
    return report


def by_prompt(measured: Measured, metric: str) -> dict[str, float | None]:
    """The mean of a metric over a prompt's clips; None where a clip has no value."""
    values: dict[str, list[float | None]] = {}
    for (prompt, _), value in measured.values(metric).items():
        values.setdefault(prompt, []).append(value)
    return {p: None if None in own else fsum(v for v in own if v is not None) / len(own) for p, own in values.items()}


def estimate_row(estimate: object) -> dict[str, object] | None:
    """An estimate as JSON."""
    if estimate is None:
        return None
    return {key: getattr(estimate, key) for key in ("value", "low", "high", "n", "num_excluded", "method", "seed")}


def training(folder: Path) -> dict[str, object]:
    """How a run ended: its summary, and its evaluations of the validation pairs."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    kept = ("step", "loss", *WATCHED)
    evaluations = [{key: row.get(key) for key in kept} for row in read_metrics(folder, "validation")]
    return {"steps": summary["steps"], "selected_step": summary["selected_step"], "evaluations": evaluations}


def main() -> None:
    """Prints the table of a study as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    print_table(json.loads((arguments.out / "results.json").read_text(encoding="utf-8")))


def print_table(report: dict[str, dict[str, object]]) -> None:
    """The differences of every arm, with their intervals."""
    print("| arm | seeds | " + " | ".join(name.replace("_", " ") for name in SHOWN) + " |")
    print("|---" * (len(SHOWN) + 2) + "|")
    level = [f"{report['base'][name]['value']:.4f}" for name in SHOWN]
    print("| base (level) | | " + " | ".join(level) + " |")
    for arm, row in report["arms"].items():
        cells = [f"{c['value']:+.4f} ({c['low']:+.4f} to {c['high']:+.4f})" for c in (row[name] for name in SHOWN)]
        print(f"| {arm} | {len(row['seeds'])} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
