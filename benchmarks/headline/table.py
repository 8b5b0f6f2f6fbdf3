"""What a study found: levels, differences over training seeds and prompts, and what became of its claims.

    python benchmarks/headline/table.py benchmarks/headline/results/headline

prints the table of results that are there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from claims import MIN_SEEDS, Values, Verdict, difference_of, direction, judged
from making import BASE, CEILING, ceiling_config
from study import report_name

from densedpo.core.records import to_row
from densedpo.learn.watch.track import read_metrics
from densedpo.measure.records import Measured, read_measured
from densedpo.measure.score import DIVERSITY as DIVERSITY_KEY
from densedpo.measure.score import METRICS
from densedpo.metrics.statistics import Estimate, beside_every_seed, paired_difference

if TYPE_CHECKING:
    from command import Run
    from pydantic import JsonValue
    from study import Study

    from densedpo.core.workspace import Project
    from densedpo.metrics.statistics import TwoWayDifference

# the annotator knows what these measure; motion stands beside quality in every row
SEEN: Final = ("visual_quality", "temporal_consistency", "text_alignment", "dynamic_degree")
# no label ever saw these
UNSEEN: Final = ("object_motion", "residual_motion", "sharpness", "flicker", "diversity")
_WATCHED: Final = ("step", "loss", "frame_accuracy", "win_gap", "lose_gap", "tie_margin", "drift")

Row = dict[str, "JsonValue"]
ByPrompt = dict[str, "float | None"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Every measured value of a study: by metric and prompt of the base, by metric, seed and prompt of the arms."""

    base: Mapping[str, ByPrompt]
    arms: Mapping[str, Mapping[str, Values]]

    def beside(self, arm: str, metric: str) -> Values:
        """The base's values beside every training seed of an arm."""
        seeds = {number for number, _ in self.arms[arm][metric]}
        return beside_every_seed(self.base[metric], sorted(seeds))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Keys of what was computed for the base."""
        return tuple(m.key for m in METRICS if any(value is not None for value in self.base[m.key].values()))


def read_scores(project: Project, study: Study, runs: Sequence[Run]) -> Scores:
    """The scores of the base and of finished runs; diversity from the reports that hold several clips of a prompt."""
    arms: dict[str, dict[str, dict[tuple[int, str], float | None]]] = {}
    for run in runs:
        for metric, values in _by_metric(project, study, run.name).items():
            own = arms.setdefault(run.arm, {}).setdefault(metric, {})
            own.update({(run.seed, prompt): value for prompt, value in values.items()})
    return Scores(base=_by_metric(project, study, BASE), arms=arms)


def _by_metric(project: Project, study: Study, of: str) -> dict[str, ByPrompt]:
    measured = read_measured(project, report_name(of, study.measure))
    found = {metric.key: by_prompt(measured, metric.key) for metric in METRICS}
    if study.diversity is not None:
        several = read_measured(project, report_name(of, study.diversity))
        found[DIVERSITY_KEY] = by_prompt(several, DIVERSITY_KEY)
    return found


def by_prompt(measured: Measured, metric: str) -> ByPrompt:
    """The mean of a metric over a prompt's clips; None where a clip has no value."""
    values: dict[str, list[float | None]] = {}
    for (prompt, _), value in measured.values(metric).items():
        values.setdefault(prompt, []).append(value)
    return {p: None if None in own else fsum(v for v in own if v is not None) / len(own) for p, own in values.items()}


def levels(project: Project, study: Study) -> dict[str, dict[str, Row | None]]:
    """The base's own numbers, and the ceiling's with its distance from the base's."""
    base = read_measured(project, report_name(BASE, study.measure))
    rows = {"base": {metric.key: estimate_row(base.report.estimates[metric.key]) for metric in METRICS}}
    if study.diversity is not None:
        several = read_measured(project, report_name(BASE, study.diversity))
        rows["base"][DIVERSITY_KEY] = estimate_row(several.report.estimates[DIVERSITY_KEY])
    if study.ceiling:
        ceiling = read_measured(project, report_name(CEILING, ceiling_config(study)))
        rows["ceiling"] = {metric.key: estimate_row(ceiling.report.estimates[metric.key]) for metric in METRICS}
        both = {m.key: [_keyed(by_prompt(each, m.key)) for each in (base, ceiling)] for m in METRICS}
        apart = {key: paired_difference(one, other, seed=0) for key, (one, other) in both.items()}
        rows["ceiling above base"] = {key: estimate_row(value) for key, value in apart.items()}
    return rows


