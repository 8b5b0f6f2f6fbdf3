"""Pairs of clips that people scored one by one: all of a prompt's, or its best against its worst (HuViDPO).

Equal scores are a tie. Each person's scores are compared apart and stored under the same name, so that preferences are
made of them as of any answers; a score that changed or was taken back makes another answer. A clip stands in several
pairs then: these are not independent.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field

from densedpo.core.config import Config
from densedpo.core.errors import BadInput
from densedpo.core.provenance import sha256_json
from densedpo.core.records import CLIP_SIDES, Judgement, write_jsonl
from densedpo.core.workspace import read_stamp, require_fresh, write_stamp, writing
from densedpo.judge.aggregate import latest
from densedpo.judge.pairset import PairSet
from densedpo.judge.protocol import Answer, better
from densedpo.judge.run import now, tool_version
from densedpo.judge.studies.regroup import Half, regrouped, tensors_of, write_regrouped

if TYPE_CHECKING:
    from densedpo.core.workspace import Project
    from densedpo.judge.store import LabelStore

_VERSION: Final = 1
Scores = Mapping[str, Mapping[Half, float]]
"""By person, of each clip that they scored."""


class ScoredConfig(Config):
    """Options of `judge scored`."""

    choose: Literal["all", "best_worst"] = "all"
    """Which clips of a prompt meet: each with each, or the best with the worst by the mean over people."""
    margin: float = Field(0.0, ge=0)
    """Scores that differ by less are a tie, as equal ones are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Said:
    """What a person's scores of both clips of a pair say."""

    answer: Answer
    score_a: float | None = None
    score_b: float | None = None


_NOTHING: Final = _Said(answer="skip")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredPairs:
    """What was made of the scores; a prompt whose clips were scored alike has no best and worst."""

    num_clips: int
    num_pairs: int
    num_ties: int
    num_alike: int


def pair_scored(
    project: Project, name: str, *, source: str, store: LabelStore, config: ScoredConfig, allow_stale: bool = False
) -> ScoredPairs:
    """Writes pairs/<name> of the scored clips of another set, and its answers into the store.

    Clips meet where they have the prompt, the real clip and the first frame in common, and somebody scored both.

    Raises:
        BadInput: the set is missing, corrupted pairs or the new one itself, nobody scored its clips, no two of them
            can meet, or pairs/<name> was made of others.
    """
    if name == source:
        raise BadInput(f"{name!r}: give the new pairs another name than the ones whose clips were scored")
    require_fresh(project.pairs(source), project, allow_stale=allow_stale)
    pairs = PairSet.read(project.pairs(source))
    if any(pair.corruption is not None for pair in pairs):
        raise BadInput(f"pairs/{source} are of real clips and corrupted copies: these are not paired anew")
    scores = _scores(pairs, store)
    chosen, num_alike = _chosen(_groups(pairs, scores), scores, config)
    if not chosen:
        raise BadInput(f"no two scored clips of pairs/{source} are of one prompt and differ; score more of them")
    rows = [(regrouped(a, b, pairs, prefix="scored"), a, b) for a, b in chosen]
    folder = project.pairs(name)
    if (folder / "pairs.jsonl").exists() and PairSet.read(folder).by_id.keys() != {pair.id for pair, _, _ in rows}:
        raise BadInput(f"pairs/{name} holds other pairs; give the new ones another name")
    if not folder.is_dir() or read_stamp(folder) is None:
        with writing(folder):
            for pair, a, b in rows:
                write_regrouped(pair, a, b, pairs, folder)
            write_jsonl(folder / "pairs.jsonl", [pair for pair, _, _ in rows])
            write_stamp(folder, [pairs.folder], project)
    made = PairSet.read(folder)
    said = {
        (pair.id, person): _Said(
            answer=better(of_person[a], of_person[b], config.margin), score_a=of_person[a], score_b=of_person[b]
        )
        for pair, a, b in rows
        for person, of_person in scores.items()
        if a in of_person and b in of_person
    }
    store.append(_news(said, store.judgements(made.hashes), made, source, config), made.hashes)
    return ScoredPairs(
        num_clips=len({half for of_person in scores.values() for half in of_person}),
        num_pairs=len(rows),
        num_ties=sum(each.answer == "tie" for each in said.values()),
        num_alike=num_alike,
    )


