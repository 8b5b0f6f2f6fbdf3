"""Strengths of several models from comparisons of two at a time, ties included.

Bradley-Terry models with strength pi = exp(beta): Davidson (1970) gives a tie the weight nu sqrt(pi_i pi_j) beside pi_i
and pi_j; Rao and Kupper (1967) give a win the chance pi_i / (pi_i + theta pi_j), theta >= 1, and a tie the rest.
Strengths exist only where every model can be reached from every other through wins and ties (Ford 1957): else one
group never loses to another and the best fit puts it infinitely far ahead. Such comparisons are refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse, special

from densedpo.core.errors import BadInput
from densedpo.core.seeds import generator
from densedpo.metrics.statistics import LEVEL, MAX_UNDEFINED, Estimate, drawn_weights, percentile_bounds

TieModel: TypeAlias = Literal["davidson", "rao_kupper"]

NUM_REFITS: Final = 500
WIN, TIE, LOSS = 0, 1, 2
_BOUNDS: Final[dict[TieModel, tuple[float, float]]] = {"davidson": (-12.0, 12.0), "rao_kupper": (1e-6, 12.0)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """One judgement between two models: +1 where `first` won, -1 where `second` did, 0 for a tie, None for neither.

    Comparisons of one `cluster`, usually a prompt, are drawn together.
    """

    first: str
    second: str
    outcome: int | None
    cluster: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Strength:
    """A model's log strength (they sum to 0) and its rank (1 is best), with an interval of ranks."""

    name: str
    log_strength: Estimate
    rank: int
    rank_low: int | None
    rank_high: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking:
    """Strengths from the best down, and the tie parameter: Davidson's nu (0: no ties) or Rao and Kupper's theta (1)."""

    strengths: tuple[Strength, ...]
    tie_model: TieModel
    tie_parameter: Estimate
    ridge: float
    log_likelihood: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Chances:
    """Of a comparison's three outcomes, for the first of two models."""

    win: float
    tie: float
    loss: float


def chances(difference: float, *, tie_model: TieModel, tie_parameter: float) -> Chances:
    """The chances of win, tie and loss at a difference of log strengths, first - second.

    Raises:
        BadInput: nu < 0 or theta < 1.
    """
    least = 0.0 if tie_model == "davidson" else 1.0
    if not tie_parameter >= least:
        raise BadInput(f"the tie parameter of {tie_model} is {tie_parameter}; it is at least {least:g}")
    if tie_model == "davidson":
        parts = np.array([math.exp(difference / 2), tie_parameter, math.exp(-difference / 2)])
        win, tie, loss = (parts / parts.sum()).tolist()
        return Chances(win=win, tie=tie, loss=loss)
    log_theta = math.log(tie_parameter)
    win, loss = float(special.expit(difference - log_theta)), float(special.expit(-difference - log_theta))
    return Chances(win=win, tie=1 - win - loss, loss=loss)


