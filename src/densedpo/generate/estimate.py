"""What a plan will cost, from one timed step: `densedpo generate ... --dry-run`."""

from __future__ import annotations

import math
import resource
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from densedpo.generate.first_frames import first_tensors
from densedpo.generate.pairs import condition_of, first_of, load_model, start_of
from densedpo.generate.sampler import sample, stack_schedules

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from densedpo.adapters.base import FirstFrame, VideoModel
    from densedpo.generate.arena import ArenaPlan
    from densedpo.generate.plan import PairPlan, PlannedPair

VIDEO_BITS_PER_PIXEL: Final = 0.5  # of H.264 at crf 8 on ordinary footage; plain scenes take a tenth of it


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What is still to be made, and what it will take."""

    num_pairs: int
    num_done: int
    disk_bytes: int
    time_s: float
    memory_bytes: int

    def __str__(self) -> str:
        """The estimate in one line."""
        from densedpo.core.progress import duration_text

        return (
            f"{self.num_pairs} pairs to make ({self.num_done} are there): about {duration_text(self.time_s)}, "
            f"{size_text(self.disk_bytes)} of disk, {size_text(self.memory_bytes)} of memory at the peak"
        )


def estimate(plan: PairPlan, todo: Sequence[PlannedPair]) -> Estimate:
    """Times one step of one batch and one decoded clip on the plan's device; writes nothing."""
    return estimate_by(plan, todo, lambda model: _seconds(plan, todo, model))


def estimate_arena(plan: ArenaPlan, todo: Sequence[PlannedPair]) -> Estimate:
    """The same of an arena's pairs, with both models loaded, as they are while it is made."""

    def seconds(first: VideoModel) -> float:
        # a clip of each model costs what two clips of one do; the second is there for the peak of memory
        second = load_model(plan.pairs)
        plan.first.load_onto(first)
        plan.second.load_onto(second)
        return (_seconds(plan.pairs, todo, first) + _seconds(plan.pairs, todo, second)) / 2

    return estimate_by(plan.pairs, todo, seconds)


def estimate_by(plan: PairPlan, todo: Sequence[PlannedPair], seconds: Callable[[VideoModel], float]) -> Estimate:
    """The estimate of a plan of any kind; writes nothing.

    Args:
        seconds: how long what is to be made will take, by timing some of it with the plan's model.
    """
    num_done = len(plan.pairs) - len(todo)
    if not todo:
        return Estimate(num_pairs=0, num_done=num_done, disk_bytes=0, time_s=0.0, memory_bytes=0)
    model = load_model(plan)
    time_s = seconds(model)
    return Estimate(
        num_pairs=len(todo),
        num_done=num_done,
        disk_bytes=len(todo) * _pair_bytes(model, first_of(model, todo[:1])),
        time_s=time_s,
        memory_bytes=peak_bytes(torch.device(plan.device)),
    )


def _seconds(plan: PairPlan, todo: Sequence[PlannedPair], model: VideoModel) -> float:
    """What pairs of a plan will take by one model."""
    batch = todo[: plan.pairs_per_batch]
    num_steps = sum(len(start_of(model, planned).sigmas) - 1 for planned in batch) / len(batch)
    step_s, decode_s = _time_step(model, batch)
    return math.ceil(len(todo) / len(batch)) * num_steps * step_s + 2 * len(todo) * decode_s


def _time_step(model: VideoModel, batch: Sequence[PlannedPair]) -> tuple[float, float]:
    """Seconds of one step of a batch, guidance included, and of decoding one clip, after one step to warm up."""
    starts = [start_of(model, planned) for planned in batch]
    halves = torch.stack([half for start in starts for half in (start.a, start.b)])
    one_step = stack_schedules([start.sigmas[[0, -1]] for start in starts]).repeat_interleave(2, dim=0)
    text = condition_of(model, batch, first_of(model, batch))
    step_s, latents = better_of_two(
        lambda: sample(
            model,
            start=halves,
            sigmas=one_step,
            text=text,
            null_text=model.encode_text([""]),
            guidance_scale=batch[0].pair.guidance_scale,
        ).cpu()  # waits for the device
    )
    started = time.perf_counter()
    model.decode_latents(latents[:1])
    return step_s, time.perf_counter() - started


def better_of_two(work: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Seconds of some work, the first time of which may warm up, and what it made."""
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        made = work()
        seconds.append(time.perf_counter() - started)
    return min(seconds), made


def _pair_bytes(model: VideoModel, first: FirstFrame | None) -> int:
    """Of both clips' latents and video, and of the frame that they continue."""
    geometry = model.geometry
    pixels = 2 * geometry.num_frames * geometry.height * geometry.width
    given = sum(tensor.numel() * tensor.element_size() for tensor in first_tensors(first).values())
    return 2 * 4 * math.prod(geometry.latent_shape) + given + round(pixels * VIDEO_BITS_PER_PIXEL / 8)


def peak_bytes(device: torch.device) -> int:
    """The peak so far: of the device where there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts in bytes, Linux in KiB


def size_text(size: float) -> str:
    """An amount of memory or disk as a person says it."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if size >= 10 or unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")
