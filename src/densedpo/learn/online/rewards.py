"""The judges that an online run is steered by, and their scores of clips as rewards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from pydantic import ValidationError

from densedpo.core.config import Config
from densedpo.core.errors import BadInput
from densedpo.core.records import ClipSide
from densedpo.judge.custom import find, load_judge
from densedpo.judge.oracle import OracleConfig, OracleJudge
from densedpo.judge.pairset import ranges_of
from densedpo.judge.reward.http import HttpConfig, HttpJudge, checked_url
from densedpo.judge.reward.judge import RewardConfig, RewardJudge

if TYPE_CHECKING:
    from densedpo.judge.pairset import PairSet
    from densedpo.judge.protocol import Judge
    from densedpo.judge.store import LabelStore
    from densedpo.learn.online.choose import Rewards
    from densedpo.learn.online.config import RewardChoice

AnyConfig = TypeVar("AnyConfig", bound=Config)
_SHIPPED: Final[dict[str, type[Config]]] = {"reward": RewardConfig, "oracle": OracleConfig, "http": HttpConfig}
# of answers about two clips; a run ranks clips by their scores, and says itself what is a tie
_OF_ANSWERS: Final = ("margin", "error_rate", "motion_bias", "seed")


def check_choice(choice: RewardChoice, *, segment_seconds: float | None) -> Config | None:
    """Refuses what can be seen to be wrong before anything is loaded or asked; a scorer elsewhere is not called.

    Returns:
        The options, with the run's segments; None for a judge from outside, which takes its own.

    Raises:
        BadInput: no such judge, or it does not take these options, or they concern answers and no scores.
    """
    if choice.judge not in _SHIPPED:
        if ":" not in choice.judge:
            raise BadInput(f"judge = {choice.judge!r}: it is one of {', '.join(_SHIPPED)}, or module:Class")
        find(choice.judge)
        return None
    if choice.judge == "http":
        checked_url(choice.url)
    return _options(_SHIPPED[choice.judge], choice, segment_seconds)


def build_judge(choice: RewardChoice, *, segment_seconds: float | None) -> Judge:
    """The judge of a choice, with the run's segments.

    Raises:
        BadInput: see `check_choice`, and what a judge from outside says of its options.
        JudgeUnavailable: it is a scorer elsewhere that does not answer now.
    """
    match check_choice(choice, segment_seconds=segment_seconds):
        case OracleConfig() as options:
            return OracleJudge(options)
        case HttpConfig() as options:
            return HttpJudge(choice.url, options)
        case RewardConfig() as options:
            return RewardJudge(options)
        case _:
            return load_judge(choice.judge, choice.options)


def rewards_of(
    pairs: PairSet,
    store: LabelStore,
    judges: Sequence[Judge],
    weights: Sequence[float],
    *,
    segment_seconds: float | None,
) -> dict[tuple[str, ClipSide], Rewards]:
    """The weighted sum of the judges' scores of each clip, segment by segment.

    A clip that a judge has not scored in full is left out.

    Args:
        segment_seconds: length of the segments that were judged; None: whole clips.

    Raises:
        BadInput: a judge has answered without scores: it compares, and cannot rank several clips.
    """
    found: dict[tuple[str, ClipSide], list[float]] = {}
    complete = {pair.id for pair in pairs}
    for judge, weight in zip(judges, weights, strict=True):
        scores = _scores(pairs, store, judge, segment_seconds)
        complete &= {pair_id for pair_id, _ in scores}
        for key, values in scores.items():
            total = found.setdefault(key, [0.0] * len(values))
            found[key] = [before + weight * value for before, value in zip(total, values, strict=True)]
    return {key: tuple(values) for key, values in found.items() if key[0] in complete}


def _scores(
    pairs: PairSet, store: LabelStore, judge: Judge, segment_seconds: float | None
) -> dict[tuple[str, ClipSide], list[float]]:
    """The scores of the clips of which every segment was scored, in the order of time."""
    by_pair: dict[str, dict[int, tuple[float, float]]] = {pair.id: {} for pair in pairs}
    for row in store.judgements(pairs.hashes, annotators=[judge.annotator]):
        if row.instructions != judge.instructions or row.answer == "skip":
            continue
        if row.score_a is None or row.score_b is None:
            raise BadInput(
                f"judge {judge.annotator!r} gives answers without scores; learn online ranks clips and needs scores"
            )
        by_pair[row.pair_id][row.start_frame] = (row.score_a, row.score_b)
    found: dict[tuple[str, ClipSide], list[float]] = {}
    for pair in pairs:
        starts = [0] if segment_seconds is None else [start for start, _ in ranges_of(pair, segment_seconds)]
        scores = by_pair[pair.id]
        if set(scores) == set(starts):
            found[pair.id, "a"] = [scores[start][0] for start in starts]
            found[pair.id, "b"] = [scores[start][1] for start in starts]
    return found


def _options(cls: type[AnyConfig], choice: RewardChoice, segment_seconds: float | None) -> AnyConfig:
    options = dict(choice.options)
    for name in _OF_ANSWERS:
        if name in options:
            raise BadInput(
                f"options of judge {choice.judge!r}: {name} changes its answers, and learn online goes by its scores; "
                "leave it out (what is a tie is set by margin of the run)"
            )
    if segment_seconds is not None:
        if "segment_seconds" in options:
            raise BadInput(f"{choice.judge}: segment_seconds is set for the whole run, not in the options of a judge")
        options["segment_seconds"] = segment_seconds
    try:
        return cls.model_validate_json(json.dumps(options), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"options of judge {choice.judge!r}: {key!r}: {first['msg']}") from None
