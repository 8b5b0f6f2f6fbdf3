"""Ranks labels by how surprising they are to models that were trained without them: pure functions, numpy and scipy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Literal

import numpy as np
from pydantic import ConfigDict
from scipy.optimize import minimize
from scipy.special import log_expit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from densedpo.learn.audit.margins import SegmentMargins

# bounds of the fit: labels without any tie ask for a threshold of 0, labels without any error for an endless slope
_MIN_LOG_NU: Final = 1e-3
_MAX_SLOPE: Final = 50.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Suspect:
    """A labelled segment, and how surprising its label is: -log of its chance under the calibrated margins, in nats."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    rank: int
    pair_id: str
    segment: int
    start_frame: int
    stop_frame: int
    label: int
    model_prefers: Literal["a", "b"]
    margin: float  # in units of the typical margin of its run
    surprise: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """How margins speak of labels: P(a) = sigmoid(slope m - log nu), P(b) = sigmoid(-slope m - log nu), else a tie."""

    slope: float
    log_nu: float

    def log_chance(self, labels: NDArray[np.int64], margins: NDArray[np.float64]) -> NDArray[np.float64]:
        """The log-probability of each label."""
        u = self.slope * margins
        for_a, for_b = log_expit(u - self.log_nu), log_expit(-u - self.log_nu)
        tie = for_a + for_b + math.log(math.expm1(2 * self.log_nu))
        chosen: NDArray[np.float64] = np.where(labels == 1, for_a, np.where(labels == -1, for_b, tie))
        return chosen


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking:
    """The segments, most suspicious first, and how far the margins can be trusted to tell.

    `accuracy` is the share of labels with a winner that the margins side with, of `num_ranked`; None where there is
    none. `error` is its standard error over pairs, since the segments of a pair are alike.
    """

    suspects: tuple[Suspect, ...]
    calibration: Calibration
    num_pairs: int
    num_ranked: int
    accuracy: float | None
    error: float | None

    @property
    def tells(self) -> bool:
        """Whether the margins side with the labels beyond chance (two standard errors)."""
        return self.accuracy is not None and self.error is not None and self.accuracy - 2 * self.error > 0.5


def rank_segments(folds: Sequence[Sequence[SegmentMargins]]) -> Ranking:
    """The answered segments of all folds by falling surprise.

    The margins of each fold are divided by their root mean square, since each comes from a model of its own. A slope
    and a tie threshold are then fitted to all labels by maximum likelihood under Rao and Kupper's model of comparisons
    with ties, and a label is as surprising as it is unlikely: the ranking by cross-entropy of confident learning
    (Northcutt et al. 2021, arXiv 1911.00068), for comparisons. A slope is at least 0: where margins say nothing all
    winners are equally surprising, and the order is that of the pairs' ids.
    """
    found = [
        (fold, pair, segment)
        for fold, pairs in enumerate(folds)
        for pair in pairs
        for segment, known in enumerate(pair.answered)
        if known
    ]
    labels = np.array([pair.labels[segment] for _, pair, segment in found], dtype=np.int64)
    fold_of = np.array([fold for fold, _, _ in found], dtype=np.int64)
    margins = _scaled(np.array([pair.margins[segment] for _, pair, segment in found], dtype=np.float64), fold_of)
    calibration = calibrate(labels, margins)
    surprise = -calibration.log_chance(labels, margins)
    order = sorted(range(len(found)), key=lambda i: (-surprise[i], found[i][1].pair_id, found[i][2]))
    suspects = tuple(
        Suspect(
            rank=rank,
            pair_id=found[i][1].pair_id,
            segment=found[i][2],
            start_frame=found[i][1].ranges[found[i][2]][0],
            stop_frame=found[i][1].ranges[found[i][2]][1],
            label=int(labels[i]),
            model_prefers="a" if margins[i] > 0 else "b",
            margin=float(margins[i]),
            surprise=float(surprise[i]),
        )
        for rank, i in enumerate(order, start=1)
    )
    accuracy, error = _accuracy([pair.pair_id for _, pair, _ in found], labels, margins)
    return Ranking(
        suspects=suspects,
        calibration=calibration,
        num_pairs=len({pair.pair_id for _, pair, _ in found}),
        num_ranked=int((labels != 0).sum()),
        accuracy=accuracy,
        error=error,
    )


def calibrate(labels: NDArray[np.int64], margins: NDArray[np.float64]) -> Calibration:
    """The slope and the tie threshold under which the labels are likeliest."""

    def cost(parameters: NDArray[np.float64]) -> float:
        slope, log_nu = parameters
        return float(-Calibration(slope=slope, log_nu=log_nu).log_chance(labels, margins).mean())

    if len(labels) == 0:
        return Calibration(slope=0.0, log_nu=_MIN_LOG_NU)
    share = float(np.clip((labels == 0).mean(), 0.001, 0.999))
    start = [1.0, max(_MIN_LOG_NU, math.log((1 + share) / (1 - share)))]  # a tie's chance at u = 0 is (nu-1)/(nu+1)
    done = minimize(cost, start, method="L-BFGS-B", bounds=[(0.0, _MAX_SLOPE), (_MIN_LOG_NU, 10.0)])
    return Calibration(slope=float(done.x[0]), log_nu=float(done.x[1]))


def planted_lift(ranking: Ranking, planted: frozenset[tuple[str, int]], *, share: float) -> float:
    """How many times more planted faults are among the first ones than there would be by chance.

    Args:
        planted: (pair id, segment) of the labels that were made wrong.
        share: which part of the ranking is looked at, such as 0.2.

    Raises:
        ValueError: nothing was planted among the ranked segments, or the share holds none of them.
    """
    wrong = [(suspect.pair_id, suspect.segment) in planted for suspect in ranking.suspects]
    num_first = round(share * len(wrong))
    if not any(wrong) or num_first == 0:
        raise ValueError(f"no planted fault to find, or no segment in a share of {share:g} of {len(wrong)}")
    return (sum(wrong[:num_first]) / num_first) / (sum(wrong) / len(wrong))


def _scaled(margins: NDArray[np.float64], fold_of: NDArray[np.int64]) -> NDArray[np.float64]:
    scaled = margins.copy()
    for fold in np.unique(fold_of):
        size = float(np.sqrt(np.mean(margins[fold_of == fold] ** 2)))
        if size > 0:
            scaled[fold_of == fold] /= size
    return scaled


def _accuracy(
    pair_ids: Sequence[str], labels: NDArray[np.int64], margins: NDArray[np.float64]
) -> tuple[float | None, float | None]:
    """The share of winners that the margins side with, and its standard error by the ratio of sums over pairs."""
    hits: dict[str, float] = {}
    totals: dict[str, int] = {}
    for pair_id, label, margin in zip(pair_ids, labels, margins, strict=True):
        if label:
            hits[pair_id] = hits.get(pair_id, 0.0) + (float(np.sign(label * margin)) + 1) / 2
            totals[pair_id] = totals.get(pair_id, 0) + 1
    if not totals:
        return None, None
    total = sum(totals.values())
    accuracy = sum(hits.values()) / total
    if len(totals) < 2:
        return accuracy, None
    residual = np.array([hits[pair_id] - accuracy * totals[pair_id] for pair_id in totals])
    num_pairs = len(totals)
    return accuracy, float(math.sqrt(num_pairs / (num_pairs - 1) * float((residual**2).sum())) / total)
