"""metrics.jsonl and TensorBoard: loss, accuracy, margin and gaps, also by bucket of t, on training and validation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

from densedpo.core.files import append_jsonl, write_atomic

if TYPE_CHECKING:
    from pydantic import JsonValue
    from torch import Tensor

    from densedpo.learn.step import StepResult
    from densedpo.learn.task.protocol import Outcome

    Row = dict[str, JsonValue]

T_BUCKETS: Final = ((0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0))
METRICS_FILE: Final = "metrics.jsonl"


def summarise(outcomes: Sequence[Outcome]) -> Row:
    """The weighted means over all items, and the same for each bucket of t that holds any weight."""
    row = _means(outcomes, (-math.inf, math.inf))
    buckets: list[JsonValue] = []
    for low, high in T_BUCKETS:
        inside = _means(outcomes, (low, high if high < 1 else math.inf))
        if inside["weight"]:
            buckets.append({"t_min": low, "t_max": high, **inside})
    row["by_t"] = buckets
    return row


def train_row(step: int, result: StepResult, *, seconds: float) -> Row:
    """The row of a training step."""
    row: Row = {"step": step, "split": "train"}
    if result.outcomes:
        row |= summarise(result.outcomes)
    row |= {
        "loss": _number(result.loss) if result.has_signal else None,
        "weight": result.weight,
        "learning_rate": result.learning_rate,
        "grad_norm": _number(result.grad_norm),
        "updated": result.updated,
        "seconds": round(seconds, 4),
    }
    return row


class Log(Protocol):
    """Where a run's rows go."""

    def write(self, row: Row) -> None:
        """One row."""

    def close(self) -> None:
        """No row follows."""


class _NoLog:
    """Of a process beside the first, which writes for all."""

    def write(self, row: Row) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def open_log(folder: Path, *, after_step: int, evaluated_step: int | None, writes: bool) -> Log:
    """The run's log, or one that writes nothing."""
    return MetricsLog(folder, after_step=after_step, evaluated_step=evaluated_step) if writes else _NoLog()


class MetricsLog:
    """Appends rows to metrics.jsonl, each safe on disk before the next step, and mirrors them to TensorBoard."""

    def __init__(self, folder: Path, *, after_step: int, evaluated_step: int | None) -> None:
        """Opens the log to go on after a step: what a run that was cut wrote beyond its checkpoint is dropped.

        Args:
            evaluated_step: the last step whose evaluation the checkpoint knows of.
        """
        from torch.utils.tensorboard import SummaryWriter

        self._path = folder / METRICS_FILE
        evaluated = -1 if evaluated_step is None else evaluated_step
        keep_rows(self._path, lambda row: step_of(row) <= (evaluated if row["split"] == "validation" else after_step))
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=after_step + 1)

    def write(self, row: Row) -> None:
        """One row; its numbers go to TensorBoard as `split/name`."""
        append_jsonl(self._path, row)
        step, split = row["step"], row["split"]
        for name, value in row.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and name != "step":
                self._board.add_scalar(f"{split}/{name}", value, step)
        for bucket in (*_buckets(row, "by_t"), *_buckets(row, "drift_by_t")):
            for name in ("accuracy", "margin", "win_gap", "lose_gap", "drift"):
                value = bucket.get(name)
                if isinstance(value, float):
                    self._board.add_scalar(f"{split}_by_t/{name}/{bucket['t_min']}-{bucket['t_max']}", value, step)

    def close(self) -> None:
        """Flushes TensorBoard's file."""
        self._board.close()


def read_metrics(folder: Path, split: Literal["train", "validation", "guard"]) -> list[Row]:
    """The rows of one split of a run, in order."""
    lines = (folder / METRICS_FILE).read_text(encoding="utf-8").splitlines()
    rows: list[Row] = [json.loads(line) for line in lines]
    return [row for row in rows if row["split"] == split]


def _means(outcomes: Sequence[Outcome], t_range: tuple[float, float]) -> Row:
    low, high = t_range
    weights, losses, metrics = 0.0, 0.0, dict.fromkeys(("accuracy", "margin", "win_gap", "lose_gap", "loser"), 0.0)
    has_metrics, num_items, ranked = False, 0, 0.0
    for outcome in outcomes:
        inside = (outcome.t >= low) & (outcome.t < high)
        weight = outcome.weight * inside
        num_items += int((weight > 0).sum())
        weights += float(weight.sum())
        losses += float((outcome.loss * inside).sum())
        if outcome.metrics is not None:
            has_metrics = True
            # ties may carry loss, but have no winner to be ranked
            rank_weight = outcome.metrics.weight.cpu() * inside
            ranked += float(rank_weight.sum())
            for name, value in _named(outcome).items():
                metrics[name] += float((rank_weight * value.cpu()).sum())
    row: Row = {"num_items": num_items, "weight": weights, "loss": _number(losses / (weights or 1.0))}
    if has_metrics:
        for name in ("accuracy", "margin", "win_gap", "lose_gap"):
            row[name] = _number(metrics[name] / ranked) if ranked else None
        # a share of what is ranked as labelled, not of everything: else a better accuracy would raise it
        row["loser_dominant"] = _number(metrics["loser"] / metrics["accuracy"]) if metrics["accuracy"] else None
    return row


def _named(outcome: Outcome) -> dict[str, Tensor]:
    metrics = outcome.metrics
    assert metrics is not None
    return {
        "accuracy": metrics.accuracy,
        "margin": metrics.margin,
        "win_gap": metrics.win_gap,
        "lose_gap": metrics.lose_gap,
        "loser": metrics.loser_dominant,
    }


def _buckets(row: Row, key: str) -> list[dict[str, JsonValue]]:
    buckets = row.get(key)
    return [bucket for bucket in buckets if isinstance(bucket, dict)] if isinstance(buckets, list) else []


def _number(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None


def keep_rows(path: Path, is_kept: Callable[[Row], bool]) -> None:
    """Drops the other rows of a file, and one without its line end, which was cut in mid-write."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_atomic(path, "".join(line for line in lines if line.endswith("\n") and is_kept(json.loads(line))))


def step_of(row: Row) -> int:
    """The step after which a row was written."""
    step = row["step"]
    assert isinstance(step, int)
    return step
