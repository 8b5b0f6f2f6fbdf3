"""What the study found: levels, each arm less the pre-trained model, arms against each other, as JSON and Markdown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from continuity import FAR, JOIN, MEANINGS, NEAR, continuity
from of_headline import by_prompt, cell, difference_of, difference_row, estimate_row, made
from settings import STAGE
from steps import BASE, CEILING, UNTRAINED, header_of, model_of, scores_given, training_of

from densedpo.adapters import catalogue
from densedpo.core.config import dump_toml
from densedpo.core.files import write_atomic
from densedpo.measure.records import read_measured
from densedpo.measure.score import METRICS
from densedpo.metrics.statistics import beside_every_seed, cluster_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from of_headline import Run
    from pydantic import JsonValue
    from settings import Study

    from densedpo.core.workspace import Project

Row = dict[str, "JsonValue"]
ByPrompt = dict[str, "float | None"]
ByMetric = dict[str, ByPrompt]

# the person knows these three in their mean; motion stands beside them in every row
SEEN: Final = ("visual_quality", "temporal_consistency", "text_alignment", "dynamic_degree")
UNSEEN: Final = ("object_motion", "static_share", "sharpness", "flicker")
CONTINUED: Final = (NEAR, FAR, JOIN)
_SHOWN: Final = (
    ("What the person judges by, and motion", SEEN),
    ("What no score saw", UNSEEN),
    ("How the given frame is continued", CONTINUED),
)
_LEVELS: Final = {
    UNTRAINED: "before stage 1 (level)",
    BASE: "stage 1: the pre-trained model (level)",
    CEILING: "real clips through the autoencoder (level)",
}


def values_of(project: Project, report: str) -> ByMetric:
    """Every metric of a report by prompt, those of continuity among them."""
    measured = read_measured(project, report)
    return {metric.key: by_prompt(measured, metric.key) for metric in METRICS} | continuity(project, report)


def collect(project: Project, study: Study, runs: Sequence[Run], *, quick: bool) -> Row:
    """Everything found so far, as results.json holds it.

    Args:
        runs: the ones that are measured.
    """
    levels = {name: values_of(project, name) for name in _LEVELS}
    arms: dict[str, dict[str, dict[tuple[int, str], float | None]]] = {}
    for run in runs:
        for metric, values in values_of(project, run.name).items():
            own = arms.setdefault(run.arm, {}).setdefault(metric, {})
            own.update({(run.seed, prompt): value for prompt, value in values.items()})
    return {
        "quick": quick,
        "model": catalogue.fingerprint(model_of(project)),
        "made": made(),
        "config": study.model_dump(mode="json"),
        "scores": {str(score): count for score, count in scores_given(project).items()},
        "pairs": {choose: header_of(project, choose) for choose in study.chosen()},
        "levels": {name: _levels(values) for name, values in levels.items()},
        "stage 1 less before": _stage_one(levels),
        "against_base": {arm: _against(own, levels[BASE]) for arm, own in arms.items()},
        "contrasts": [
            {
                "arm": arm,
                "over": over,
                "metrics": {key: difference_row(difference_of(arms[arm][key], arms[over][key])) for key in arms[arm]},
            }
            for arm, over in study.contrasts
            if {arm, over} <= arms.keys()
        ],
        "runs": [training_of(project, name) for name in (f"{STAGE}-1", *(run.name for run in runs))],
    }


def _levels(values: ByMetric) -> Row:
    return {
        key: estimate_row(cluster_mean({(prompt, 0): value for prompt, value in own.items()}, seed=0))
        for key, own in values.items()
    }


def _stage_one(levels: Mapping[str, ByMetric]) -> Row:
    """Stage 1 less the copy before it, over prompts: it was trained once."""
    before, after = levels[UNTRAINED], levels[BASE]
    return {
        key: difference_row(difference_of(beside_every_seed(after[key], [0]), beside_every_seed(before[key], [0])))
        for key in after
    }


def _against(own: Mapping[str, Mapping[tuple[int, str], float | None]], base: ByMetric) -> Row:
    seeds = sorted({seed for values in own.values() for seed, _ in values})
    return {
        key: difference_row(difference_of(values, beside_every_seed(base[key], seeds))) for key, values in own.items()
    }


def write(report: Row, study: Study, folder: Path) -> None:
    """results.json, study.toml and table.md."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "results.json", json.dumps(report, indent=1) + "\n")
    write_atomic(folder / "study.toml", dump_toml(study))
    write_atomic(folder / "table.md", table(report))


def table(report: Row) -> str:
    """The results as Markdown."""
    config, num_seeds = report["config"], len(report["config"]["seeds"])
    lines = ["# HuViDPO at small scale", ""]
    if report["quick"]:
        lines += ["**These sizes check the machinery. The numbers say nothing about the method.**", ""]
    said = (
        f"Stage 2 less stage 1 on the same {config['measure']['num_prompts']} held-out prompts, frames and noise; "
        f"95 % intervals over {num_seeds} training seeds and prompts. A star: the interval excludes 0 and four of five "
        "seeds agree. Stage 1 less before is over prompts alone: it was trained once."
    )
    lines += [said, ""]
    for title, shown in _SHOWN:
        lines += [f"## {title}", "", "| | " + " | ".join(key.replace("_", " ") for key in shown) + " |"]
        lines += ["|---" * (len(shown) + 1) + "|"]
        lines += [_line(said, report["levels"][name], shown, sign="") for name, said in _LEVELS.items()]
        lines += [_line("stage 1 less before", report["stage 1 less before"], shown, sign="+")]
        lines += [_line(arm, row, shown, sign="+") for arm, row in report["against_base"].items()]
        lines += [
            _line(f"{row['arm']} less {row['over']}", row["metrics"], shown, sign="+") for row in report["contrasts"]
        ]
        lines += [""]
    lines += [f"- {key.replace('_', ' ')}: {said}" for key, said in MEANINGS.items()]
    scores = ", ".join(f"{score}: {count}" for score, count in report["scores"].items())
    lines += [f"- scores given, of clips: {scores}"]
    for choose, row in report["pairs"].items():
        ties = "unknown" if row["tie_share"] is None else f"{row['tie_share']:.0%}"
        lines += [f"- pairs by {choose.replace('_', ' ')}: {row['num_pairs']}, ties {ties}"]
    return "\n".join([*lines, ""])


def _line(name: str, row: Row, shown: Sequence[str], *, sign: str) -> str:
    return f"| {name} | " + " | ".join(cell(row.get(key), sign=sign) for key in shown) + " |"
