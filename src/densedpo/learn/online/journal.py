"""The rows of an online run beside those of its steps: what rounds and looks came to."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from densedpo.learn.watch.track import METRICS_FILE, MetricsLog

if TYPE_CHECKING:
    from pydantic import JsonValue

    from densedpo.learn.online.round import RoundRecord

_log = logging.getLogger("densedpo")


def log_once(folder: Path, row: dict[str, JsonValue], *, after_step: int) -> None:
    """A row in metrics.jsonl and TensorBoard, unless an earlier call wrote it.

    Args:
        row: has `split` and `round`, which make it that row.
        after_step: the last step of the run so far; rows beyond it are of a run that was cut, and go.
    """
    path = folder / METRICS_FILE
    log = MetricsLog(folder, after_step=after_step, evaluated_step=None)
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        known = {(before.get("split"), before.get("round")) for before in map(json.loads, lines)}
        if (row["split"], row["round"]) not in known:
            log.write(row)
    finally:
        log.close()


def report_round(folder: Path, record: RoundRecord, *, after_step: int) -> None:
    """Says and logs what a round came to."""
    row: dict[str, JsonValue] = {"step": record.last_step, "split": "round", "round": record.round}
    row |= {"num_pairs": record.num_pairs, "num_tied": record.num_tied}
    row |= {"mean_reward": record.mean_reward, "mean_gap": record.mean_gap}
    log_once(folder, row, after_step=after_step)
    reward = "none" if record.mean_reward is None else f"{record.mean_reward:.4g}"
    _log.info(
        "round %d: %d clips, mean reward %s, %d pairs, %d ties",
        record.round, record.num_rollouts, reward, record.num_pairs, record.num_tied,
    )  # fmt: skip
