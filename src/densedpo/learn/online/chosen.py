"""The pairs of a round as ordinary artefacts: clips copied from the rollouts, answers in the store, preferences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from densedpo.core.records import Judgement, Pair, write_jsonl
from densedpo.core.workspace import read_stamp, write_stamp, writing
from densedpo.judge.pairset import PairSet, ranges_of
from densedpo.judge.preferences import collect, write_preferences
from densedpo.judge.protocol import annotator_name
from densedpo.judge.run import judgement_id, now, tool_version
from densedpo.judge.studies.regroup import Half, regrouped, write_regrouped
from densedpo.learn.online.round import CHOSEN, ROLLOUTS

if TYPE_CHECKING:
    from densedpo.core.workspace import Project
    from densedpo.judge.protocol import Answer, Judge
    from densedpo.judge.store import LabelStore
    from densedpo.learn.online.choose import Choice, Rollout
    from densedpo.learn.online.config import OnlineConfig

_VERSION: Final = 2


def write_chosen(
    project: Project, choices: Sequence[Choice], store: LabelStore, judges: Sequence[Judge], config: OnlineConfig
) -> None:
    """Writes pairs/chosen and preferences/chosen.jsonl of a round; does nothing where they are there already."""
    rollouts, folder = PairSet.read(project.pairs(ROLLOUTS)), project.pairs(CHOSEN)
    # like any pair they have a and b in the order in which they were made
    pairs = [_pair(choice, rollouts) for choice in choices]
    if not folder.is_dir() or read_stamp(folder) is None:
        with writing(folder):
            for choice, pair in zip(choices, pairs, strict=True):
                write_regrouped(pair, _half(choice.a), _half(choice.b), rollouts, folder)
            write_jsonl(folder / "pairs.jsonl", pairs)
            write_stamp(folder, [rollouts.folder], project)
    chosen = PairSet.read(folder)
    annotator, instructions = _signature(judges, config)
    rows = [
        row
        for choice, pair in zip(choices, pairs, strict=True)
        for row in _answers(choice, pair, chosen.hashes[pair.id], annotator, instructions, config)
    ]
    store.append(rows, chosen.hashes)
    seconds = config.segment_seconds or pairs[0].num_frames / pairs[0].fps
    preferences = collect(chosen, store, segment_seconds=seconds, only_annotators=[annotator])
    write_preferences(preferences, project, CHOSEN)


def _pair(choice: Choice, rollouts: PairSet) -> Pair:
    """The row of a chosen pair.

    Noise and t of the steps are drawn by its id, so that this says nothing of the policy, whose last bits depend on how
    many processes there are. A visit to a prompt comes once in a run, and with it its noise keys.
    """
    return regrouped(_half(choice.a), _half(choice.b), rollouts, prefix="chosen", model="policy")


def _half(rollout: Rollout) -> Half:
    return Half(pair_id=rollout.pair_id, side=rollout.side)


def _signature(judges: Sequence[Judge], config: OnlineConfig) -> tuple[str, str]:
    """The annotator of the chosen pairs, and what it went by."""
    meaning = {
        "rewards": [
            {"annotator": judge.annotator, "instructions": judge.instructions, "weight": choice.weight}
            for judge, choice in zip(judges, config.rewards, strict=True)
        ],
        "margin": config.margin,
        "segment_seconds": config.segment_seconds,
    }
    return annotator_name("online", meaning, {}), f"online {_VERSION}: {json.dumps(meaning, sort_keys=True)}"


def _answers(
    choice: Choice, pair: Pair, pair_hash: str, annotator: str, instructions: str, config: OnlineConfig
) -> list[Judgement]:
    """A row for each segment that was judged, and one for the clip: most segments need not say what their mean says."""

    def row(segment: int | None, range_: tuple[int, int], answer: Answer, score_a: float, score_b: float) -> Judgement:
        return Judgement(
            id=judgement_id(annotator, pair_hash, None if segment is None else range_, instructions),
            pair_id=pair.id,
            annotator=annotator,
            segment=segment,
            start_frame=range_[0],
            stop_frame=range_[1],
            answer=answer,
            score_a=score_a,
            score_b=score_b,
            instructions=instructions,
            tool_version=tool_version(),
            created_at=now(),
        )

    a, b = choice.a, choice.b
    whole = row(None, (0, pair.num_frames), choice.whole, a.mean, b.mean)
    if config.segment_seconds is None:
        return [whole]
    ranges = ranges_of(pair, config.segment_seconds)
    parts = zip(ranges, choice.answers, a.rewards, b.rewards, strict=True)
    return [whole, *(row(index, *part) for index, part in enumerate(parts))]
