"""The clips that are measured: generated from noise that is the same for every model, or real ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from densedpo import adapters
from densedpo.adapters.trained import load_trained
from densedpo.core.errors import BadInput
from densedpo.core.media import read_mp4
from densedpo.core.paths import without_signal
from densedpo.core.seeds import noise
from densedpo.generate.first_frames import encode_first_frames
from densedpo.generate.sampler import sample
from densedpo.measure.plan import MeasurePlan
from densedpo.measure.run import ClipSource, ClipTask, MadeClip

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from densedpo.adapters.base import FirstFrame, VideoModel


FPS_TOLERANCE: Final = 0.01


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
    model = adapters.load(plan.model, device=plan.device, captions=plan.project.captions)
    if plan.adapter is not None:
        load_trained(model, plan.adapter)
    return model


def _generated(plan: MeasurePlan, model: VideoModel, tasks: Sequence[ClipTask]) -> Iterator[MadeClip]:
    settings = plan.settings
    assert settings.num_steps is not None
    assert settings.guidance_scale is not None
    model.encode_ahead(["", *(task.prompt.caption for task in tasks)])
    sigmas, null_text = model.sigmas(settings.num_steps).cpu(), model.encode_text([""])
    for batch in _batches(tasks, plan.batch_clips):
        eps = torch.stack([start_noise(model, task, seed=settings.seed) for task in batch])
        latents = sample(
            model,
            start=without_signal(eps, sigmas[:1].expand(len(batch))),
            sigmas=sigmas,
            text=model.encode_text([task.prompt.caption for task in batch]).given(_first(plan, model, batch)),
            null_text=null_text,
            guidance_scale=settings.guidance_scale,
        )
        yield from _made(batch, model.decode_latents(latents))


def _first(plan: MeasurePlan, model: VideoModel, batch: Sequence[ClipTask]) -> FirstFrame | None:
    """The first frames that are continued, for a model that continues one."""
    if not model.geometry.num_given_frames:
        return None
    found = [(plan.first[task.prompt.id], task.number) for task in batch]
    return encode_first_frames(model, [files[number % len(files)] for files, number in found])


def _reconstructed(plan: MeasurePlan, model: VideoModel, tasks: Sequence[ClipTask]) -> Iterator[MadeClip]:
    shape = model.geometry.latent_shape
    for batch in _batches(tasks, plan.batch_clips):
        whole: list[ClipTask] = []
        latents: list[Float[Tensor, "c f h w"]] = []
        for task in batch:
            found = _latents(plan.clips[task.prompt.id].latents, shape)
            if isinstance(found, str):
                yield MadeClip(task=task, frames=None, fault=found)
            else:
                whole.append(task)
                latents.append(found)
        if whole:
            yield from _made(whole, model.decode_latents(torch.stack(latents)))


def _latents(path: Path, shape: tuple[int, ...]) -> Float[Tensor, "c f h w"] | str:
    """The latents of a clip, or why there are none."""
    try:
        found = load_file(path).get("latents")
    except (OSError, SafetensorError) as error:
        return f"its latents cannot be read ({str(error).splitlines()[0]})"
    if found is None or tuple(found.shape) != shape or not bool(found.isfinite().all()):
        return f"its latents are not finite numbers of shape {list(shape)}"
    return found


def _true(plan: MeasurePlan, tasks: Sequence[ClipTask]) -> Iterator[MadeClip]:
    for task in tasks:
        clip = plan.clips[task.prompt.id]
        try:
            frames, fps = read_mp4(clip.video, pixel_scale=clip.pixel_scale)
        except BadInput as error:
            # a report names no place of this machine
            yield MadeClip(task=task, frames=None, fault=str(error).replace(f"{plan.project.root}/", ""))
            continue
        wanted = plan.settings.fps
        fault = "" if abs(fps - wanted) < FPS_TOLERANCE else f"{fps:g} frames per second instead of {wanted:g}"
        yield MadeClip(task=task, frames=frames, fault=fault)


def _made(batch: Sequence[ClipTask], frames: NDArray[np.uint8]) -> Iterator[MadeClip]:
    for task, clip in zip(batch, frames, strict=True):
        yield MadeClip(task=task, frames=clip)


def _batches(tasks: Sequence[ClipTask], size: int) -> Iterator[Sequence[ClipTask]]:
    for start in range(0, len(tasks), size):
        yield tasks[start : start + size]
