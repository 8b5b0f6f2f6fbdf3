"""The guard: clips of a fixed prompt set from the policy in force, judged and measured, every few rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from densedpo.core.media import read_pair_mp4
from densedpo.core.records import CLIP_SIDES
from densedpo.generate.rollouts import PromptVisit, RolloutSettings, plan_rollouts
from densedpo.judge.pairset import PairSet
from densedpo.judge.store import LabelStore
from densedpo.learn.export import ADAPTER_FILE
from densedpo.learn.online.judging import Patience, judge_all
from densedpo.learn.online.looks import HELD_OUT, REWARD, GuardClip, Look, read_look, write_look
from densedpo.learn.online.rewards import rewards_of
from densedpo.learn.online.rollouts import make_and_judge
from densedpo.learn.online.round import nested_project
from densedpo.metrics.appearance import clip_feature, distances_to_others
from densedpo.metrics.frames import frame_scores
from densedpo.metrics.motion import FLOW_FPS, measure_motion

if TYPE_CHECKING:
    from pathlib import Path

    from densedpo.adapters.base import VideoModel
    from densedpo.core.records import ClipSide, Pair, Prompt
    from densedpo.judge.protocol import Frames, Judge
    from densedpo.learn.online.choose import Rewards

GUARD: Final = "guard"


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardBench:
    """What a look works with. `held_out` is a judge that training does not see."""

    folder: Path
    model: VideoModel
    prompts: Sequence[Prompt]
    settings: RolloutSettings
    rewards: Sequence[Judge]
    weights: Sequence[float]
    held_out: Judge | None
    segment_seconds: float | None
    patience: Patience


def look_folder(folder: Path, number: int) -> Path:
    """Where the look after so many rounds lies in a run's folder."""
    return folder / "guards" / f"{number:04d}"


def take_look(bench: GuardBench, number: int, step: int) -> Look:
    """Makes, judges and measures the clips of a look, or reads it where it is there; keeps the adapter beside it.

    Raises:
        Interrupted, BadInput: see `judging.waiting_for` and `generate.pairs.fill`.
    """
    root = look_folder(bench.folder, number)
    found = read_look(root)
    if found is not None:
        return found
    project = nested_project(root)
    visits = [PromptVisit(prompt=prompt, visit=0) for prompt in bench.prompts]
    plan = plan_rollouts(project, project, GUARD, visits, bench.settings)
    bench.model.save_adapter(root / ADAPTER_FILE)
    held_out = [bench.held_out] if bench.held_out is not None else []
    judges = [*bench.rewards, *held_out]
    with LabelStore.open(project.labels_db) as store:
        make_and_judge(bench.model, plan.pairs, judges, store, bench.segment_seconds, bench.patience)
        pairs = PairSet.read(plan.pairs.folder)
        for judge in judges:
            judge_all(judge, pairs, store, segment_seconds=bench.segment_seconds, patience=bench.patience)
        scores = {
            name: rewards_of(pairs, store, some, weights, segment_seconds=bench.segment_seconds)
            for name, some, weights in ((REWARD, bench.rewards, bench.weights), (HELD_OUT, held_out, [1.0]))
            if some
        }
    clips = [clip for pair in pairs for clip in _clips(pair, pairs, scores)]
    look = Look(round=number, step=step, policy=bench.settings.policy, clips=tuple(clips))
    write_look(root, look)
    return look


def _clips(pair: Pair, pairs: PairSet, scores: dict[str, dict[tuple[str, ClipSide], Rewards]]) -> list[GuardClip]:
    clips = read_pair_mp4(pairs.folder / pair.video, pixel_scale=pair.pixel_scale)
    apart = distances_to_others([clip_feature(clip) for clip in clips])
    rows = []
    for seed, (side, clip) in enumerate(zip(CLIP_SIDES, clips, strict=True)):
        values: dict[str, float | None] = {
            "motion": _motion(clip, fps=pair.fps),
            "diversity": float(apart[seed]),
            "saturation": frame_scores(clip).saturation,
        }
        for name, found in scores.items():
            rewards = found.get((pair.id, side))
            values[name] = sum(rewards) / len(rewards) if rewards else None
        rows.append(GuardClip(prompt_id=pair.prompt_id, seed=seed, values=values))
    return rows


def _motion(clip: Frames, *, fps: float) -> float | None:
    """Mean flow over the whole frame, in pixels a frame; None for a clip of one frame."""
    return measure_motion(clip, fps=fps, at_fps=min(fps, FLOW_FPS)).frame_px if len(clip) > 1 else None
