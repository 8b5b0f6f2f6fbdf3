"""Do judges pay for stillness? Statistics MB1, MB2 and MB6 to MB8 over pairs whose motion is known, and alarms.

MB3 to MB5, which need a judge's answers about altered clips, are in `probes.py`. Everything here is a pure function of
arrays, so it serves for people, for models and for simulated annotators. Any measure of motion will do, as long as it
is one and the same for all clips. An alarm is a reason to look, not a proof: MB1 and MB2 also fire where the clips that
move more are truly worse, which is why MB7 compares pairs of two kinds and MB6 asks what is left at equal motion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from densedpo.core.errors import BadInput
from densedpo.metrics.rates import win_rate
from densedpo.metrics.statistics import LEVEL, NUM_DRAWS, Estimate, Key, paired_difference, resampled_bounds

Floats = NDArray[np.float64]

MAX_MB6_GAP: Final = 0.05
MAX_MB7_RATIO: Final = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class BiasCheck:
    """One statistic, what it is held against, and whether it is a cause for alarm.

    `estimate` is None where it could not be computed, and `reason` then says why; there is no alarm then, unless not
    to know it is one for who asked.
    """

    name: str
    meaning: str
    estimate: Estimate | None
    against: float
    alarm: bool
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedPairs:
    """Answers about pairs of clips, one row for each: who won, how much each side moves, and what else may matter.

    `answer` is +1 where a won, -1 where b did, 0 for a tie. `a_first` says whether a was shown first (or on the left),
    `model_a` and `model_b` what made the clips; None where it is not known, and then nothing is made of it.

    Raises:
        BadInput: the columns have different lengths, an answer is none of the three, or motion is no finite number.
    """

    prompt: Sequence[str]
    answer: NDArray[np.int64]
    motion_a: Floats
    motion_b: Floats
    a_first: NDArray[np.bool_] | None = None
    model_a: Sequence[str] | None = None
    model_b: Sequence[str] | None = None

    def __post_init__(self) -> None:
        columns = (self.answer, self.motion_a, self.motion_b, self.a_first, self.model_a, self.model_b)
        lengths = {len(column) for column in (self.prompt, *columns) if column is not None}
        if len(lengths) != 1:
            raise BadInput(f"the columns of judged pairs have lengths {sorted(lengths)}; each row needs all of them")
        if not np.isin(self.answer, (-1, 0, 1)).all():
            raise BadInput("an answer is +1 (a won), -1 (b won) or 0 (tie); leave out rows without an answer")
        if not (np.isfinite(self.motion_a).all() and np.isfinite(self.motion_b).all()):
            raise BadInput("motion has to be a finite number for every clip; leave out pairs where it is not known")
        if (self.model_a is None) != (self.model_b is None):
            raise BadInput("the models of both sides have to be given, or of neither")

    @property
    def difference(self) -> Floats:
        """Motion of a less motion of b."""
        return np.asarray(self.motion_a - self.motion_b, dtype=np.float64)


def preference_slope(pairs: JudgedPairs) -> BiasCheck:
    """MB1: how the odds of winning change with motion, by logistic regression over the pairs without a tie.

    log odds(a wins) = gamma * (difference in motion / its standard deviation) + side + strengths of the models. The
    interval is a sandwich clustered by prompt, with Student's t. Alarm: it lies wholly below 0.
    """
    estimate, reason = _regression(pairs, {"motion": 1.0})
    alarm = estimate is not None and estimate.high is not None and estimate.high < 0
    return BiasCheck(
        name="MB1",
        meaning="change of the log odds of winning per standard deviation of motion",
        estimate=estimate,
        against=0.0,
        alarm=alarm,
        reason=reason,
    )


def low_motion_share(pairs: JudgedPairs, *, threshold: float, seed: int, num_draws: int = NUM_DRAWS) -> BiasCheck:
    """MB2: the share won by the clip that moves less, of decided pairs whose motion differs by more than a threshold.

    Alarm: its interval lies wholly above one half.
    """
    far = np.abs(pairs.difference) > threshold
    outcomes = _outcomes(pairs, far, -np.sign(pairs.difference) * pairs.answer)
    rates = win_rate(outcomes, seed=seed, num_draws=num_draws)
    estimate = rates.decided if rates is not None else None
    reason = "" if estimate is not None else f"no decided pair differs in motion by more than {threshold:g}"
    return BiasCheck(
        name="MB2",
        meaning="share of decided pairs won by the clip that moves less",
        estimate=estimate,
        against=0.5,
        alarm=estimate is not None and estimate.low is not None and estimate.low > 0.5,
        reason=reason,
    )


def controlled_win_rate(
    pairs: JudgedPairs, *, model: str, other: str, seed: int, num_draws: int = NUM_DRAWS
) -> BiasCheck:
    """MB6: how often one model would win over another if both moved alike and each came first equally often.

    `against` is the win rate as counted, over the decided pairs of the two. Alarm: the two are over 5 points apart.

    Raises:
        BadInput: no decided pair is of these two models.
    """
    if pairs.model_a is None or pairs.model_b is None:
        raise BadInput("a win rate between models needs to know which model made each clip")
    of_a, of_b = np.asarray(pairs.model_a), np.asarray(pairs.model_b)
    forward, backward = (of_a == model) & (of_b == other), (of_a == other) & (of_b == model)
    outcomes = _outcomes(pairs, forward | backward, np.where(forward, pairs.answer, -pairs.answer))
    rates = win_rate(outcomes, seed=seed, num_draws=num_draws)
    if rates is None or rates.decided is None:
        raise BadInput(f"no decided pair is of {model!r} and {other!r}; name two models that were compared")
    estimate, reason = _regression(pairs, {f"model {model}": 1.0, f"model {other}": -1.0})
    if estimate is not None:
        estimate = replace(
            estimate,
            value=_logistic(estimate.value),
            low=None if estimate.low is None else _logistic(estimate.low),
            high=None if estimate.high is None else _logistic(estimate.high),
            method=f"win rate at equal motion; {estimate.method}",
        )
    return BiasCheck(
        name="MB6",
        meaning=f"win rate of {model} over {other} at equal motion",
        estimate=estimate,
        against=rates.decided.value,
        alarm=estimate is not None and abs(estimate.value - rates.decided.value) > MAX_MB6_GAP,
        reason=reason,
    )


def alignment_ratio(
    aligned: Mapping[Key, float | None],
    independent: Mapping[Key, float | None],
    *,
    seed: int,
    num_draws: int = NUM_DRAWS,
) -> BiasCheck:
    """MB7: how far apart the clips of an aligned pair are, as a share of how far apart those of independent ones are.

    The values are distances within pairs (of motion, or of features), by prompt and number; none is negative. Alarm:
    the ratio is over one half, and what aligned pairs are for does not hold.

    Raises:
        BadInput: a distance is negative.
    """
    prompts = sorted({prompt for prompt, _ in (*aligned, *independent)})
    table = [_means_of(values, prompts) for values in (aligned, independent)]
    present = [~np.isnan(means) for means in table]
    filled = [np.nan_to_num(means) for means in table]

    def ratio(weights: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            top, bottom = ((weights @ f) / (weights @ p) for f, p in zip(filled, present, strict=True))
            result = top / bottom
        return np.where(np.isfinite(result), result, np.nan)

    value = float(ratio(np.ones((1, len(prompts))))[0]) if prompts else float("nan")
    estimate, reason = None, "pairs of both kinds are needed, and independent ones that differ at all"
    if np.isfinite(value):
        bounds = resampled_bounds(ratio, num_units=len(prompts), unit="prompts", seed=seed, num_draws=num_draws)
        every = [*aligned.values(), *independent.values()]
        num_values = sum(each is not None for each in every)
        estimate, reason = (
            Estimate(
                value=value, low=bounds.low, high=bounds.high, n=len(prompts), num_values=num_values,
                num_excluded=len(every) - num_values, method=f"ratio of means over prompts; {bounds.method}", seed=seed,
            ),
            "",
        )  # fmt: skip
    return BiasCheck(
        name="MB7",
        meaning="distance within aligned pairs over distance within independent pairs",
        estimate=estimate,
        against=MAX_MB7_RATIO,
        alarm=estimate is not None and estimate.value > MAX_MB7_RATIO,
        reason=reason,
    )


def motion_drift(
    reference: Mapping[Key, float | None],
    policy: Mapping[Key, float | None],
    *,
    seed: int,
    num_draws: int = NUM_DRAWS,
) -> BiasCheck:
    """MB8: motion of the policy less that of the reference on the same prompts and seeds.

    Alarm: its interval lies wholly below 0: training has cost motion.

    Raises:
        BadInput: the two do not hold the same prompts and seeds.
    """
    estimate = paired_difference(reference, policy, seed=seed, num_draws=num_draws)
    return BiasCheck(
        name="MB8",
        meaning="motion of the policy less motion of the reference",
        estimate=estimate,
        against=0.0,
        alarm=estimate is not None and estimate.high is not None and estimate.high < 0,
        reason="" if estimate is not None else "no clip has a motion in both",
    )


def _outcomes(pairs: JudgedPairs, chosen: NDArray[np.bool_], outcome: NDArray[np.number]) -> dict[Key, int | None]:
    return {(pairs.prompt[i], i): int(outcome[i]) for i in np.flatnonzero(chosen).tolist()}


def _means_of(values: Mapping[Key, float | None], prompts: Sequence[str]) -> Floats:
    own: dict[str, list[float]] = {prompt: [] for prompt in prompts}
    for (prompt, number), value in values.items():
        if value is not None:
            if not value >= 0:
                raise BadInput(f"the distance of prompt {prompt} pair {number} is {value}; distances are 0 or more")
            own[prompt].append(value)
    return np.array([np.mean(own[prompt]) if own[prompt] else np.nan for prompt in prompts])


def _logistic(value: float) -> float:
    return float(1 / (1 + np.exp(-value)))


def _design(pairs: JudgedPairs, decided: NDArray[np.bool_]) -> dict[str, Floats]:
    """The columns of the regression, each +1 / -1 / 0 or a number that swapping a and b negates."""
    difference = pairs.difference[decided]
    spread = float(difference.std())
    columns = {"motion": difference / spread if spread > 0 else difference}
    if pairs.a_first is not None:
        columns["side"] = np.where(pairs.a_first[decided], 1.0, -1.0)
    if pairs.model_a is not None and pairs.model_b is not None:
        of_a, of_b = np.asarray(pairs.model_a)[decided], np.asarray(pairs.model_b)[decided]
        met = sorted({*of_a[of_a != of_b].tolist(), *of_b[of_a != of_b].tolist()})
        for model in met[1:]:  # the first is what the others' strengths are measured from
            columns[f"model {model}"] = (of_a == model).astype(np.float64) - (of_b == model)
    return columns


def _regression(pairs: JudgedPairs, contrast: Mapping[str, float]) -> tuple[Estimate | None, str]:
    """A combination of the coefficients with its interval, or why there is none."""
    import statsmodels.api as sm

    decided = pairs.answer != 0
    columns = _design(pairs, decided)
    table = np.stack(list(columns.values()), axis=1)
    won = (pairs.answer[decided] > 0).astype(np.float64)
    _, cluster = np.unique(np.asarray(pairs.prompt)[decided], return_inverse=True)
    num_clusters = int(cluster.max()) + 1 if len(cluster) else 0
    reason = _why_no_fit(columns, table, won, num_clusters)
    if reason:
        return None, reason
    fit = sm.Logit(won, table).fit(
        disp=0, maxiter=100, cov_type="cluster", use_t=True, cov_kwds={"groups": cluster, "df_correction": True}
    )
    weights = np.array([contrast.get(name, 0.0) for name in columns])
    test = fit.t_test(weights)
    low, high = np.asarray(test.conf_int(alpha=1 - LEVEL), dtype=np.float64).ravel().tolist()
    estimate = Estimate(
        value=float(np.squeeze(test.effect)),
        low=low,
        high=high,
        n=num_clusters,
        num_values=len(won),
        num_excluded=int((~decided).sum()),
        method=f"logistic regression on {', '.join(columns)}; ties left out; sandwich clustered by prompt, Student's t",
        seed=0,
    )
    return estimate, ""


def _why_no_fit(columns: Mapping[str, Floats], table: Floats, won: Floats, num_clusters: int) -> str:
    if num_clusters <= table.shape[1] + 1:
        return f"{num_clusters} prompts with a decided pair are too few for {table.shape[1]} coefficients"
    if np.linalg.matrix_rank(table) < table.shape[1]:
        return f"{', '.join(columns)} cannot be told apart in these pairs"
    # a direction along which no answer is wrong: the likelihood grows without end along it (Albert and Anderson 1984)
    signed = np.where(won[:, None] > 0, table, -table)
    best = optimize.linprog(-signed.sum(axis=0), A_ub=-signed, b_ub=np.zeros(len(won)), bounds=(-1, 1))
    if best.status == 0 and -best.fun > 1e-6 * len(won):
        which = [name for name, weight in zip(columns, best.x, strict=True) if abs(weight) > 1e-6]
        return f"the answers follow {', '.join(which)} without exception, so that no finite coefficient fits best"
    return ""
