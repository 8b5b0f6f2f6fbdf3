"""The clips that are measured: generated from noise that is the same for every model, or real ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from densedpo import adapters
from densedpo.core.media import read_mp4
from densedpo.core.seeds import noise
from densedpo.generate.sampler import sample
from densedpo.measure.plan import MeasurePlan
from densedpo.measure.run import ClipSource, ClipTask, MadeClip

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from densedpo.adapters.base import VideoModel


def clip_source(plan: MeasurePlan) -> ClipSource:
    """Where the clips of a plan come from; a model is loaded only once clips are asked for."""

    def make(tasks: Sequence[ClipTask]) -> Iterator[MadeClip]:
        match plan.subject.source:
            case "model":
                yield from _generated(plan, _load(plan), tasks)
            case "autoencoder":
                yield from _reconstructed(plan, _load(plan), tasks)
            case "truth":
                yield from _true(plan, tasks)

    return make


def start_noise(model: VideoModel, task: ClipTask, *, seed: int) -> Float[Tensor, "c f h w"]:
    """What a clip starts from: the same bits for every model of one latent shape, whatever the batch or the order."""
    return noise(model.geometry.latent_shape, seed, "measure", task.prompt.id, task.number)


def _load(plan: MeasurePlan) -> VideoModel:
    model = adapters.load(plan.model, device=plan.device)
    if plan.adapter is not None:
        model.load_adapter(plan.adapter)
    return model


def _generated(plan: MeasurePlan, model: VideoModel, tasks: Sequence[ClipTask]) -> Iterator[MadeClip]:
    settings = plan.settings
    assert settings.num_steps is not None
    assert settings.guidance_scale is not None
    sigmas, null_text = model.sigmas(settings.num_steps), model.encode_text([""])
    for batch in _batches(tasks, plan.batch_clips):
        latents = sample(
            model,
            start=torch.stack([start_noise(model, task, seed=settings.seed) for task in batch]),
            sigmas=sigmas,
            text=model.encode_text([task.prompt.caption for task in batch]),
            null_text=null_text,
            guidance_scale=settings.guidance_scale,
        )
        yield from _made(batch, model.decode_latents(latents))


def _reconstructed(plan: MeasurePlan, model: VideoModel, tasks: Sequence[ClipTask]) -> Iterator[MadeClip]:
    for batch in _batches(tasks, plan.batch_clips):
        latents = torch.stack([load_file(plan.clips[task.prompt.id].latents)["latents"] for task in batch])
        yield from _made(batch, model.decode_latents(latents))


def _true(plan: MeasurePlan, tasks: Sequence[ClipTask]) -> Iterator[MadeClip]:
    for task in tasks:
        clip = plan.clips[task.prompt.id]
        frames, _ = read_mp4(clip.video, pixel_scale=clip.pixel_scale)
        yield MadeClip(task=task, frames=frames)


def _made(batch: Sequence[ClipTask], frames: NDArray[np.uint8]) -> Iterator[MadeClip]:
    for task, clip in zip(batch, frames, strict=True):
        yield MadeClip(task=task, frames=clip)


def _batches(tasks: Sequence[ClipTask], size: int) -> Iterator[Sequence[ClipTask]]:
    for start in range(0, len(tasks), size):
        yield tasks[start : start + size]
