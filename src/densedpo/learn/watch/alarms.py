"""Signs that a run learns something other than the preference: one warning each, and a mark in run.json."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from densedpo.core.files import write_atomic
from densedpo.learn.course import RUN_FILE
from densedpo.learn.watch.track import step_of

if TYPE_CHECKING:
    from densedpo.learn.watch.track import Row

_log = logging.getLogger("densedpo")
TOO_EASY: Final = 0.98
# the paper saw shortcuts learned within 500 steps (DenseDPO, appendix C.4)
_EARLY_STEPS: Final = 500
_FITTED: Final = 0.95
_WINDOW: Final = 10
_RISES: Final = 2
# two gaps that move by chance and apart make a quarter, two that move together a half
_BY_LOSER: Final = 2 / 3
# a mean square of velocities whose own is of the order of 1: predictions have moved by a third of what they predict
_FAR: Final = 0.1
_WORSE: Final = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Alarm:
    """What was noticed, and after which step."""

    name: str
    step: int
    message: str


def find_alarms(train: Sequence[Row], validation: Sequence[Row]) -> list[Alarm]:
    """The alarms that the newest evaluation gives reason for.

    Args:
        train: all training rows so far, in order.
        validation: all evaluations so far, in order, the newest last.
    """
    return [
        *_too_easy(validation),
        *_shortcut(train, validation),
        *_unlearning(train, validation),
        *_by_loser(train, validation),
        *_runaway(train, validation),
    ]


def _runaway(train: Sequence[Row], validation: Sequence[Row]) -> Iterator[Alarm]:
    """The policy is far from the reference, or its loss is twice that of a policy that has learned nothing."""
    if not any("accuracy" in row for row in train[-1:]):
        return  # sft is not held to the reference
    newest, first = validation[-1], validation[0]
    drift, loss, before = newest.get("drift"), newest.get("loss"), first.get("loss")
    is_worse = isinstance(loss, float) and isinstance(before, float) and loss > _WORSE * before > 0
    if is_worse or (isinstance(drift, float) and drift > _FAR):
        yield _alarm(
            "runaway",
            newest,
            f"step {step_of(newest)}: the policy runs away from the reference (loss {_told(loss)}, {_told(before)} at "
            f"the start; its predictions have moved by {_told(drift)} in the mean square); lower learning_rate, or "
            "stop earlier",
        )


def _told(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "unknown"


def raise_alarms(folder: Path, alarms: Sequence[Alarm]) -> None:
    """Warns of each alarm that run.json does not know yet, and marks it there under `alarms`."""
    path = folder / RUN_FILE
    row = json.loads(path.read_text(encoding="utf-8"))
    known = row.setdefault("alarms", [])
    new = [alarm for alarm in alarms if alarm.name not in {entry["name"] for entry in known}]
    for alarm in new:
        _log.warning("%s", alarm.message)
        known.append(asdict(alarm))
    if new:
        write_atomic(path, json.dumps(row, indent=2) + "\n")


def told_apart(row: Row) -> float | None:
    """The share of validation labels that a run ranks right, None where an evaluation has none.

    By frames, as dense_dpo counts. Where winners are real clips also as the objective counts, the higher of the two: a
    shuffled copy has frames that stayed in place, so that its clip is told apart long before all of its frames are.
    """
    names = ("frame_accuracy", "accuracy") if row.get("real_winner_share") else ("frame_accuracy",)
    return max((value for name in names if isinstance(value := row.get(name), float)), default=None)


def _too_easy(validation: Sequence[Row]) -> Iterator[Alarm]:
    accuracy = told_apart(validation[-1])
    if accuracy is None or accuracy < TOO_EASY:
        return
    message = (
        f"step {step_of(validation[-1])}: validation accuracy is {accuracy:.3f}: the pairs may differ by a shortcut, "
        "not by quality; look at some of them before you trust this run"
    )
    if validation[-1].get("real_winner_share"):
        early = ", early" if step_of(validation[-1]) <= _EARLY_STEPS else ""
        message = (
            f"step {step_of(validation[-1])}: validation accuracy is {accuracy:.3f}{early}: these pairs are a real "
            "clip and its corrupted copy, and what the corruption leaves behind tells them apart without a look at "
            "quality; use weaker or partly regenerated copies or guided pairs, set winner_anchor and loser_safeguard, "
            "or stop here"
        )
    yield _alarm("too_easy", validation[-1], message)


def _shortcut(train: Sequence[Row], validation: Sequence[Row]) -> Iterator[Alarm]:
    """Training pairs are told apart, and validation pairs are not: their accuracy is within two errors of chance."""
    recent = [value for row in train[-_WINDOW:] if isinstance(value := row.get("accuracy"), float)]
    accuracy, error = validation[-1].get("frame_accuracy"), validation[-1].get("frame_accuracy_se")
    if len(recent) < _WINDOW or not isinstance(accuracy, float) or not isinstance(error, float):
        return
    fitted = sum(recent) / len(recent)
    if fitted > _FITTED and accuracy - 2 * error <= 0.5 and step_of(validation[-1]) <= _EARLY_STEPS:
        yield _alarm(
            "shortcut",
            validation[-1],
            f"step {step_of(validation[-1])}: accuracy is {fitted:.3f} on training pairs and {accuracy:.3f} +- "
            f"{error:.3f} on validation pairs: the run learns the pairs by heart, or a shortcut",
        )


def _unlearning(train: Sequence[Row], validation: Sequence[Row]) -> Iterator[Alarm]:
    """The margin grows through the loser while the winner gets worse than under the reference, at each evaluation."""
    if not any("accuracy" in row for row in train[-1:]):
        return  # sft has no loser to unlearn
    last = validation[-1 - _RISES :]
    gaps = [value for row in last if isinstance(value := row.get("win_gap"), float)]
    margins = [value for row in last if isinstance(value := row.get("margin"), float)]
    if len(gaps) <= _RISES or len(margins) <= _RISES or gaps[-1] <= 0:
        return
    if gaps == sorted(set(gaps)) and margins == sorted(set(margins)):
        yield _alarm(
            "unlearning",
            validation[-1],
            f"step {step_of(validation[-1])}: the winner's error rises with the margin (win_gap {gaps[-1]:.2g}): the "
            "run unlearns what both clips share; try loser_safeguard, fewer steps or a larger beta",
        )


def _by_loser(train: Sequence[Row], validation: Sequence[Row]) -> Iterator[Alarm]:
    """Most of what is ranked right has a winner no better than under the reference, at each of some evaluations."""
    if not any("accuracy" in row for row in train[-1:]):
        return  # sft has no loser
    last = validation[-1 - _RISES :]
    shares = [value for row in last if isinstance(value := row.get("loser_dominant"), float)]
    if len(shares) > _RISES and min(shares) > _BY_LOSER:
        yield _alarm(
            "loser_dominant",
            validation[-1],
            f"step {step_of(validation[-1])}: {100 * shares[-1]:.0f} % of what is ranked right is so only because the "
            "loser got worse, and no winner better; try winner_anchor or loser_safeguard, or fewer steps",
        )


def _alarm(name: str, row: Row, message: str) -> Alarm:
    return Alarm(name=name, step=step_of(row), message=message)
