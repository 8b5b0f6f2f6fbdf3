"""Validation pairs under fixed draws: the same (t, noise) at every evaluation, so that a change is the model's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from densedpo.learn.feed.order import Visit
from densedpo.learn.objectives import dense_dpo
from densedpo.learn.objectives.errors import clip_gaps
from densedpo.learn.task.preference import PreferenceTask
from densedpo.learn.task.protocol import Outcome
from densedpo.learn.watch.drift import drift_row
from densedpo.learn.watch.track import summarise

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from densedpo.learn.config import LearnConfig
    from densedpo.learn.feed.batch import PairBatch, Source
    from densedpo.learn.feed.inputs import LabelledPair
    from densedpo.learn.objectives import PairErrors
    from densedpo.learn.watch.track import Row

# one pair in a forward, as the cached reference was filled: then a policy that equals it has u = 0 exactly
_CHUNK = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameReward:
    """Where in time a model prefers which clip: d_b - d_a of each latent frame, above 0 for a."""

    pair_id: str
    labels_per_latent_frame: tuple[int, ...]
    implicit_reward_per_latent_frame: tuple[float, ...]


class _Ties:
    """What a run does where nothing is preferred: the size of the margin, and whether both clips are unlearned."""

    def __init__(self, *, beta: float) -> None:
        self._beta = beta
        self._count, self._margin, self._gap = 0, 0.0, 0.0

    def add(self, errors: PairErrors, batch: PairBatch) -> None:
        """Counts the tied frames of a batch."""
        is_tie = (batch.judged & (batch.field == 0)).to(errors.valid.device) & errors.valid
        gap_a, gap_b = clip_gaps(errors)
        self._count += int(is_tie.sum())
        self._margin += float(((gap_a - gap_b).abs() * is_tie).sum()) * self._beta / 2
        self._gap += float(((gap_a + gap_b) / 2 * is_tie).sum())

    def row(self) -> Row:
        """`tie_margin`: the mean of |u|; `tie_gap`: policy minus reference error; None where there is no tie."""
        count = self._count
        return {
            "tie_margin": self._margin / count if count else None,
            "tie_gap": self._gap / count if count else None,
        }


class Evaluation:
    """Measures the policy on validation pairs; never trains on them."""

    def __init__(
        self, task: PreferenceTask, source: Source, pairs: Sequence[LabelledPair], config: LearnConfig
    ) -> None:
        """Args: `task` is over `pairs` with `config.eval_draws` fixed draws."""
        self._task, self._source, self._pairs, self._config = task, source, pairs, config

    @torch.no_grad()
    def run(self, step: int, poll: Callable[[], None]) -> Row:
        """The metrics row of a step.

        Beside the objective's own metrics stand, for runs of different objectives to be compared, `frame_accuracy` (as
        dense_dpo counts) and its standard error over pairs; what happens on ties (`_Ties`); and the drift from the
        reference, on the first draw of each pair, whose t are spread over all strata; no drift where no reference is
        held that could run (all weights are trained, and the cache is complete).
        """
        outcomes: list[Outcome] = []
        times: list[float] = []
        drifts: list[float] = []
        ties = _Ties(beta=self._config.beta)
        hits, totals = torch.zeros(len(self._pairs)), torch.zeros(len(self._pairs))
        for draw in range(self._config.eval_draws):
            for visits in self._chunks(range(len(self._pairs)), draw):
                poll()
                batch = self._source.pairs(self._pairs, visits, self._task.draws)
                if draw == 0:
                    errors, drift = self._task.errors_and_drift(batch, visits)
                    if drift is not None:
                        times, drifts = times + batch.t.tolist(), drifts + drift.tolist()
                else:
                    errors = self._task.errors(batch, visits)
                ties.add(errors, batch)
                output = self._task.loss(errors, batch, visits)
                outcome = Outcome(loss=output.loss, weight=output.weight, t=batch.t, metrics=output.metrics)
                outcomes.append(outcome.detached())
                frames = dense_dpo(errors, batch.field.to(errors.valid.device), beta=self._config.beta)
                rows = [visit.index for visit in visits]
                hits[rows] += (frames.metrics.accuracy * frames.weight).cpu()
                totals[rows] += frames.weight.cpu()
        per_pair = hits[totals > 0] / totals[totals > 0]
        return {
            "step": step,
            "split": "validation",
            **summarise(outcomes),
            "frame_accuracy": float(hits.sum() / totals.sum().clamp_min(1)),
            "frame_accuracy_se": float(per_pair.std() / math.sqrt(len(per_pair))) if len(per_pair) > 1 else None,
            **ties.row(),
            **(drift_row(times, drifts) if drifts else {}),
            **self._winners(),
        }

    def _winners(self) -> Row:
        """`real_winner_share`: of pairs that are a real clip and its corrupted copy, where there are any."""
        share = sum(pair.has_real_winner for pair in self._pairs) / len(self._pairs)
        return {"real_winner_share": share} if share else {}

    @torch.no_grad()
    def rewards(self, num_pairs: int, poll: Callable[[], None]) -> list[FrameReward]:
        """The implicit reward per latent frame of the first pairs, averaged over the fixed draws."""
        chosen = range(min(num_pairs, len(self._pairs)))
        total: dict[int, Float[Tensor, "frame"]] = {}
        for draw in range(self._config.eval_draws):
            for visits in self._chunks(chosen, draw):
                poll()
                errors = self._task.errors(self._source.pairs(self._pairs, visits, self._task.draws), visits)
                gap_a, gap_b = errors.policy_a - errors.reference_a, errors.policy_b - errors.reference_b
                reward = (gap_b - gap_a).mean((2, 3)).cpu() / self._config.eval_draws
                for visit, frames in zip(visits, reward, strict=True):
                    total[visit.index] = total.get(visit.index, torch.zeros_like(frames)) + frames
        return [
            FrameReward(
                pair_id=self._pairs[index].id,
                labels_per_latent_frame=tuple(self._pairs[index].labels.field.tolist()),
                implicit_reward_per_latent_frame=tuple(total[index].tolist()),
            )
            for index in chosen
        ]

    def _chunks(self, indices: range, draw: int) -> list[list[Visit]]:
        visits = [Visit(index=index, draw=draw) for index in indices]
        return [visits[start : start + _CHUNK] for start in range(0, len(visits), _CHUNK)]
