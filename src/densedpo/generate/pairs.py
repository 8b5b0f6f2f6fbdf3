"""Makes the pairs of a plan: batches through the denoiser, and each pair on disk before its row says so."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save

from densedpo.adapters import load
from densedpo.adapters.trained import load_trained
from densedpo.core.errors import BadInput
from densedpo.core.progress import track
from densedpo.core.workspace import stamp_path, write_atomic, write_stamp, writing
from densedpo.generate.first_frames import encode_first_frames, first_tensors
from densedpo.generate.guided import guided_start, read_clip_latents
from densedpo.generate.independent import independent_start
from densedpo.generate.resume import prepare, sort_rows
from densedpo.generate.sampler import PairStart, sample, stack_schedules
from densedpo.generate.videos import Beside, beside_of, finishing

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

    from jaxtyping import Bool, Float
    from torch import Tensor

    from densedpo.adapters.base import FirstFrame, TextCondition, VideoModel
    from densedpo.core.records import Pair
    from densedpo.generate.plan import PairPlan, PlannedPair


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledPair:
    """A pair and its latents, not yet on the disk; `mask` is where they differ, for what was made so.

    `first` is the frame that both clips continue, one row of it.
    """

    pair: Pair
    latents: Float[Tensor, "2 c f h w"]
    mask: Bool[Tensor, "f h w"] | None = None
    first: FirstFrame | None = None


def generate_pairs(plan: PairPlan) -> int:
    """Makes the pairs of a plan that its folder lacks; cut short at any moment, the same call goes on.

    Returns:
        How many pairs were made.

    Raises:
        BadInput: another process writes there, other settings made what is there, a damaged input, a full disk.
    """

    def made(todo: Sequence[PlannedPair], folder: Path) -> Iterator[Pair]:
        model = load_model(plan, captions=plan.project.captions)
        model.encode_ahead(["", *(planned.pair.caption for planned in todo)])
        return make_pairs(model, todo, folder, plan.pairs_per_batch, beside=beside_of(plan, len(todo)))

    return fill(plan, made, inputs=[plan.project.clips, *plan.above])


def fill(
    plan: PairPlan, made: Callable[[Sequence[PlannedPair], Path], Iterator[Pair]], *, inputs: Sequence[Path]
) -> int:
    """Makes what a plan's folder lacks, and stamps it when the set is whole; see `generate_pairs`.

    Args:
        made: makes the missing pairs in a folder and yields each when it is on the disk in full.
        inputs: the artefacts that the pairs are made from.
    """
    with writing(plan.folder) as folder:
        todo = begin_filling(plan)
        if todo:
            for _ in track(made(todo, folder), total=len(todo), what="generating pairs"):
                pass
        end_filling(plan, inputs=inputs)
    return len(todo)


def begin_filling(plan: PairPlan) -> tuple[PlannedPair, ...]:
    """Makes a plan's folder ready, under its lock; returns what it lacks.

    The stamp says that the set is whole: it comes last, and goes first when pairs are added.
    """
    todo = prepare(plan)
    if todo:
        stamp_path(plan.folder).unlink(missing_ok=True)
    return todo


def end_filling(plan: PairPlan, *, inputs: Sequence[Path]) -> None:
    """Stamps a plan's folder that lacks nothing any more, under its lock."""
    if not stamp_path(plan.folder).exists():
        sort_rows(plan)
        write_stamp(plan.folder, list(inputs), plan.project)


def load_model(plan: PairPlan, *, captions: Path | None = None) -> VideoModel:
    """The plan's model on its device, with what a run has left where the plan names one.

    Args:
        captions: where embeddings of captions are kept.
    """
    dtype = torch.bfloat16 if plan.settings["dtype"] == "bfloat16" else torch.float32
    model = load(plan.model, device=plan.device, dtype=dtype, captions=captions)
    if plan.start is not None:
        load_trained(model, plan.start)
    return model


def start_of(model: VideoModel, planned: PlannedPair) -> PairStart:
    """Where the two halves of a planned pair start."""
    if planned.clip_latents is None:
        return independent_start(model, planned.pair)
    clip = read_clip_latents(planned.clip_latents, model.geometry.latent_shape)
    return guided_start(model, planned.pair, clip)


