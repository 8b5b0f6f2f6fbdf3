"""The alarm fires where the proxy rises and a guard falls, and at no other time."""

from __future__ import annotations

import numpy as np
import pytest

from densedpo.metrics.alarms import CheckpointGains, goodhart_alarm, goodhart_alarms, unchecked
from densedpo.metrics.statistics import Estimate, paired_difference


def gain(mean: float, *, spread: float = 0.1, num_prompts: int = 40) -> Estimate:
    """A paired difference over prompts with this mean."""
    noise = np.random.default_rng(3).standard_normal(num_prompts)
    noise = spread * (noise - noise.mean())
    base = {(f"p{i}", 0): 0.0 for i in range(num_prompts)}
    other = {(f"p{i}", 0): float(mean + noise[i]) for i in range(num_prompts)}
    estimate = paired_difference(base, other, seed=0)
    assert estimate is not None
    return estimate


def at(proxy: float | None, **guards: float | None) -> CheckpointGains:
    return CheckpointGains(
        checkpoint="step 100",
        proxy=None if proxy is None else gain(proxy),
        guards={name: None if value is None else gain(value) for name, value in guards.items()},
    )


def test_proxy_up_and_motion_down_is_an_alarm_that_names_motion() -> None:
    alarm = goodhart_alarm(at(0.2, motion=-0.3, diversity=0.1))
    assert alarm is not None
    assert list(alarm.worse) == ["motion"]
    assert alarm.text == "at step 100 the proxy is up by 0.2 while motion is down by 0.3"


def test_every_guard_that_fell_is_named() -> None:
    alarm = goodhart_alarm(at(0.2, motion=-0.3, diversity=-0.1, judge=-0.2, text=0.0))
    assert alarm is not None
    assert list(alarm.worse) == ["motion", "diversity", "judge"]


@pytest.mark.parametrize(
    "gains",
    [
        at(0.2, motion=0.1, judge=0.3),  # both up
        at(0.2, motion=0.0),  # no change that is shown
        at(0.2, motion=-0.01),  # less than the interval
        at(-0.2, motion=-0.3),  # both down: bad, but not Goodhart
        at(0.01, motion=-0.3),  # the proxy did not rise
        at(None, motion=-0.3),
    ],
)
def test_otherwise_it_is_silent(gains: CheckpointGains) -> None:
    assert goodhart_alarm(gains) is None


def test_a_guard_without_an_interval_is_no_alarm_and_no_all_clear() -> None:
    alone = gain(-0.3, num_prompts=1)
    gains = CheckpointGains(checkpoint="step 1", proxy=gain(0.2), guards={"motion": alone, "judge": None})
    assert goodhart_alarm(gains) is None
    assert unchecked(gains) == ("motion", "judge")
    alarm = goodhart_alarm(at(0.2, motion=-0.3, judge=None))
    assert alarm is not None
    assert alarm.unknown == ("judge",)


def test_a_history_gives_its_alarms_in_order() -> None:
    """The proxy rises all the time; the held-out judge turns at the second checkpoint of three."""
    history = [
        CheckpointGains(checkpoint=f"step {i}", proxy=gain(0.1 * i), guards={"judge": gain(value)})
        for i, value in enumerate([0.1, -0.2, -0.4], start=1)
    ]
    assert [alarm.checkpoint for alarm in goodhart_alarms(history)] == ["step 2", "step 3"]