def against_base(scores: Scores) -> dict[str, dict[str, Row | None]]:
    """Every arm less the base, by metric."""
    return {
        arm: {m: difference_row(difference_of(scores.arms[arm][m], scores.beside(arm, m))) for m in scores.metrics}
        for arm in scores.arms
    }


def contrasts(study: Study, scores: Scores) -> list[Row]:
    """The arms that the study compares with each other, by metric."""
    return [
        {
            "arm": arm,
            "over": over,
            "metrics": {
                m: difference_row(difference_of(scores.arms[arm][m], scores.arms[over][m])) for m in scores.metrics
            },
        }
        for arm, over in study.contrasts
        if {arm, over} <= scores.arms.keys()
    ]


def claims(study: Study, scores: Scores) -> list[Row]:
    """What became of each declared claim whose arms are there."""
    rows: list[Row] = []
    for claim in study.claims:
        needed = {claim.arm} if claim.over is None else {claim.arm, claim.over}
        if not needed <= scores.arms.keys() or claim.metric not in scores.metrics:
            verdict = Verdict(answer="cannot be tested", why="not measured yet")
        else:
            over = scores.arms[claim.over][claim.metric] if claim.over is not None else None
            beside = scores.beside(claim.arm, claim.metric)
            verdict = judged(claim, scores.arms[claim.arm][claim.metric], beside, over, study.matching)
        rows.append({**claim.model_dump(mode="json"), **to_row(verdict)})
    return rows


def training(project: Project, run: Run) -> Row:
    """How a run ended: its summary, and its evaluations of the validation pairs."""
    folder = project.run(run.name)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    evaluations = [{key: _short(row.get(key)) for key in _WATCHED} for row in read_metrics(folder, "validation")]
    kept = ("steps", "selected_step", "train_pairs", "validation_pairs", "too_tied_pairs")
    return {"arm": run.arm, "seed": run.seed, **{key: summary[key] for key in kept}, "evaluations": evaluations}


def difference_row(difference: TwoWayDifference | None) -> Row | None:
    """A difference as it stands in results.json: the interval to quote, each seed's own, and which way it goes."""
    if difference is None:
        return None
    row = estimate_row(difference.estimate)
    by_seed = {str(number): _short(value) for number, value in difference.by_seed.items()}
    return {**(row or {}), "by_seed": by_seed, "seeds_above": difference.num_seeds_above, "goes": direction(difference)}


def estimate_row(estimate: Estimate | None) -> Row | None:
    """An estimate as JSON, to six digits."""
    if estimate is None:
        return None
    ends = {"low": None if estimate.low is None else _short(estimate.low)}
    ends["high"] = None if estimate.high is None else _short(estimate.high)
    return {**to_row(estimate), "value": _short(estimate.value), **ends}


def _short(value: JsonValue) -> JsonValue:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _keyed(values: ByPrompt) -> dict[tuple[str, int], float | None]:
    return {(prompt, 0): value for prompt, value in values.items()}


def table(report: Row) -> str:
    """The results as Markdown: levels, differences, claims, and whether labels follow motion."""
    return "\n".join([*_heading(report), *_differences(report), *_contrasts(report), *_claims(report), *_bias(report)])


