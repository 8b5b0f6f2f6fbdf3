"""Writes what a study found as small files that can be kept beside the code: JSON, CSV, Markdown and SVG."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Final

from bias import motion_bias
from command import made
from efficiency import efficiency, efficiency_page
from figures import draw_figures
from table import against_base, claims, contrasts, levels, read_scores, table, training

from densedpo.adapters import catalogue
from densedpo.core.config import dump_toml
from densedpo.core.workspace import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from command import Run
    from reduction import Reduction
    from study import Study
    from table import Row

    from densedpo.core.workspace import Project

EFFICIENCY_FILE: Final = "label_efficiency.html"


def declared_late(project: Project, study: Study, *, name: str) -> bool:
    """Whether the claims are others than when this study was first run in this project; the first time keeps them."""
    said = study.model_dump_json(include={"claims", "matching", "contrasts"}, indent=1) + "\n"
    path = project.root / "declared" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        write_atomic(path, said)
    return path.read_text(encoding="utf-8") != said


def collect_results(
    project: Project, study: Study, runs: Sequence[Run], *, name: str, by: Reduction, annotators: Mapping[str, str]
) -> Row:
    """Everything that a study found so far, as results.json holds it.

    Args:
        by: what was left out of the study.
        annotators: of each set of labels.
    """
    scores = read_scores(project, study, runs)
    return {
        "study": name,
        "reduced": {} if by.is_none else by.model_dump(mode="json", exclude_defaults=True),
        "declared_late": declared_late(project, study, name=name),
        "model": catalogue.fingerprint(study.model),
        "made": made(),
        "config": study.model_dump(mode="json"),
        "levels": levels(project, study),
        "against_base": against_base(scores),
        "contrasts": contrasts(study, scores),
        "efficiency": efficiency(study, scores),
        "claims": claims(study, scores),
        "motion_bias": motion_bias(project, study, annotators),
        "labels": {label: _header(project, label) for label in study.used_labels()},
        "runs": [training(project, run) for run in runs],
    }


def write_results(report: Row, study: Study, folder: Path) -> None:
    """results.json, study.toml, differences.csv, by_seed.csv, table.md, the figures and the page of what labels buy."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "results.json", json.dumps(report, indent=1) + "\n")
    write_atomic(folder / "study.toml", dump_toml(study))
    write_atomic(folder / "table.md", table(report))
    rows = list(_rows(report))
    head = ("arm", "over", "metric", "value", "low", "high", "n", "num_excluded", "seeds", "seeds_above", "goes")
    write_atomic(folder / "differences.csv", _csv(head, rows))
    seeds = [
        {**row, "seed": seed, "value": value}
        for row in rows
        for seed, value in sorted(row["by_seed"].items(), key=_order)
    ]
    write_atomic(folder / "by_seed.csv", _csv(("arm", "over", "metric", "seed", "value"), seeds))
    draw_figures(report, folder)
    if report.get("efficiency") is not None:  # results from before there was one have no such row
        write_atomic(folder / EFFICIENCY_FILE, efficiency_page(report))


def _rows(report: Row) -> Iterator[Row]:
    against = [(arm, "base", metrics) for arm, metrics in report["against_base"].items()]
    between = [(row["arm"], row["over"], row["metrics"]) for row in report["contrasts"]]
    for arm, over, metrics in [*against, *between]:
        for metric, cell in metrics.items():
            if cell is not None:
                yield {"arm": arm, "over": over, "metric": metric, "seeds": len(cell["by_seed"]), **cell}


def _csv(head: Sequence[str], rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, head, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _order(item: tuple[str, object]) -> int:
    return int(item[0])


def _header(project: Project, label: str) -> Row:
    with project.preferences(label).open(encoding="utf-8") as file:
        header: Row = json.loads(file.readline())["header"]
    return {key: header[key] for key in ("pairs", "num_pairs", "num_segments", "tie_share", "both_signs_share")}
