"""Makes the pairs of a plan: batches through the denoiser, and each pair on disk before its row says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save

from densedpo.adapters import load
from densedpo.core.media import write_pair_mp4
from densedpo.core.progress import track
from densedpo.core.records import to_row
from densedpo.core.workspace import append_jsonl, stamp_path, write_atomic, write_stamp, writing
from densedpo.generate.guided import guided_start, read_clip_latents
from densedpo.generate.independent import independent_start
from densedpo.generate.resume import PAIRS_FILE, prepare, sort_rows
from densedpo.generate.sampler import PairStart, sample, stack_schedules

if TYPE_CHECKING:
    from pathlib import Path

    from jaxtyping import Float
    from torch import Tensor

    from densedpo.adapters.base import VideoModel
    from densedpo.core.records import Pair
    from densedpo.generate.plan import PairPlan, PlannedPair


def generate_pairs(plan: PairPlan) -> int:
    """Makes the pairs of a plan that its folder lacks; cut short at any moment, the same call goes on.

    Returns:
        How many pairs were made.

    Raises:
        BadInput: another process writes there, other settings made what is there, a damaged input, a full disk.
    """

    def made(todo: Sequence[PlannedPair], folder: Path) -> Iterator[Pair]:
        return make_pairs(load_model(plan), todo, folder, plan.pairs_per_batch)

    return fill(plan, made, inputs=[plan.project.clips])


def fill(
    plan: PairPlan, made: Callable[[Sequence[PlannedPair], Path], Iterator[Pair]], *, inputs: Sequence[Path]
) -> int:
    """Makes what a plan's folder lacks, and stamps it when the set is whole; see `generate_pairs`.

    Args:
        made: makes the missing pairs in a folder and yields each when it is on the disk in full.
        inputs: the artefacts that the pairs are made from.
    """
    with writing(plan.folder) as folder:
        todo = prepare(plan)
        if todo:
            # the stamp says that the set is whole: it comes last, and goes first when pairs are added
            stamp_path(folder).unlink(missing_ok=True)
            for _ in track(made(todo, folder), total=len(todo), what="generating pairs"):
                pass
        if not stamp_path(folder).exists():
            sort_rows(plan)
            write_stamp(folder, list(inputs), plan.project)
    return len(todo)


def load_model(plan: PairPlan) -> VideoModel:
    """The plan's model on its device."""
    dtype = torch.bfloat16 if plan.settings["dtype"] == "bfloat16" else torch.float32
    return load(plan.model, device=plan.device, dtype=dtype)


def start_of(model: VideoModel, planned: PlannedPair) -> PairStart:
    """Where the two halves of a planned pair start."""
    if planned.clip_latents is None:
        return independent_start(model, planned.pair)
    clip = read_clip_latents(planned.clip_latents, model.geometry.latent_shape)
    return guided_start(model, planned.pair, clip)


def sample_pairs(model: VideoModel, batch: Sequence[PlannedPair]) -> Float[Tensor, "pair 2 c f h w"]:
    """The latents of some pairs, a and b, with all their halves in one batch of the denoiser.

    Each pair has its own schedule. A pair does not depend on the batch that it is in beyond float tolerance.
    """
    starts = [start_of(model, planned) for planned in batch]
    halves = torch.stack([half for start in starts for half in (start.a, start.b)])
    latents = sample(
        model,
        start=halves,
        sigmas=stack_schedules([start.sigmas for start in starts]).repeat_interleave(2, dim=0),
        text=model.encode_text([planned.pair.caption for planned in batch for _ in "ab"]),
        null_text=model.encode_text([""]),
        guidance_scale=batch[0].pair.guidance_scale,
    )
    return latents.cpu().reshape(len(batch), 2, *latents.shape[1:])


def make_pairs(model: VideoModel, todo: Sequence[PlannedPair], folder: Path, pairs_per_batch: int) -> Iterator[Pair]:
    """Makes pairs with a loaded model, its adapter included, and yields each when it is on the disk in full."""
    for first in range(0, len(todo), pairs_per_batch):
        batch = todo[first : first + pairs_per_batch]
        for planned, latents in zip(batch, sample_pairs(model, batch), strict=True):
            write_pair(model, planned.pair, latents, folder)
            yield planned.pair


def write_pair(model: VideoModel, pair: Pair, latents: Float[Tensor, "2 c f h w"], folder: Path) -> None:
    """Latents, then the video, then the row: a row is never without its files."""
    a, b = latents[0].contiguous(), latents[1].contiguous()
    write_atomic(folder / pair.latents, save({"a": a, "b": b}))
    frames = model.decode_latents(latents)
    write_pair_mp4(folder / pair.video, frames[0], frames[1], fps=pair.fps, pixel_scale=pair.pixel_scale)
    append_jsonl(folder / PAIRS_FILE, to_row(pair))