def _heading(report: Row) -> list[str]:
    lines = [f"# {report['study']}", ""]
    if report["reduced"]:
        left = ", ".join(f"{key} = {value}" for key, value in report["reduced"].items())
        lines += [f"**Reduced ({left}): less than the study says.**", ""]
    if report["reduced"].get("quick"):
        lines += ["**These sizes check the machinery. The numbers say nothing about the methods.**", ""]
    if report["declared_late"]:
        lines += ["**What is claimed was changed after the study had begun: read the claims as exploratory.**", ""]
    num_seeds = min((_num_seeds(row) for row in report["against_base"].values()), default=0)
    if num_seeds < MIN_SEEDS:
        of = f"Training seeds: {num_seeds} of {len(report['config']['seeds'])}"
        lines += [
            f"{of}. No win can be claimed from fewer than {MIN_SEEDS}: stars and answers are what is seen so far.",
            "",
        ]
    said = (
        "Differences from the base model on the same prompts and noise, 95 % intervals over training seeds and prompts "
        f"(n = {report['config']['measure']['num_prompts']} prompts). A star: the interval excludes 0 and four of five "
        "seeds agree."
    )
    return [*lines, said, ""]


def _differences(report: Row) -> list[str]:
    lines = []
    for title, shown in (
        ("The oracle's scores: labels follow the mean of the first three", SEEN),
        ("What no label saw", UNSEEN),
    ):
        lines += [f"## {title}", "", "| | seeds | " + " | ".join(name.replace("_", " ") for name in shown) + " |"]
        lines += ["|---" * (len(shown) + 2) + "|"]
        for name in ("base", "ceiling"):
            if name in report["levels"]:
                cells = [cell(report["levels"][name].get(metric)) for metric in shown]
                lines += [f"| {_LEVELS[name]} | | " + " | ".join(cells) + " |"]
        for arm, row in report["against_base"].items():
            cells = [cell(row.get(metric), sign="+") for metric in shown]
            lines += [f"| {arm} | {_num_seeds(row)} | " + " | ".join(cells) + " |"]
        lines += [""]
    return lines


_LEVELS: Final = {"base": "pre-trained (level)", "ceiling": "autoencoder's ceiling (level)"}


def _num_seeds(row: Row) -> int:
    return max((len(cell["by_seed"]) for cell in row.values() if cell is not None), default=0)


def _contrasts(report: Row) -> list[str]:
    if not report["contrasts"]:
        return []
    shown = (*SEEN, "object_motion")
    lines = ["## Between arms", "", "| | " + " | ".join(name.replace("_", " ") for name in shown) + " |"]
    lines += ["|---" * (len(shown) + 1) + "|"]
    for row in report["contrasts"]:
        cells = [cell(row["metrics"].get(metric), sign="+") for metric in shown]
        lines += [f"| {row['arm']} less {row['over']} | " + " | ".join(cells) + " |"]
    return [*lines, ""]


def _claims(report: Row) -> list[str]:
    if not report["claims"]:
        return []
    lines = ["## Claims", "", "| claim | | by |", "|---|---|---|"]
    for row in report["claims"]:
        over = f" {row['over']}" if row["over"] else ""
        words = {"gain": "gains over", "loss": "loses against", "keeps": "keeps the level of", "matches": "matches"}
        said = f"{row['arm']} {words[row['expect']]}{over or ' the base'} in {row['metric'].replace('_', ' ')}"
        lines += [f"| {said} | {row['answer']} | {row['why']} |"]
    return [*lines, ""]


def _bias(report: Row) -> list[str]:
    if not report["motion_bias"]:
        return []
    lines = ["## Do labels follow motion?", "", "| | labels | pairs | | alarm |", "|---|---|---|---|---|"]
    for row in report["motion_bias"]:
        value = cell(row["estimate"]) if row["estimate"] is not None else row["reason"]
        alarm = "yes" if row["alarm"] else "no"
        lines += [f"| {row['name']}: {row['meaning']} | {row['of']} | {row['pairs']} | {value} | {alarm} |"]
    return [*lines, ""]


def cell(row: Row | None, *, sign: str = "") -> str:
    """A number with its interval, starred where it goes one way.

    Args:
        sign: "+" for a difference.
    """
    if row is None:
        return "not computed"
    form = f"{sign}.4f"
    interval = "" if row["low"] is None else f" ({row['low']:{form}} to {row['high']:{form}})"
    return f"{row['value']:{form}}{interval}{' *' if row.get('goes', 'not shown') != 'not shown' else ''}"


def main() -> None:
    """Prints the table of results that are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="a folder with results.json")
    arguments = parser.parse_args()
    print(table(json.loads((arguments.results / "results.json").read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
