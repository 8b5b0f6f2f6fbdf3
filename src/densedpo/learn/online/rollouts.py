"""Clips of the policy in force, made by all processes of a run, and handed on pair by pair."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from densedpo.core.progress import track
from densedpo.core.records import to_row
from densedpo.core.workspace import append_jsonl, writing
from densedpo.generate.guided import sigmas_of
from densedpo.generate.pairs import SampledPair, begin_filling, end_filling, sample_pairs, write_latents
from densedpo.generate.resume import PAIRS_FILE
from densedpo.generate.videos import write_video

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from densedpo.adapters.base import VideoModel
    from densedpo.core.records import Pair
    from densedpo.generate.plan import PairPlan, PlannedPair
    from densedpo.learn.processes.team import Team


def make_rollouts(
    model: VideoModel, plan: PairPlan, team: Team, *, poll: Callable[[], None], take: Callable[[Pair], None] | None
) -> None:
    """Makes the pairs that the plan's folder lacks; every process of the team must call this.

    Each denoises `pairs_per_batch` of the plan's pairs at once, and writes their latents and videos; the first writes
    the rows. Batches are cut from the whole plan, so that a pair comes out alike whatever a run that was cut had made.

    Args:
        poll: asked after each pair, by all processes together; may raise to stop.
        take: gets each pair that is on the disk in full.

    Raises:
        Interrupted, BadInput: asked to stop between two pairs, a disk refused, or see `generate.resume.prepare`.
    """
    with ExitStack() as held:
        lacks: list[str] = []

        def begin() -> None:
            held.enter_context(writing(plan.folder))
            lacks.extend(each.pair.id for each in begin_filling(plan))

        team.first_does(begin)
        missing: frozenset[str] = frozenset(json.loads(team.told(json.dumps(lacks))))
        if missing:
            made = _made(model, plan, team, missing)
            for pair in track(made, total=len(missing), what="generating pairs"):
                if take is not None:
                    take(pair)
                poll()
        team.first_does(lambda: end_filling(plan, inputs=[]))


def _made(model: VideoModel, plan: PairPlan, team: Team, missing: frozenset[str]) -> Iterator[Pair]:
    """The missing pairs in turn, each when it is on the disk; the same ones on all processes."""
    at_once = plan.pairs_per_batch * team.size
    for first in range(0, len(plan.pairs), at_once):
        batch = plan.pairs[first : first + at_once]
        if missing.isdisjoint(each.pair.id for each in batch):
            continue
        parts = team.parts(batch)
        latents = _sampled(model, batch, team)
        mine = [SampledPair(pair=each.pair, latents=own) for each, own in zip(team.part(batch), latents, strict=True)]
        for place in range(max(map(len, parts))):
            own = [each for each in mine[place : place + 1] if each.pair.id in missing]
            team.each_does(partial(_write_files, model, own, plan.folder))
            there = [part[place].pair for part in parts if place < len(part) and part[place].pair.id in missing]
            team.first_does(partial(_write_rows, there, plan.folder))
            yield from there


def _sampled(model: VideoModel, batch: Sequence[PlannedPair], team: Team) -> Sequence[Tensor]:
    """The latents of this process's part of a batch.

    Where the denoiser is cut over the processes, all of them must run it equally often. One whose own schedules are
    shorter than the batch's longest, or that has no pair, denoises the pair of the longest one too, and drops it.
    """
    mine = team.part(batch)
    rows = list(mine)
    if team.is_sharded:
        longest = max(batch, key=lambda each: _num_levels(model, each))
        if max((_num_levels(model, each) for each in mine), default=0) < _num_levels(model, longest):
            rows.append(longest)
    return sample_pairs(model, rows)[: len(mine)].unbind() if rows else ()


def _num_levels(model: VideoModel, planned: PlannedPair) -> int:
    """How many noise levels a pair's schedule has."""
    pair = planned.pair
    return len(model.sigmas(pair.num_steps) if pair.eta is None else sigmas_of(model, pair))


def _write_files(model: VideoModel, pairs: Sequence[SampledPair], folder: Path) -> None:
    for each in pairs:
        write_latents(each, folder)
        write_video(model, each.pair, folder)


def _write_rows(pairs: Sequence[Pair], folder: Path) -> None:
    """The row comes last: a row is never without its files."""
    for pair in pairs:
        append_jsonl(folder / PAIRS_FILE, to_row(pair))
