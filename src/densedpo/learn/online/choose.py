"""Best against worst: which two rollouts of a prompt make a pair, and what each segment of it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from densedpo.core.records import CLIP_SIDES, ClipSide
from densedpo.judge.protocol import better

Rewards = tuple[float, ...]
"""Of one clip, one for each segment; one alone for the whole clip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """One clip of a prompt: where it lies, and its rewards."""

    pair_id: str
    side: ClipSide
    rewards: Rewards

    @property
    def mean(self) -> float:
        """The reward of the clip: the mean over its segments."""
        return sum(self.rewards) / len(self.rewards)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Two rollouts of one visit in the order in which they were made; the better one in each segment and as a whole.

    `whole` is by the mean over segments that the two were chosen by: most segments may say otherwise.
    """

    group: int
    a: Rollout
    b: Rollout
    answers: tuple[Literal["a", "b", "tie"], ...]
    whole: Literal["a", "b", "tie"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """The pairs of a round, and why other prompts gave none."""

    choices: tuple[Choice, ...]
    num_tied: int
    num_unscored: int
    mean_reward: float | None  # of all scored rollouts
    mean_gap: float | None  # between the best and the worst of a prompt


def choose(
    groups: Sequence[Sequence[str]], rewards: Mapping[tuple[str, ClipSide], Rewards], *, margin: float
) -> Chosen:
    """The best and the worst rollout of each group, by the mean over segments.

    Rollouts without rewards take no part; a group with fewer than two others gives no pair. Of equal rollouts the one
    that was made first is taken. A pair in which every segment is a tie is dropped.

    Args:
        groups: the ids of each visit's pairs of rollouts.
        rewards: of each clip that was scored.
        margin: rewards that differ by less are a tie.
    """
    choices: list[Choice] = []
    gaps, means = [], []
    num_tied = num_unscored = 0
    for index, pair_ids in enumerate(groups):
        rollouts = [
            Rollout(pair_id=pair_id, side=side, rewards=rewards[pair_id, side])
            for pair_id in pair_ids
            for side in CLIP_SIDES
            if (pair_id, side) in rewards
        ]
        means += [rollout.mean for rollout in rollouts]
        if len(rollouts) < 2:
            num_unscored += 1
            continue
        places = sorted(range(len(rollouts)), key=lambda place: rollouts[place].mean)
        worst = places[0]
        best = max(range(len(rollouts)), key=lambda place: (rollouts[place].mean, -place))
        if best == worst:  # all are equal
            best = places[1]
        gaps.append(rollouts[best].mean - rollouts[worst].mean)
        a, b = rollouts[min(best, worst)], rollouts[max(best, worst)]
        answers = tuple(better(one, other, margin) for one, other in zip(a.rewards, b.rewards, strict=True))
        if set(answers) == {"tie"}:
            num_tied += 1
            continue
        choices.append(Choice(group=index, a=a, b=b, answers=answers, whole=better(a.mean, b.mean, margin)))
    return Chosen(
        choices=tuple(choices),
        num_tied=num_tied,
        num_unscored=num_unscored,
        mean_reward=sum(means) / len(means) if means else None,
        mean_gap=sum(gaps) / len(gaps) if gaps else None,
    )
