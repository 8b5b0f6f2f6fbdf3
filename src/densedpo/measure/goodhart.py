"""Goodhart's alarm for the compared runs: what training was steered by rose, and what it must not cost fell.

The proxy is what the training objective ranks as labelled among validation pairs, above the one half of the untrained
model. The guards are the paired differences of the comparison.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from scipy import stats

from densedpo.core.errors import BadInput
from densedpo.core.workspace import Project
from densedpo.measure.charts.training import read_rows
from densedpo.measure.differences import Difference
from densedpo.measure.numbers import interval_text, number, value_text
from densedpo.measure.records import Measured
from densedpo.measure.score import METRICS
from densedpo.metrics.alarms import Alarm, CheckpointGains, goodhart_alarm
from densedpo.metrics.statistics import LEVEL, Estimate

CHANCE: Final = 0.5
GUARDS: Final = ("object_motion", "dynamic_degree", "text_alignment", "diversity")


def goodhart(
    project: Project, base: Measured, others: Sequence[Measured], differences: Sequence[Difference]
) -> tuple[Alarm, ...]:
    """The alarms of every compared model that a run of this project has trained on pairs.

    Raises:
        BadInput: a file of a run is damaged.
    """
    found = []
    for other in others:
        run = other.report.subject.run
        if run is None:
            continue
        guards = _guards([d for d in differences if (d.base, d.other) == (base.name, other.name)])
        proxy = proxy_gain(project.run(run))
        alarm = goodhart_alarm(CheckpointGains(checkpoint=other.name, proxy=proxy, guards=guards))
        if alarm is not None:
            found.append(alarm)
    return tuple(found)


def alarm_text(alarm: Alarm, base: str) -> str:
    """What an alarm says of the model that it is about, in one sentence that begins after its name."""
    losses = " and ".join(
        f"{name} {'rose' if guard.value > 0 else 'fell'} by {number(abs(guard.value))} "
        f"({interval_text(guard, signed=True)})"
        for name, guard in alarm.worse.items()
    )
    return (
        f"ranks validation labels right more often than chance, by {value_text(alarm.proxy, signed=True)} "
        f"({interval_text(alarm.proxy, signed=True)}, n = {alarm.proxy.n} pairs), while against {base} {losses}: "
        "training may be paid for what the labels were not meant to reward."
    )


def proxy_gain(run: Path) -> Estimate | None:
    """How much more of the validation labels a run's selected adapter ranks as labelled than chance.

    Returns:
        None where the run does not say: it learned without pairs, or too few, or another tool made it.

    Raises:
        BadInput: a file of the run is damaged.
    """
    metrics, config = run / "metrics.jsonl", run / "config.toml"
    if not metrics.is_file() or not config.is_file():
        return None
    rows = [row for row in read_rows(metrics) if row.get("split") == "validation" and "frame_accuracy" in row]
    selected = _selected_step(run / "summary.json")
    rows = [row for row in rows if selected is None or row.get("step") == selected]
    if not rows:
        return None
    accuracy, error = rows[-1].get("frame_accuracy"), rows[-1].get("frame_accuracy_se")
    num_items, num_draws = rows[-1].get("num_items"), _eval_draws(config)
    if not (isinstance(accuracy, float) and isinstance(error, float) and isinstance(num_items, int)) or not num_draws:
        return None
    num_pairs = num_items // num_draws
    if num_pairs < 2:
        return None
    half = float(stats.t.ppf((1 + LEVEL) / 2, df=num_pairs - 1)) * error
    gain = accuracy - CHANCE
    return Estimate(
        value=gain,
        low=gain - half,
        high=gain + half,
        n=num_pairs,
        num_values=num_items,
        num_excluded=0,
        method="validation accuracy less one half; Student's t over pairs",
        seed=0,
    )


def _guards(differences: Sequence[Difference]) -> dict[str, Estimate | None]:
    labels = {metric.key: metric.label.lower() for metric in METRICS}
    return {labels[d.metric]: d.estimate for d in differences if d.metric in GUARDS}


def _selected_step(path: Path) -> int | None:
    row = _json(path)
    step = row.get("selected_step")
    return step if isinstance(step, int) else None


def _eval_draws(path: Path) -> int:
    try:
        draws = tomllib.loads(path.read_text(encoding="utf-8")).get("eval_draws")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not a TOML file: {error}") from None
    return draws if isinstance(draws, int) else 0


def _json(path: Path) -> dict[str, object]:
    if not path.is_file():
        return {}
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not JSON ({error})") from None
    return row if isinstance(row, dict) else {}
