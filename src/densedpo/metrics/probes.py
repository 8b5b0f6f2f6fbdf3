"""Altered copies of a clip that show what a judge looks at, and MB3 to MB5 over a judge's answers about them.

A judge of video should like a clip better than its first frame held still, than itself at half the speed, and than
itself with its frames in another order. Published judges do not always: against a frozen copy one of them prefers the
copy in 70 % of cases, another in 18 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from densedpo.core.seeds import generator
from densedpo.metrics.motion_bias import BiasCheck
from densedpo.metrics.rates import win_rate
from densedpo.metrics.smoothness import between
from densedpo.metrics.statistics import NUM_DRAWS, Key

Frames = NDArray[np.uint8]
Probe = Literal["frozen", "slow", "reversed", "shuffled"]
PROBES: Final[tuple[Probe, ...]] = get_args(Probe)

# the share of answers for the copy above which a judge is suspect
MAX_COPY_SHARE: Final[dict[Probe, float]] = {"frozen": 0.5, "slow": 0.6, "reversed": 0.4, "shuffled": 0.4}
_NAMES: Final[dict[Probe, str]] = {"frozen": "MB3", "slow": "MB4", "reversed": "MB5", "shuffled": "MB5"}


def probe_copy(frames: Frames, probe: Probe, *, seed: int, clip_id: str) -> Frames:
    """An altered copy of a clip uint8 [F, H, W, 3], of the same length and rate.

    `frozen` repeats the first frame. `slow` is the first half at half the speed, with frames between the given ones
    made along optical flow. `reversed` runs backwards. `shuffled` is in an order drawn from the seed and the clip's id.

    Raises:
        ValueError: the clip has fewer than three frames.
    """
    if len(frames) < 3:
        raise ValueError(f"a probe needs at least 3 frames, not {len(frames)}")
    match probe:
        case "frozen":
            return np.repeat(frames[:1], len(frames), axis=0)
        case "slow":
            return slowed(frames)
        case "reversed":
            return np.ascontiguousarray(frames[::-1])
        case "shuffled":
            return frames[_order(len(frames), seed=seed, clip_id=clip_id)]


def slowed(frames: Frames) -> Frames:
    """The first half of a clip [F, H, W, 3] at half the speed: as many frames, every second one made in between."""
    result = []
    for i in range(len(frames)):
        here = frames[i // 2]
        result.append(here if i % 2 == 0 else between(here, frames[i // 2 + 1]))
    return np.stack(result)


def probe_check(
    preferred: Mapping[Key, int | None], probe: Probe, *, seed: int, num_draws: int = NUM_DRAWS
) -> BiasCheck:
    """MB3 (frozen), MB4 (slow) or MB5 (reversed, shuffled): the share of answers for the altered copy, ties as half.

    Alarm: over 50 % for a frozen copy, over 60 % for a slow one; for one in another order over 40 %, since a judge
    that prefers the original in less than 60 % does not look at the order of the frames.

    Args:
        preferred: +1 where the judge preferred the copy, -1 where the original, 0 for a tie, None for no answer.
    """
    rates = win_rate(preferred, seed=seed, num_draws=num_draws)
    estimate = rates.score if rates is not None else None
    against = MAX_COPY_SHARE[probe]
    return BiasCheck(
        name=_NAMES[probe],
        meaning=f"share of answers for the {probe} copy over the original",
        estimate=estimate,
        against=against,
        alarm=estimate is not None and estimate.value > against,
        reason="" if estimate is not None else "the judge answered no probe",
    )


def _order(num_frames: int, *, seed: int, clip_id: str) -> NDArray[np.int64]:
    rng = generator(seed, "shuffled probe", clip_id)
    while True:
        order = rng.permutation(num_frames)
        if not np.array_equal(order, np.arange(num_frames)):
            return np.asarray(order, dtype=np.int64)
