"""Clips of the policy in force, made and judged at the same time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from densedpo.generate.pairs import fill, make_pairs
from densedpo.learn.online.judging import JudgingAhead

if TYPE_CHECKING:
    from pathlib import Path

    from densedpo.adapters.base import VideoModel
    from densedpo.core.records import Pair
    from densedpo.generate.plan import PairPlan, PlannedPair
    from densedpo.judge.protocol import Judge
    from densedpo.judge.store import LabelStore
    from densedpo.learn.online.judging import Patience


def make_and_judge(
    model: VideoModel,
    plan: PairPlan,
    judges: Sequence[Judge],
    store: LabelStore,
    segment_seconds: float | None,
    patience: Patience,
) -> None:
    """Makes the pairs that the plan's folder lacks, and judges each while the next ones are sampled.

    Whoever comes after it judges what is left: pairs that were there already, and what a judge that was away has not
    answered.

    Raises:
        Interrupted, BadInput: asked to stop between two pairs; see `generate.pairs.fill`.
    """
    with JudgingAhead(judges, plan.folder, store, segment_seconds=segment_seconds) as ahead:

        def made(todo: Sequence[PlannedPair], folder: Path) -> Iterator[Pair]:
            for pair in make_pairs(model, todo, folder, plan.pairs_per_batch):
                ahead.take(pair)
                yield pair
                patience.poll()

        fill(plan, made, inputs=[])