def rank(
    comparisons: Sequence[Comparison],
    *,
    seed: int,
    tie_model: TieModel = "davidson",
    ridge: float = 0.0,
    num_draws: int = NUM_REFITS,
    level: float = LEVEL,
) -> Ranking:
    """Fits strengths and ties by maximum likelihood, with intervals from refits to drawn clusters.

    Draws without finite strengths are left out and counted; past 5 % of them there is no interval.

    Args:
        ridge: the weight of ridge / 2 times the sum of squared log strengths, taken off the log likelihood. Above 0
            it gives finite strengths where one group never loses to another, pulled towards equal ones.

    Raises:
        BadInput: fewer than two models, a model against itself, all ties, models that were never compared, or without
            a ridge a group that never lost to another.
    """
    if not (ridge >= 0 and math.isfinite(ridge)):
        raise BadInput(f"the ridge is {ridge}; it is 0 or more")
    games = _games(comparisons)
    whole = games.counts.sum(axis=0)
    _check_connected(games, whole, ridge=ridge)
    best = _fit(games, whole, tie_model=tie_model, ridge=ridge, start=None)
    draws = _refits(games, best, tie_model=tie_model, ridge=ridge, seed=seed, num_draws=num_draws)
    num_excluded = sum(own.outcome is None for own in comparisons)
    fitted = f"Bradley-Terry, {tie_model}" + (f", ridge {ridge:g}" if ridge else "")

    def estimate(value: float, own: NDArray[np.float64], name: str) -> Estimate:
        bounds = percentile_bounds(own, num_units=len(games.counts), unit="clusters", level=level)
        return Estimate(
            value=value,
            low=bounds.low,
            high=bounds.high,
            n=len(games.counts),
            num_values=int(whole.sum()),
            num_excluded=num_excluded,
            method=f"{fitted}: {name}; {bounds.method}",
            seed=seed,
            level=level,
        )

    ranks = _rank_intervals(draws[:, :-1], level=level)
    strengths = tuple(
        Strength(
            name=games.names[i],
            log_strength=estimate(float(best.beta[i]), draws[:, i], "log strength"),
            rank=place,
            rank_low=None if ranks is None else int(ranks[0, i]),
            rank_high=None if ranks is None else int(ranks[1, i]),
        )
        for place, i in enumerate(np.argsort(-best.beta, kind="stable"), start=1)
    )
    return Ranking(
        strengths=strengths,
        tie_model=tie_model,
        tie_parameter=estimate(best.tie, draws[:, -1], "nu" if tie_model == "davidson" else "theta"),
        ridge=ridge,
        log_likelihood=best.log_likelihood,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Games:
    names: tuple[str, ...]
    first: NDArray[np.int64]  # (pairing,), models that met, by number
    second: NDArray[np.int64]
    counts: NDArray[np.float64]  # (cluster, pairing, WIN | TIE | LOSS of the first)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fit:
    beta: NDArray[np.float64]
    tie: float
    log_likelihood: float


def _games(comparisons: Sequence[Comparison]) -> _Games:
    names = tuple(sorted({name for own in comparisons for name in (own.first, own.second)}))
    if len(names) < 2:
        raise BadInput("fewer than two models were compared; give comparisons between two or more")
    number = {name: i for i, name in enumerate(names)}
    found: dict[tuple[str, int, int], list[int]] = {}
    for own in comparisons:
        if own.first == own.second:
            raise BadInput(f"{own.first} is compared with itself in cluster {own.cluster}; leave that comparison out")
        if own.outcome is None:
            continue
        if own.outcome not in (-1, 0, 1):
            raise BadInput(
                f"the outcome of {own.first} against {own.second} in cluster {own.cluster} is {own.outcome}; "
                "give 1 (the first won), 0 (tie), -1 (the second won) or None"
            )
        i, j = number[own.first], number[own.second]
        sign = own.outcome if i < j else -own.outcome
        found.setdefault((own.cluster, min(i, j), max(i, j)), [0, 0, 0])[1 - sign] += 1
    clusters = sorted({cluster for cluster, _, _ in found})
    pairings = sorted({(i, j) for _, i, j in found})
    row, column = {own: i for i, own in enumerate(clusters)}, {own: i for i, own in enumerate(pairings)}
    counts = np.zeros((len(clusters), len(pairings), 3))
    for (cluster, i, j), own_counts in found.items():
        counts[row[cluster], column[i, j]] = own_counts
    first, second = np.array(pairings, dtype=np.int64).reshape(-1, 2).T
    return _Games(names=names, first=first, second=second, counts=counts)


def _components(
    games: _Games, counts: NDArray[np.float64], connection: Literal["weak", "strong"]
) -> tuple[int, NDArray[np.int32]]:
    """Groups of models that reach each other along wins and ties."""
    ahead, behind = counts[:, WIN] + counts[:, TIE] > 0, counts[:, LOSS] + counts[:, TIE] > 0
    start = np.concatenate([games.first[ahead], games.second[behind]])
    end = np.concatenate([games.second[ahead], games.first[behind]])
    size = len(games.names)
    graph = sparse.csr_matrix((np.ones(len(start)), (start, end)), shape=(size, size))
    number, labels = sparse.csgraph.connected_components(graph, directed=True, connection=connection)
    return int(number), labels


def _check_connected(games: _Games, counts: NDArray[np.float64], *, ridge: float) -> None:
    number, labels = _components(games, counts, "weak")
    if number > 1:
        raise BadInput(
            f"no comparison joins the groups {_groups(games, labels)}; compare a model of each with one of the others"
        )
    if not counts[:, [WIN, LOSS]].any():
        raise BadInput("all comparisons are ties, which fits any strengths of equal models; give decided comparisons")
    number, labels = _components(games, counts, "strong")
    if number > 1 and ridge == 0:
        raise BadInput(
            f"no finite strengths: between the groups {_groups(games, labels)} one side never lost or tied; "
            "add comparisons between them, or set a ridge above 0"
        )


def _groups(games: _Games, labels: NDArray[np.int32]) -> str:
    groups = [[name for name, own in zip(games.names, labels, strict=True) if own == label] for label in set(labels)]
    return " and ".join("{" + ", ".join(group) + "}" for group in sorted(groups))


def _fit(games: _Games, counts: NDArray[np.float64], *, tie_model: TieModel, ridge: float, start: _Fit | None) -> _Fit:
    num_models, total = len(games.names), float(counts.sum())
    with_ties = bool(counts[:, TIE].any())
    likelihood = _davidson if tie_model == "davidson" else _rao_kupper

    def objective(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        beta, tie = x[:num_models], float(x[-1]) if with_ties else None
        value, of_difference, of_tie = likelihood(beta[games.first] - beta[games.second], tie, counts)
        gradient = -ridge * beta
        np.add.at(gradient, games.first, of_difference)
        np.add.at(gradient, games.second, -of_difference)
        slope = np.append(gradient, of_tie) if with_ties else gradient
        return -(value - ridge / 2 * float(beta @ beta)) / total, -slope / total

    x0 = np.zeros(num_models) if start is None else start.beta
    bounds: list[tuple[float | None, float | None]] = [(None, None)] * num_models
    if with_ties:
        x0, bounds = np.append(x0, 0.5), [*bounds, _BOUNDS[tie_model]]
    options = {"gtol": 1e-8, "ftol": 1e-15, "maxiter": 1000}
    found = optimize.minimize(objective, x0, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    beta = found.x[:num_models] - found.x[:num_models].mean()
    none = 0.0 if tie_model == "davidson" else 1.0
    tie = float(found.x[-1]) if with_ties else None
    value = likelihood(beta[games.first] - beta[games.second], tie, counts)[0]
    return _Fit(beta=beta, tie=none if tie is None else math.exp(tie), log_likelihood=value)


def _refits(
    games: _Games, best: _Fit, *, tie_model: TieModel, ridge: float, seed: int, num_draws: int
) -> NDArray[np.float64]:
    """Log strengths and the tie parameter of each draw of clusters (draw, model + 1); NaN where none are finite."""
    num_clusters = len(games.counts)
    draws = np.full((num_draws, len(games.names) + 1), np.nan)
    if num_clusters < 2:
        return draws
    weights = drawn_weights(generator(seed, "ranking"), num_units=num_clusters, num_draws=num_draws)
    for i, drawn in enumerate(np.tensordot(weights, games.counts, axes=1)):
        decided = bool(drawn[:, [WIN, LOSS]].any())
        if decided and (ridge > 0 or _components(games, drawn, "strong")[0] == 1):
            fit = _fit(games, drawn, tie_model=tie_model, ridge=ridge, start=best)
            draws[i] = [*fit.beta, fit.tie]
    return draws


_Likelihood: TypeAlias = tuple[float, NDArray[np.float64], float]  # value, slopes of the differences, slope of the tie


def _davidson(difference: NDArray[np.float64], log_nu: float | None, counts: NDArray[np.float64]) -> _Likelihood:
    win, tie, loss = counts.T
    scores = np.stack(
        [difference / 2, np.full_like(difference, -np.inf if log_nu is None else log_nu), -difference / 2]
    )
    whole = special.logsumexp(scores, axis=0)
    chance = np.exp(scores - whole)
    total = counts.sum(axis=1)
    value = (win - loss) @ difference / 2 - total @ whole + (0.0 if log_nu is None else log_nu * tie.sum())
    slope = (win - loss - total * (chance[0] - chance[2])) / 2
    return float(value), slope, float((tie - total * chance[1]).sum())


def _rao_kupper(difference: NDArray[np.float64], log_theta: float | None, counts: NDArray[np.float64]) -> _Likelihood:
    win, tie, loss = counts.T
    shift = 0.0 if log_theta is None else log_theta
    ahead, behind = difference - shift, -difference - shift
    value = (win + tie) @ special.log_expit(ahead) + (loss + tie) @ special.log_expit(behind)
    up, down = (win + tie) * special.expit(-ahead), (loss + tie) * special.expit(-behind)
    if log_theta is None:
        return float(value), up - down, 0.0
    value += tie.sum() * math.log(math.expm1(2 * log_theta))
    of_tie = tie.sum() * 2 / -math.expm1(-2 * log_theta) - (up + down).sum()
    return float(value), up - down, float(of_tie)


def _rank_intervals(draws: NDArray[np.float64], *, level: float) -> NDArray[np.float64] | None:
    """The interval of each model's rank (low or high, model), from draws of strengths (draw, model)."""
    defined = draws[~np.isnan(draws).any(axis=1)]
    if len(draws) - len(defined) > MAX_UNDEFINED * len(draws):
        return None
    ranks = 1 + (defined[:, None, :] > defined[:, :, None]).sum(axis=2)
    tail = (1 - level) / 2
    result: NDArray[np.float64] = np.quantile(ranks, [tail, 1 - tail], axis=0, method="inverted_cdf")
    return result
