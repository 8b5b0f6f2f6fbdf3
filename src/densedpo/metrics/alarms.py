"""Goodhart's alarm: what training optimises rises, and what it was to stand for falls.

The proxy is whatever training is steered by (the training reward, the oracle's labels, implicit accuracy). The guards
are what must not be paid for it: motion, diversity over seeds, text alignment, and a judge of another family that
training never saw. All are differences from the reference at one checkpoint, with intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from densedpo.metrics.statistics import Estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointGains:
    """A checkpoint's differences from the reference; None where one could not be computed.

    `guards` are by name, each of a kind of which more is better or less is a loss.
    """

    checkpoint: str
    proxy: Estimate | None
    guards: Mapping[str, Estimate | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Alarm:
    """The proxy rose at a checkpoint while these guards fell; `unknown` are guards that could not be asked."""

    checkpoint: str
    proxy: Estimate
    fallen: dict[str, Estimate]
    unknown: tuple[str, ...]

    @property
    def text(self) -> str:
        """What happened, in one phrase with its numbers."""
        falls = " and ".join(f"{name} is down by {-guard.value:.3g}" for name, guard in self.fallen.items())
        return f"at {self.checkpoint} the proxy is up by {self.proxy.value:.3g} while {falls}"


def goodhart_alarm(gains: CheckpointGains) -> Alarm | None:
    """The alarm at one checkpoint: the proxy's interval lies above 0 and some guard's below 0; else None.

    A guard without an interval raises no alarm and is no all-clear: `unchecked` names those.
    """
    proxy = gains.proxy
    if proxy is None or proxy.low is None or proxy.low <= 0:
        return None
    fallen = {
        name: guard for name, guard in gains.guards.items()
        if guard is not None and guard.high is not None and guard.high < 0
    }  # fmt: skip
    if not fallen:
        return None
    return Alarm(checkpoint=gains.checkpoint, proxy=proxy, fallen=fallen, unknown=unchecked(gains))


def goodhart_alarms(history: Sequence[CheckpointGains]) -> tuple[Alarm, ...]:
    """The alarms of a run, in the order of its checkpoints."""
    found = (goodhart_alarm(gains) for gains in history)
    return tuple(alarm for alarm in found if alarm is not None)


def unchecked(gains: CheckpointGains) -> tuple[str, ...]:
    """The guards about which nothing is known, since they have no interval."""
    return tuple(name for name, guard in gains.guards.items() if guard is None or guard.high is None)
