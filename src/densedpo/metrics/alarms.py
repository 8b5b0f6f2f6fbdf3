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

    `guards` are by name; of those named in `more_is_worse` a rise is the loss, of all others a fall.
    """

    checkpoint: str
    proxy: Estimate | None
    guards: Mapping[str, Estimate | None]
    more_is_worse: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Alarm:
    """The proxy rose at a checkpoint while these guards got worse; `unknown` are guards that could not be asked."""

    checkpoint: str
    proxy: Estimate
    worse: dict[str, Estimate]
    unknown: tuple[str, ...]

    @property
    def text(self) -> str:
        """What happened, in one phrase with its numbers."""
        losses = " and ".join(
            f"{name} is {'up' if guard.value > 0 else 'down'} by {abs(guard.value):.3g}"
            for name, guard in self.worse.items()
        )
        return f"at {self.checkpoint} the proxy is up by {self.proxy.value:.3g} while {losses}"


def goodhart_alarm(gains: CheckpointGains) -> Alarm | None:
    """The alarm at one checkpoint: the proxy's interval lies above 0 and some guard's on its bad side; else None.

    A guard without an interval raises no alarm and is no all-clear: `unchecked` names those.
    """
    proxy = gains.proxy
    if proxy is None or proxy.low is None or proxy.low <= 0:
        return None
    worse = {
        name: guard for name, guard in gains.guards.items()
        if guard is not None and _is_worse(guard, more_is_worse=name in gains.more_is_worse)
    }  # fmt: skip
    if not worse:
        return None
    return Alarm(checkpoint=gains.checkpoint, proxy=proxy, worse=worse, unknown=unchecked(gains))


def _is_worse(guard: Estimate, *, more_is_worse: bool) -> bool:
    if more_is_worse:
        return guard.low is not None and guard.low > 0
    return guard.high is not None and guard.high < 0


def goodhart_alarms(history: Sequence[CheckpointGains]) -> tuple[Alarm, ...]:
    """The alarms of a run, in the order of its checkpoints."""
    found = (goodhart_alarm(gains) for gains in history)
    return tuple(alarm for alarm in found if alarm is not None)


def unchecked(gains: CheckpointGains) -> tuple[str, ...]:
    """The guards about which nothing is known, since they have no interval."""
    return tuple(name for name, guard in gains.guards.items() if guard is None or guard.high is None)