def first_of(model: VideoModel, batch: Sequence[PlannedPair]) -> FirstFrame | None:
    """The frames that some pairs continue, one row each; None where the model is text-to-video.

    Raises:
        BadInput: a pair of an image-to-video model without a frame, or a damaged video.
    """
    if not model.geometry.num_given_frames:
        return None
    files = [planned.first for planned in batch if planned.first is not None]
    if len(files) < len(batch):
        raise BadInput("this model continues a first frame, and these pairs have none: they are not supported for it")
    return encode_first_frames(model, files)


def condition_of(model: VideoModel, batch: Sequence[PlannedPair], first: FirstFrame | None) -> TextCondition:
    """What guides both halves of some pairs: a, b of the first, a, b of the second.

    Args:
        first: the pairs' frames, from `first_of`.
    """
    text = model.encode_text([planned.pair.caption for planned in batch for _ in "ab"])
    return text.given(None if first is None else first.rows(torch.arange(len(batch)).repeat_interleave(2)))


def sample_pairs(
    model: VideoModel, batch: Sequence[PlannedPair], first: FirstFrame | None = None
) -> Float[Tensor, "pair 2 c f h w"]:
    """The latents of some pairs, a and b, with all their halves in one batch of the denoiser.

    Each pair has its own schedule. A pair does not depend on the batch that it is in beyond float tolerance.

    Args:
        first: the frames that the pairs continue, from `first_of`.
    """
    starts = [start_of(model, planned) for planned in batch]
    halves = torch.stack([half for start in starts for half in (start.a, start.b)])
    latents = sample(
        model,
        start=halves,
        sigmas=stack_schedules([start.sigmas for start in starts]).repeat_interleave(2, dim=0),
        text=condition_of(model, batch, first),
        null_text=model.encode_text([""]),
        guidance_scale=batch[0].pair.guidance_scale,
    )
    return latents.cpu().reshape(len(batch), 2, *latents.shape[1:])


def with_frames(
    batch: Sequence[PlannedPair], latents: Float[Tensor, "pair 2 c f h w"], first: FirstFrame | None
) -> Iterator[SampledPair]:
    """Some pairs with their latents, each with its own of the frames that they continue."""
    for index, (planned, halves) in enumerate(zip(batch, latents, strict=True)):
        own = None if first is None else first.rows(torch.tensor([index]))
        yield SampledPair(pair=planned.pair, latents=halves, first=own)


def make_pairs(
    model: VideoModel,
    todo: Sequence[PlannedPair],
    folder: Path,
    pairs_per_batch: int,
    *,
    beside: Beside | None = None,
) -> Iterator[Pair]:
    """Makes pairs with a loaded model, its adapter included, and yields each when it is on the disk in full.

    Args:
        beside: what decodes one batch while the next is denoised; by default the model does, in turns.
    """

    def sampled() -> Iterator[SampledPair]:
        for first in range(0, len(todo), pairs_per_batch):
            batch = todo[first : first + pairs_per_batch]
            given = first_of(model, batch)
            yield from with_frames(batch, sample_pairs(model, batch, given), given)

    return write_pairs(model, sampled(), folder, beside=beside, behind=pairs_per_batch)


def write_pairs(
    model: VideoModel, sampled: Iterable[SampledPair], folder: Path, *, beside: Beside | None, behind: int
) -> Iterator[Pair]:
    """Puts pairs on the disk as they are sampled: latents, then the video, then the row; yields each when it is there.

    Args:
        behind: how many pairs the decoding beside the denoiser may be late, which a kill would make undone.
    """
    waiting: deque[Future[Pair]] = deque()
    with finishing(model, folder, beside) as finish:
        for each in sampled:
            write_latents(each, folder)
            waiting.append(finish(each.pair))
            while waiting and (len(waiting) > behind or waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def write_latents(sampled: SampledPair, folder: Path) -> None:
    """Writes a pair's latents file: both clips, and the mask and the given frame of a pair that has them."""
    a, b = (half.contiguous() for half in sampled.latents)
    masked = {} if sampled.mask is None else {"mask": sampled.mask}
    write_atomic(folder / sampled.pair.latents, save({"a": a, "b": b, **masked, **first_tensors(sampled.first)}))