def _scores(pairs: PairSet, store: LabelStore) -> dict[str, dict[Half, float]]:
    found: dict[str, dict[Half, float]] = defaultdict(dict)
    for row in latest(store.judgements(pairs.hashes)):
        if row.segment is None and row.answer != "skip" and row.score_a is not None and row.score_b is not None:
            for side, score in zip(CLIP_SIDES, (row.score_a, row.score_b), strict=True):
                found[row.annotator][Half(pair_id=row.pair_id, side=side)] = score
    if not found:
        raise BadInput(
            f"nobody scored the clips of pairs/{pairs.name}; run `densedpo judge serve` with kind = 'scores'"
        )
    return dict(found)


def _groups(pairs: PairSet, scores: Scores) -> list[list[Half]]:
    """The scored clips that may meet, in the order in which they were made."""
    groups: dict[str, list[Half]] = defaultdict(list)
    for pair in pairs:
        halves = [Half(pair_id=pair.id, side=side) for side in CLIP_SIDES]
        scored = [half for half in halves if any(half in of_person for of_person in scores.values())]
        if scored:
            first = _first_frame(halves[0], pairs) if pair.num_given_frames else ""
            groups[sha256_json([pair.prompt_id, pair.clip_id, pair.eta, first])] += scored
    return list(groups.values())


def _first_frame(half: Half, pairs: PairSet) -> str:
    """The hash of the frame that a clip continues."""
    digest = hashlib.sha256()
    for _, tensor in sorted(tensors_of(half, pairs, lambda name: name.startswith("first.")).items()):
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def _chosen(
    groups: Sequence[Sequence[Half]], scores: Scores, config: ScoredConfig
) -> tuple[list[tuple[Half, Half]], int]:
    """The clips that meet, and how many groups have no best and worst."""
    compared = [couples for group in groups if (couples := _compared(group, scores))]
    if config.choose == "all":
        return [couple for couples in compared for couple in couples], 0
    chosen, num_alike = [], 0
    for couples in compared:
        a, b = max(couples, key=lambda couple: abs(_mean(couple[0], scores) - _mean(couple[1], scores)))
        if better(_mean(a, scores), _mean(b, scores), config.margin) == "tie":
            num_alike += 1
        else:
            chosen.append((a, b))
    return chosen, num_alike


def _compared(group: Sequence[Half], scores: Scores) -> list[tuple[Half, Half]]:
    """Each clip of a group with each, where somebody scored both: the scores of two people do not compare clips."""
    return [(a, b) for a, b in combinations(group, 2) if any(a in each and b in each for each in scores.values())]


def _mean(half: Half, scores: Scores) -> float:
    """Over the people who scored it."""
    return fmean(each[half] for each in scores.values() if half in each)


def _news(
    said: Mapping[tuple[str, str], _Said],
    stored: Iterable[Judgement],
    made: PairSet,
    source: str,
    config: ScoredConfig,
) -> list[Judgement]:
    """The answers that are not in force yet; a `skip` where the scores behind one are gone.

    Each id names the answer before it, so that scores that went there and back are an answer again.

    Args:
        said: by pair and person.
        stored: about the made pairs, in the order in which they were stored.
    """
    scored_here = f"scored {_VERSION}: scores of single clips in pairs/{source}, "
    instructions = f"{scored_here}margin {config.margin:g}"
    before = {(row.pair_id, row.annotator): row for row in stored if row.instructions.startswith(scored_here)}
    news = []
    for pair_id, person in dict.fromkeys([*said, *before]):
        now_said, last = said.get((pair_id, person), _NOTHING), before.get((pair_id, person))
        if last is None or now_said != _Said(answer=last.answer, score_a=last.score_a, score_b=last.score_b):
            pair = made.by_id[pair_id]
            news.append(
                Judgement(
                    id=sha256_json([person, made.hashes[pair_id], instructions, last.id if last else None])[:32],
                    pair_id=pair_id,
                    annotator=person,
                    segment=None,
                    start_frame=0,
                    stop_frame=pair.num_frames,
                    answer=now_said.answer,
                    score_a=now_said.score_a,
                    score_b=now_said.score_b,
                    instructions=instructions,
                    tool_version=tool_version(),
                    created_at=now(),
                )
            )
    return news
