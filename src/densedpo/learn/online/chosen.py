"""The pairs of a round as ordinary artefacts: clips copied from the rollouts, answers in the store, preferences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from safetensors.torch import load_file, save

from densedpo.core.media import read_pair_mp4, write_pair_mp4
from densedpo.core.provenance import sha256_json
from densedpo.core.records import Judgement, Pair, write_jsonl
from densedpo.core.workspace import read_stamp, write_atomic, write_stamp, writing
from densedpo.judge.pairset import PairSet, ranges_of
from densedpo.judge.preferences import collect, write_preferences
from densedpo.judge.protocol import annotator_name
from densedpo.judge.run import judgement_id, now, tool_version
from densedpo.learn.online.round import CHOSEN, ROLLOUTS

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from densedpo.core.workspace import Project
    from densedpo.judge.protocol import Frames, Judge
    from densedpo.judge.store import LabelStore
    from densedpo.learn.online.choose import Choice, Rollout
    from densedpo.learn.online.config import OnlineConfig

_VERSION: Final = 1


def write_chosen(
    project: Project, choices: Sequence[Choice], store: LabelStore, judges: Sequence[Judge], config: OnlineConfig
) -> None:
    """Writes pairs/chosen and preferences/chosen.jsonl of a round; does nothing where they are there already."""
    rollouts, folder = PairSet.read(project.pairs(ROLLOUTS)), project.pairs(CHOSEN)
    pairs = [_pair(choice, rollouts) for choice in choices]
    if not folder.is_dir() or read_stamp(folder) is None:
        with writing(folder):
            for choice, pair in zip(choices, pairs, strict=True):
                _write_clips(choice, pair, rollouts, folder)
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
    """The row of a chosen pair; like any pair it has a and b in the order in which they were made."""
    of_a, of_b = rollouts.by_id[choice.a.pair_id], rollouts.by_id[choice.b.pair_id]
    keys = (_noise_key(of_a, choice.a), _noise_key(of_b, choice.b))
    pair_id = f"chosen-{sha256_json([of_a.model, *keys, of_a.caption])[:16]}"
    return replace(
        of_a,
        id=pair_id,
        noise_key_a=keys[0],
        noise_key_b=keys[1],
        video=f"videos/{pair_id}.mp4",
        latents=f"latents/{pair_id}.safetensors",
    )


def _noise_key(pair: Pair, rollout: Rollout) -> str:
    return pair.noise_key_a if rollout.side == "a" else pair.noise_key_b


def _write_clips(choice: Choice, pair: Pair, rollouts: PairSet, folder: Path) -> None:
    latents = {"a": _latents(choice.a, rollouts), "b": _latents(choice.b, rollouts)}
    write_atomic(folder / pair.latents, save(latents))
    (folder / pair.video).parent.mkdir(exist_ok=True)
    a, b = (_frames(rollout, rollouts) for rollout in (choice.a, choice.b))
    write_pair_mp4(folder / pair.video, a, b, fps=pair.fps, pixel_scale=pair.pixel_scale)


def _latents(rollout: Rollout, rollouts: PairSet) -> torch.Tensor:
    return load_file(rollouts.folder / rollouts.by_id[rollout.pair_id].latents)[rollout.side]


def _frames(rollout: Rollout, rollouts: PairSet) -> Frames:
    pair = rollouts.by_id[rollout.pair_id]
    a, b = read_pair_mp4(rollouts.folder / pair.video, pixel_scale=pair.pixel_scale)
    return a if rollout.side == "a" else b


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
    whole = config.segment_seconds is None
    ranges = ((0, pair.num_frames),) if config.segment_seconds is None else ranges_of(pair, config.segment_seconds)
    return [
        Judgement(
            id=judgement_id(annotator, pair_hash, None if whole else range_, instructions),
            pair_id=pair.id,
            annotator=annotator,
            segment=None if whole else index,
            start_frame=range_[0],
            stop_frame=range_[1],
            answer=answer,
            score_a=score_a,
            score_b=score_b,
            instructions=instructions,
            tool_version=tool_version(),
            created_at=now(),
        )
        for index, (range_, answer, score_a, score_b) in enumerate(
            zip(ranges, choice.answers, choice.a.rewards, choice.b.rewards, strict=True)
        )
    ]
