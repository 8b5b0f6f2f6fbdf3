"""How a run is doing, in a line of plain words per evaluation; what is wrong is said by the alarms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from densedpo.learn.watch.alarms import TOO_EASY, told_apart

if TYPE_CHECKING:
    from densedpo.learn.watch.track import Row


def health_line(row: Row) -> str:
    """One evaluation in words; an empty line at step 0, where policy and reference are one.

    Args:
        row: of the validation pairs, as `Evaluation.run` gives it.
    """
    if row["step"] == 0:
        return ""
    parts = [_ranked(row), _winner(row), _loser(row), _drift(row)]
    return f"step {row['step']}, validation pairs: {'; '.join(part for part in parts if part)}"


def _ranked(row: Row) -> str:
    accuracy, error = _number(row, "frame_accuracy"), _number(row, "frame_accuracy_se")
    if accuracy is None:
        return ""
    spread = "" if error is None else f" (+- {100 * error:.0f})"
    if row.get("real_winner_share") and (told_apart(row) or 0.0) >= TOO_EASY:
        return f"{100 * accuracy:.0f} %{spread} of frames ranked as labelled: real clips are told from their copies"
    verdict = "" if error is None or abs(accuracy - 0.5) > 2 * error else ", not told from chance"
    return f"{100 * accuracy:.0f} %{spread} of frames ranked as labelled{verdict}"


def _winner(row: Row) -> str:
    gap = _number(row, "win_gap")
    if gap is None or gap == 0:
        return ""
    return f"winner {'more' if gap < 0 else 'less'} likely (error {gap:+.1e})"


def _loser(row: Row) -> str:
    share = _number(row, "loser_dominant")
    return "" if share is None else f"{100 * share:.0f} % of what is ranked right only because the loser got worse"


def _drift(row: Row) -> str:
    drift = _number(row, "drift")
    return "" if drift is None else f"drift {drift:.1e}"


def _number(row: Row, name: str) -> float | None:
    value = row.get(name)
    return float(value) if isinstance(value, int | float) else None
