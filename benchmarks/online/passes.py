"""What the study of online runs takes: passes of the denoiser, counted, and processor time, from a few timed pieces."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from densedpo.learn.online.config import OnlineConfig

# a pass of the reference without a graph, and one of the policy with its backward, which takes two more
PASSES_IN_STEP: Final = 1 + 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """Seconds of a processor for one clip: a pass of the denoiser, decoding and storing it, judging, measuring it."""

    pass_s: float
    store_s: float
    judge_s: float
    measure_s: float


def sampled_clips(config: OnlineConfig) -> int:
    """Clips that are made and judged in all rounds; looks come on top."""
    return config.num_rounds * config.prompts_per_round * config.rollouts


def sampling_passes(config: OnlineConfig, *, num_steps: int) -> int:
    """Passes of one clip through the denoiser to make all rollouts; guidance takes two in a step.

    Args:
        num_steps: of the sampler, from pure noise; rollouts that start from a clip take fewer.
    """
    return sampled_clips(config) * num_steps * 2


def learning_passes(config: OnlineConfig) -> int:
    """The same for all steps of all rounds, where no round is empty."""
    return round(learning_passes_of(config, config.training.num_steps))


def learning_passes_of(config: OnlineConfig, num_steps: float) -> float:
    """The same for so many steps, two clips to a pair."""
    return num_steps * 2 * config.learn.window_pairs * PASSES_IN_STEP


def clips_of_looks(config: OnlineConfig) -> int:
    """Clips that the guard makes, two to a prompt."""
    every = config.guard.every
    num_looks = len({*range(0, config.num_rounds, every), config.num_rounds}) if every else 0
    return num_looks * 2 * config.guard.num_prompts


def seconds_of_arm(config: OnlineConfig, costs: Costs, *, num_steps: int, measured_clips: int) -> float:
    """Of one seed of an arm, its measurement included."""
    looked_at = clips_of_looks(config)
    made = sampled_clips(config) + looked_at
    passes = sampling_passes(config, num_steps=num_steps) + 2 * num_steps * looked_at + learning_passes(config)
    rounds = passes * costs.pass_s + made * (costs.store_s + costs.judge_s) + looked_at * costs.measure_s
    return rounds + measured_clips * (2 * num_steps * costs.pass_s + costs.store_s + costs.measure_s)


def timed_costs(model_name: str) -> Costs:
    """Times each piece on some clips of noise; loads the model and the shipped reward, writes one file and removes it.

    What is measured of a clip takes what the guard's measures take and a judge's look; reports add a little.
    """
    import tempfile
    from pathlib import Path

    import torch

    from densedpo.adapters import load
    from densedpo.core import seeds
    from densedpo.core.media import write_pair_mp4
    from densedpo.generate.plan import pixel_scale
    from densedpo.judge.reward.judge import RewardConfig, RewardJudge
    from densedpo.metrics.frames import frame_scores
    from densedpo.metrics.motion import FLOW_FPS, measure_motion

    model, num_clips = load(model_name), 8
    geometry = model.geometry
    x_t = torch.stack([seeds.noise(geometry.latent_shape, "plan", index) for index in range(num_clips)])
    text, t = model.encode_text(["a red circle"] * num_clips), torch.full((num_clips,), 0.5)
    with torch.no_grad():
        pass_s = _seconds(lambda: model.predict(x_t, t, text)) / num_clips
    clip = model.decode_latents(x_t[:1])[0]
    with tempfile.TemporaryDirectory() as folder:

        def store() -> None:
            frames = model.decode_latents(x_t[:2])
            write_pair_mp4(
                Path(folder) / "pair.mp4", frames[0], frames[1], fps=geometry.fps, pixel_scale=pixel_scale(geometry)
            )

        store_s = _seconds(store) / 2
    reward = RewardJudge(RewardConfig())
    whole = [(0, geometry.num_frames)]
    judge_s = _seconds(lambda: reward.scores(clip, whole, fps=geometry.fps))

    def measure() -> None:
        frame_scores(clip)
        measure_motion(clip, fps=geometry.fps, at_fps=min(geometry.fps, FLOW_FPS))

    return Costs(pass_s=pass_s, store_s=store_s, judge_s=judge_s, measure_s=_seconds(measure) + judge_s)


def _seconds(work: Callable[[], object]) -> float:
    """The smaller of two times of the processor, which what else runs does not count in: the first one warms up."""
    found = math.inf
    for _ in range(2):
        started = time.process_time()
        work()
        found = min(found, time.process_time() - started)
    return found
