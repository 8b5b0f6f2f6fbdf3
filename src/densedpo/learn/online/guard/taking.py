"""The guard: clips of a fixed prompt set from the policy in force, judged and measured, every few rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from densedpo.adapters.trained import ADAPTER_FILE
from densedpo.core.media import read_pair_mp4
from densedpo.core.records import CLIP_SIDES
from densedpo.core.workspace import Project
from densedpo.generate.rollouts import PromptVisit, RolloutSettings, plan_rollouts
from densedpo.learn.online.guard.looks import HELD_OUT, REWARD, GuardClip, Look, write_look
from densedpo.learn.online.jury import Jury, Sitting
from densedpo.learn.online.rollouts import make_rollouts
from densedpo.learn.online.round import make_project
from densedpo.learn.processes.meanwhile import first_works
from densedpo.metrics.appearance import clip_feature, distances_to_others
from densedpo.metrics.frames import frame_scores
from densedpo.metrics.motion import FLOW_FPS, measure_motion

if TYPE_CHECKING:
    from pathlib import Path

    from densedpo.core.records import ClipSide, Pair, Prompt
    from densedpo.judge.pairset import PairSet
    from densedpo.judge.protocol import Frames
    from densedpo.learn.online.choose import Rewards
    from densedpo.learn.online.policy import Policy
    from densedpo.learn.processes.team import Team

GUARD: Final = "guard"


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardBench:
    """What a look works with; the jury sits on the first process alone."""

    folder: Path
    policy: Policy
    prompts: Sequence[Prompt]
    settings: RolloutSettings
    jury: Jury | None
    team: Team
    poll: Callable[[], None]


def look_folder(folder: Path, number: int) -> Path:
    """Where the look after so many rounds lies in a run's folder."""
    return folder / "guards" / f"{number:04d}"


def take_look(bench: GuardBench, number: int) -> Look | None:
    """Makes the clips of a look, by all processes; the first judges and measures them. The adapter is kept beside it.

    Returns:
        The look, on the first process; None on the others.

    Raises:
        Interrupted, BadInput: see `judging.waiting_for` and `rollouts.make_rollouts`.
    """
    project = Project(root=look_folder(bench.folder, number))
    bench.team.first_does(lambda: make_project(project))
    visits = [PromptVisit(prompt=prompt, visit=0) for prompt in bench.prompts]
    plan = plan_rollouts(project, project, GUARD, visits, bench.settings).pairs
    bench.policy.save(project.root / ADAPTER_FILE)
    with ExitStack() as held:
        sitting = None
        if bench.jury is not None:
            sitting = held.enter_context(Sitting(bench.jury, bench.jury.all, plan.folder, project.labels_db))
        take = None if sitting is None else sitting.take
        make_rollouts(bench.policy.model, plan, bench.team, poll=bench.poll, take=take)
        return first_works(bench.team, lambda poll: _measured(bench, number, sitting, poll), bench.poll)


def _measured(bench: GuardBench, number: int, sitting: Sitting | None, poll: Callable[[], None]) -> Look:
    """What the first process sees in the clips."""
    assert bench.jury is not None
    assert sitting is not None
    pairs = sitting.judged(poll)
    scores = {REWARD: bench.jury.scores(pairs, sitting.store)}
    if bench.jury.held_out is not None:
        scores[HELD_OUT] = bench.jury.held_out_scores(pairs, sitting.store)
    clips = []
    for pair in pairs:
        poll()
        clips += _clips(pair, pairs, scores)
    look = Look(round=number, step=bench.policy.step, policy=bench.settings.policy, clips=tuple(clips))
    write_look(look_folder(bench.folder, number), look)
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
