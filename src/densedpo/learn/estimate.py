"""What a run will cost, from one timed step: `densedpo learn offline ... --dry-run`."""

from __future__ import annotations

import math
import resource
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import torch

from densedpo.core.progress import duration_text
from densedpo.learn.builder import tried
from densedpo.learn.execution import compile_blocks
from densedpo.learn.feed.batch import KEPT_LATENTS_BYTES
from densedpo.learn.models import load_model
from densedpo.learn.step import build_optimizer, take_step

if TYPE_CHECKING:
    from densedpo.adapters.base import VideoModel
    from densedpo.learn.config import LearnConfig
    from densedpo.learn.run import RunInputs

# adapter, two moments and the best adapter in each checkpoint; the adapter again at the end
_COPIES_IN_CHECKPOINT: Final = 4
# a forward without a graph, against forward and backward; the reference and the policy each run it
_FORWARD_SHARE: Final = 1 / 3


@dataclass(frozen=True, kw_only=True, slots=True)
class RunEstimate:
    """What a run will take, the fill of the reference cache and the evaluations among it."""

    num_clips: int
    num_train_pairs: int
    num_validation_pairs: int
    num_parameters: int
    step_s: float
    time_s: float
    disk_bytes: int
    memory_bytes: int

    def __str__(self) -> str:
        """The estimate in one line."""
        data = [f"{self.num_clips} real clips"] if self.num_clips else []
        if self.num_train_pairs or self.num_validation_pairs:
            data += [f"{self.num_train_pairs} training and {self.num_validation_pairs} validation pairs"]
        return (
            f"{', '.join(data)}, "
            f"{self.num_parameters:,} parameters: about {duration_text(self.time_s)} ({self.step_s:.2f} s a step), "
            f"{self.disk_bytes / 1e6:.1f} MB of disk, {self.memory_bytes / 1e6:.0f} MB of memory at the peak"
        )


def estimate_run(inputs: RunInputs) -> RunEstimate:
    """Times two steps on the run's device, the first to warm up; writes nothing.

    The steps are the run's own with a live reference, so fresh draws are timed exactly and cached ones from above. Of a
    step of many forwards one is timed.
    """
    config = inputs.config
    timed = replace(inputs, config=config.model_copy(update={"accumulation": 1}))
    model, parameters = load_model(inputs)
    if config.compile_blocks:
        compile_blocks(model.denoiser)
    task, optimizer = tried(timed, model), build_optimizer(parameters, config)
    step_s = math.inf
    for step in (1, 2):
        started = time.perf_counter()
        take_step(task, optimizer, timed.config, step=step, update=step - 1, poll=lambda: None)
        step_s = min(step_s, config.accumulation * (time.perf_counter() - started))
    num_parameters = sum(parameter.numel() for parameter in parameters.values())
    return RunEstimate(
        num_clips=len(inputs.clips),
        num_train_pairs=len(inputs.splits.train),
        num_validation_pairs=len(inputs.splits.validation),
        num_parameters=num_parameters,
        step_s=step_s,
        time_s=config.num_steps * step_s + _evaluation_pairs(inputs) * step_s / config.window_pairs * _FORWARD_SHARE,
        disk_bytes=_disk_bytes(inputs, model, num_parameters),
        memory_bytes=_peak_bytes(torch.device(config.device)) + _latent_bytes(inputs, model),
    )


def _evaluation_pairs(inputs: RunInputs) -> int:
    """Pairs that the evaluations, the fill of their reference and the part that is left out run forward."""
    config, splits = inputs.config, inputs.splits
    num_evaluations = 0 if config.eval_every == 0 else 2 + config.num_steps // config.eval_every
    # the drift takes the reference once more, on one draw
    in_evaluations = num_evaluations * (config.eval_draws + 1) + config.eval_draws
    return in_evaluations * len(splits.validation) + 2 * config.fold_draws * len(splits.left_out)


def _disk_bytes(inputs: RunInputs, model: VideoModel, num_parameters: int) -> int:
    config: LearnConfig = inputs.config
    draws = config.draws if isinstance(config.draws, int) else 0
    rows = len(inputs.splits.train) * draws + len(inputs.splits.validation) * config.eval_draws
    checkpoints = config.keep_checkpoints * _COPIES_IN_CHECKPOINT + 1
    return 4 * num_parameters * checkpoints + 4 * rows * 2 * model.geometry.num_latent_frames


def _latent_bytes(inputs: RunInputs, model: VideoModel) -> int:
    """What is read into memory and kept there."""
    own = model.geometry.latent_shape
    pairs = (*inputs.splits.train, *inputs.splits.validation)
    num_elements = sum(2 * math.prod(pair.latent_shape or own) for pair in pairs) + len(inputs.clips) * math.prod(own)
    return min(4 * num_elements, KEPT_LATENTS_BYTES)


def _peak_bytes(device: torch.device) -> int:
    """The peak so far: of the device where there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts in bytes, Linux in KiB
