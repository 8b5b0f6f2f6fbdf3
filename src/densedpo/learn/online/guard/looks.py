"""What the guard saw: measures of the same prompts and noises at several rounds, and how they have changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from pydantic import ConfigDict

from densedpo.core.files import read_object, write_atomic
from densedpo.core.records import from_row
from densedpo.metrics.alarms import Alarm, CheckpointGains, goodhart_alarm
from densedpo.metrics.statistics import Estimate, paired_difference

if TYPE_CHECKING:
    from pydantic import JsonValue

LOOK_FILE: Final = "guard.json"
REWARD: Final = "reward"
HELD_OUT: Final = "held_out"
# what must not be paid for a higher reward, by what it is called in a sentence
_GUARDS: Final = {
    HELD_OUT: "the held-out judge", "motion": "motion", "diversity": "diversity", "saturation": "saturation",
}  # fmt: skip
_MORE_IS_WORSE: Final = frozenset({"saturation"})


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardClip:
    """The measures of one clip of one prompt; None where one could not be computed."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    prompt_id: str
    seed: int
    values: dict[str, float | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """All clips of one look, after so many rounds (0: the base) and steps."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    round: int
    step: int
    policy: str
    clips: tuple[GuardClip, ...]

    def measure(self, name: str) -> dict[tuple[str, int], float | None]:
        """One measure by prompt and seed."""
        return {(clip.prompt_id, clip.seed): clip.values.get(name) for clip in self.clips}

    def mean(self, name: str) -> float | None:
        """The mean of a measure over all clips that have it."""
        values = [value for value in self.measure(name).values() if value is not None]
        return sum(values) / len(values) if values else None


def read_look(folder: Path) -> Look | None:
    """A look that was written; None where there is none."""
    path = folder / LOOK_FILE
    return from_row(Look, read_object(path), str(path)) if path.exists() else None


def write_look(folder: Path, look: Look) -> None:
    """Writes a look, last of what lies in its folder."""
    write_atomic(folder / LOOK_FILE, json.dumps(asdict(look), indent=1) + "\n")


def changes(base: Look, look: Look) -> dict[str, Estimate | None]:
    """Each measure's paired difference from the base, over prompts; None where it cannot be computed."""
    return {
        name: paired_difference(base.measure(name), look.measure(name), seed=look.round) for name in (REWARD, *_GUARDS)
    }


def alarm_of(base: Look, look: Look) -> Alarm | None:
    """Goodhart's alarm at a look: the reward has risen since the base and a guard has got worse."""
    found = changes(base, look)
    gains = CheckpointGains(
        checkpoint=f"round {look.round}",
        proxy=found[REWARD],
        guards={said: found[name] for name, said in _GUARDS.items()},
        more_is_worse=_MORE_IS_WORSE,
    )
    return goodhart_alarm(gains)


def best_look(looks: Sequence[Look]) -> Look | None:
    """The look with the highest held-out score, the earliest of equals; None where nothing is held out."""
    scored = {look.round: score for look in looks if (score := look.mean(HELD_OUT)) is not None}
    return max((look for look in looks if look.round in scored), key=lambda look: scored[look.round], default=None)


def looks_since_best(looks: Sequence[Look]) -> int:
    """How many looks there were after the best one."""
    best = best_look(looks)
    return 0 if best is None else len(looks) - 1 - [look.round for look in looks].index(best.round)


def look_row(base: Look, look: Look) -> dict[str, JsonValue]:
    """The row of a look in metrics.jsonl: means, and changes since the base with their intervals."""
    row: dict[str, JsonValue] = {"step": look.step, "split": "guard", "round": look.round}
    row |= {name: look.mean(name) for name in (REWARD, *_GUARDS)}
    if look.round != base.round:
        row |= _interval_columns(changes(base, look))
    return row


def _interval_columns(found: Mapping[str, Estimate | None]) -> dict[str, JsonValue]:
    columns: dict[str, JsonValue] = {}
    for name, estimate in found.items():
        if estimate is not None:
            columns |= {
                f"{name}_change": estimate.value,
                f"{name}_change_low": estimate.low,
                f"{name}_change_high": estimate.high,
            }
    return columns
