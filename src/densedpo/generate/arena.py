"""Pairs for an arena: for each prompt a clip of one model beside a clip of another, from the same noise.

`a` is always the first model and `b` the second; who judges them does not know, since the studio draws the sides. The
pairs are for comparing models: learning refuses them, as no policy made both clips.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from densedpo.adapters import catalogue
from densedpo.adapters.trained import fingerprint_with, load_trained, trained_by
from densedpo.core.errors import BadInput
from densedpo.core.provenance import sha256_json
from densedpo.core.records import Pair, Prompt
from densedpo.core.workspace import Project
from densedpo.generate.config import ArenaConfig
from densedpo.generate.plan import PairPlan, PairRequest, PlannedPair, pair_of, request_for
from densedpo.generate.prompts import select_prompts
from densedpo.generate.real_clips import continues_frame, first_frames_of

if TYPE_CHECKING:
    from jaxtyping import Float
    from pydantic import JsonValue
    from torch import Tensor

    from densedpo.adapters.base import FirstFrame, VideoModel
    from densedpo.generate.pairs import SampledPair

BASE: Final = "base"


@dataclass(frozen=True, kw_only=True, slots=True)
class Contestant:
    """A model: the base, or the base with what a run has left. `name` is what the settings call it."""

    name: str
    model: Path
    adapter: Path | None

    @property
    def fingerprint(self) -> str:
        """Identity of what makes its clips."""
        return fingerprint_with(catalogue.fingerprint(self.model), self.adapter)

    def load_onto(self, model: VideoModel) -> None:
        """Makes the base into the contestant; a base stays as it is."""
        if self.adapter is not None:
            load_trained(model, self.adapter)


@dataclass(frozen=True, kw_only=True, slots=True)
class ArenaPlan:
    """The pairs to make, and by whom."""

    pairs: PairPlan
    first: Contestant
    second: Contestant


def contestant(project: Project, name: str, *, model: str | Path) -> Contestant:
    """The base model by the name `base`, or a run of the project by its name.

    Raises:
        BadInput: there is no such run, or it is not finished.
    """
    folder = catalogue.find(model)
    if name == BASE:
        return Contestant(name=name, model=folder, adapter=None)
    return Contestant(name=name, model=folder, adapter=trained_by(project, name, model=model))


def plan_arena(
    project: Project, name: str, first: str, second: str, *, model: str | Path, config: ArenaConfig
) -> ArenaPlan:
    """The plan for one pair for each prompt.

    Raises:
        BadInput: no such model or run, twice the same, or no prompts in these splits.
    """
    a, b = (contestant(project, each, model=model) for each in (first, second))
    if a == b:
        raise BadInput(f"an arena is between two models, not {first} and {second}; name two runs, or a run and {BASE}")
    prompts = select_prompts(project, config.splits, seed=config.seed, allow_clipless=not continues_frame(model))
    if len(prompts) < config.num_pairs:
        raise BadInput(f"num_pairs = {config.num_pairs}, but these splits hold {len(prompts)} prompts")
    request = request_for(
        "arena",
        model,
        weights=sha256_json([a.fingerprint, b.fingerprint]),
        num_steps=config.num_steps,
        guidance_scale=config.guidance_scale,
        seed=config.seed,
    )
    frames = first_frames_of(project, prompts[: config.num_pairs], model=model)
    pairs = PairPlan(
        project=project,
        folder=project.pairs(name),
        model=a.model,
        device=config.device,
        pairs_per_batch=config.pairs_per_batch,
        decode=config.decode,
        settings={
            "kind": request.kind,
            "model": request.model,
            "a": a.name,
            "b": b.name,
            "num_steps": request.num_steps,
            "guidance_scale": request.guidance_scale,
            "seed": request.seed,
            "splits": list(config.splits),
            "dtype": config.dtype,
        },
        pairs=tuple(
            PlannedPair(
                pair=_record(request, prompt, dtype=config.dtype), clip_latents=None, first=frames.get(prompt.id)
            )
            for prompt in prompts[: config.num_pairs]
        ),
    )
    return ArenaPlan(pairs=pairs, first=a, second=b)


def generate_arena(plan: ArenaPlan) -> int:
    """Makes the pairs that the folder lacks; cut short at any moment, the same call goes on.

    Returns:
        How many pairs were made.

    Raises:
        BadInput: another process writes there, other settings made what is there, a full disk.
    """
    from densedpo.generate.pairs import fill

    pairs = plan.pairs
    runs = [pairs.project.run(each.name) for each in (plan.first, plan.second) if each.adapter is not None]
    return fill(pairs, lambda todo, folder: _made(plan, todo, folder), inputs=[pairs.project.clips, *runs])


def _made(plan: ArenaPlan, todo: Sequence[PlannedPair], folder: Path) -> Iterator[Pair]:
    """Yields each pair when it is on the disk in full."""
    import torch

    from densedpo.generate.pairs import first_of, load_model, with_frames, write_pairs
    from densedpo.generate.videos import beside_of

    models = []
    for each in (plan.first, plan.second):  # both at once: one adapter cannot be taken off again
        models.append(load_model(plan.pairs, captions=plan.pairs.project.captions))
        each.load_onto(models[-1])
    models[0].encode_ahead(["", *(planned.pair.caption for planned in todo)])
    at_once = plan.pairs.pairs_per_batch

    def sampled() -> Iterator[SampledPair]:
        for start in range(0, len(todo), at_once):
            batch = todo[start : start + at_once]
            given = first_of(models[0], batch)
            latents = torch.stack([_sampled(model, [each.pair for each in batch], given) for model in models], dim=1)
            yield from with_frames(batch, latents, given)

    beside = beside_of(plan.pairs, len(todo))
    return write_pairs(models[0], sampled(), folder, beside=beside, behind=at_once)


def _sampled(model: VideoModel, batch: Sequence[Pair], first: FirstFrame | None) -> Float[Tensor, "pair c f h w"]:
    import torch

    from densedpo.core.paths import without_signal
    from densedpo.core.seeds import noise
    from densedpo.generate.sampler import sample

    sigmas = model.sigmas(batch[0].num_steps).cpu()
    eps = torch.stack([noise(model.geometry.latent_shape, pair.noise_key_a) for pair in batch])
    latents = sample(
        model,
        start=without_signal(eps, sigmas[:1].expand(len(batch))),
        sigmas=sigmas,
        text=model.encode_text([pair.caption for pair in batch]).given(first),
        null_text=model.encode_text([""]),
        guidance_scale=batch[0].guidance_scale,
    )
    return latents.cpu()


def _record(request: PairRequest, prompt: Prompt, *, dtype: str) -> Pair:
    noise_key = f"{request.seed}/{prompt.id}/arena"
    made_from: list[JsonValue] = [
        request.model,
        dtype,
        prompt.id,
        prompt.caption,
        noise_key,
        request.num_steps,
        request.guidance_scale,
    ]
    return pair_of(request, prompt, made_from, noise_keys=(noise_key, noise_key), clip_id=None, eta=None)
