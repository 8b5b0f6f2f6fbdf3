"""Makes the pairs of a plan of corrupted copies, through the files and the resuming that all pairs share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from densedpo.core.errors import BadInput
from densedpo.core.media import read_mp4
from densedpo.core.seeds import generator, noise
from densedpo.generate.corrupted.edits import edited
from densedpo.generate.corrupted.inpaint import regenerate
from densedpo.generate.corrupted.masks import random_mask
from densedpo.generate.estimate import estimate_by
from densedpo.generate.guided import read_clip_latents, sigmas_of
from densedpo.generate.pairs import SampledPair, fill, load_model, write_pairs
from densedpo.generate.sampler import stack_schedules
from densedpo.generate.videos import beside_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from jaxtyping import Bool, Float
    from torch import Tensor

    from densedpo.adapters.base import VideoModel
    from densedpo.core.records import Pair
    from densedpo.generate.corrupted.plan import CorruptedPlan
    from densedpo.generate.estimate import Estimate
    from densedpo.generate.plan import PlannedPair


def generate_corrupted(plan: CorruptedPlan) -> int:
    """Makes the pairs that the folder lacks; cut short at any moment, the same call goes on.

    Returns:
        How many pairs were made.

    Raises:
        BadInput: another process writes there, other settings made what is there, a damaged input, a full disk.
    """
    return fill(plan.pairs, lambda todo, folder: _made(plan, todo, folder), inputs=[plan.pairs.project.clips])


def _made(plan: CorruptedPlan, todo: Sequence[PlannedPair], folder: Path) -> Iterator[Pair]:
    """Yields each pair when it is on the disk in full."""
    model = load_model(plan.pairs, captions=plan.pairs.project.captions)
    captions = [planned.pair.caption for planned in todo if _is_made_anew(planned.pair)]
    if captions:
        model.encode_ahead(["", *captions])
    at_once = plan.pairs.pairs_per_batch

    def sampled() -> Iterator[SampledPair]:
        for first in range(0, len(todo), at_once):
            yield from corrupt(model, plan, todo[first : first + at_once])

    return write_pairs(model, sampled(), folder, beside=beside_of(plan.pairs, len(todo)), behind=at_once)


def corrupt(model: VideoModel, plan: CorruptedPlan, batch: Sequence[PlannedPair]) -> Iterator[SampledPair]:
    """The latents of some pairs, in their order; what a model makes anew is denoised in one batch."""
    shape = model.geometry.latent_shape
    real = {planned.pair.id: _real_latents(planned, shape) for planned in batch}
    anew = [planned.pair for planned in batch if _is_made_anew(planned.pair)]
    masks = {pair.id: mask_of(pair, plan.mask_share[pair.id], shape[1:]) for pair in anew}
    made = _regenerated(model, anew, real, masks)
    for planned in batch:
        pair = planned.pair
        worse = made[pair.id] if pair.id in made else _edited_latents(model, plan, pair)
        assert pair.corruption is not None
        sides = (real[pair.id], worse) if pair.corruption.real == "a" else (worse, real[pair.id])
        yield SampledPair(pair=pair, latents=torch.stack(sides), mask=masks.get(pair.id))


def estimate_corrupted(plan: CorruptedPlan, todo: Sequence[PlannedPair]) -> Estimate:
    """Makes one pair of each corruption and decodes one clip, on the plan's device; writes nothing."""

    def seconds(model: VideoModel) -> float:
        by_kind: dict[str, list[PlannedPair]] = {}
        for planned in todo:
            assert planned.pair.corruption is not None
            by_kind.setdefault(planned.pair.corruption.kind, []).append(planned)
        total, latents = 0.0, None
        for same in by_kind.values():
            for _ in range(2):  # the first loads and warms up
                started = time.perf_counter()
                latents = next(corrupt(model, plan, same[:1])).latents
                each = time.perf_counter() - started
            total += len(same) * each
        assert latents is not None
        started = time.perf_counter()
        model.decode_latents(latents)
        return total + len(todo) * (time.perf_counter() - started)

    return estimate_by(plan.pairs, todo, seconds)


def mask_of(pair: Pair, share: float, grid: tuple[int, int, int]) -> Bool[Tensor, "f h w"]:
    """Where a regenerated pair's copy is made anew: the same cells whenever it is asked for."""
    return torch.from_numpy(random_mask(grid, share, generator(_noise_key(pair), "mask")))


def _is_made_anew(pair: Pair) -> bool:
    assert pair.corruption is not None
    return pair.corruption.kind == "regenerated"


def _noise_key(pair: Pair) -> str:
    """The one key of the pair: a real clip has none."""
    return pair.noise_key_a or pair.noise_key_b


def _real_latents(planned: PlannedPair, shape: tuple[int, int, int, int]) -> Float[Tensor, "c f h w"]:
    assert planned.clip_latents is not None
    return read_clip_latents(planned.clip_latents, shape)


def _regenerated(
    model: VideoModel,
    pairs: Sequence[Pair],
    real: dict[str, Float[Tensor, "c f h w"]],
    masks: dict[str, Bool[Tensor, "f h w"]],
) -> dict[str, Float[Tensor, "c f h w"]]:
    if not pairs:
        return {}
    latents = regenerate(
        model,
        clips=torch.stack([real[pair.id] for pair in pairs]),
        noise=torch.stack([noise(model.geometry.latent_shape, _noise_key(pair)) for pair in pairs]),
        masks=torch.stack([masks[pair.id] for pair in pairs]),
        sigmas=stack_schedules([sigmas_of(model, pair) for pair in pairs]),
        text=model.encode_text([pair.caption for pair in pairs]),
        null_text=model.encode_text([""]),
        guidance_scale=pairs[0].guidance_scale,
    )
    return {pair.id: each for pair, each in zip(pairs, latents, strict=True)}


def _edited_latents(model: VideoModel, plan: CorruptedPlan, pair: Pair) -> Float[Tensor, "c f h w"]:
    """The edited pixels of the real clip through the autoencoder, once, as the real clip itself went through it."""
    clip = plan.clips[pair.clip_id or ""]
    path = plan.pairs.project.clips / clip.video
    frames, _ = read_mp4(path, pixel_scale=clip.pixel_scale)
    if frames.shape != (clip.num_frames, clip.height, clip.width, 3):
        raise BadInput(f"{path} is not the clip that clips.jsonl says; run `densedpo data add` again")
    assert pair.corruption is not None
    worse = edited(frames, pair.corruption, generator(_noise_key(pair), "edit"))
    return model.encode_video(worse[None])[0].float().cpu()
