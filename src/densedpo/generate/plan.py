"""Which pairs are to be made, decided in full before torch is loaded: every record is known before its first step.

A pair's id is the hash of what it is made from, so the same id is the same pair in any folder, and a pair's noise, eta
and place in the order depend on nothing but the seed and its prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from densedpo.adapters import catalogue
from densedpo.adapters.trained import fingerprint_with, trained_by
from densedpo.core.errors import BadInput
from densedpo.core.provenance import sha256_json
from densedpo.core.records import Pair, Prompt
from densedpo.core.seeds import generator
from densedpo.core.workspace import Project
from densedpo.generate.config import IndependentConfig
from densedpo.generate.first_frames import FrameFile
from densedpo.generate.prompts import Frames, frames_to_continue, prompts_to_continue, select_prompts
from densedpo.generate.real_clips import latents_of_clips

if TYPE_CHECKING:
    from pydantic import JsonValue

    from densedpo.adapters.base import Geometry
    from densedpo.generate.config import Decode, GuidedConfig, MadeConfig

Kind = Literal["guided", "independent", "arena", "corrupted"]
SMALL_SIDE: Final = 128  # clips up to this size are stored enlarged, so that each pixel owns its colour sample


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedPair:
    """A pair that is to be made, for a guided one the file with its real clip's latents, and the frame to continue."""

    pair: Pair
    clip_latents: Path | None
    first: FrameFile | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PairPlan:
    """A set of pairs to make.

    `settings` is what the pairs depend on, as it is stored in the folder: another value there is another set of pairs.
    `start` is what a run has left, which is put on the model, and `above` what the pairs are made from beside clips.
    """

    project: Project
    folder: Path
    model: Path
    device: str
    pairs_per_batch: int
    settings: dict[str, JsonValue]
    pairs: tuple[PlannedPair, ...]
    decode: Decode = "auto"
    start: Path | None = None
    above: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PairRequest:
    """What all pairs of a plan share."""

    kind: Kind
    model: str
    geometry: Geometry
    num_steps: int
    guidance_scale: float
    seed: int


def plan_independent(project: Project, name: str, *, model: str | Path, config: IndependentConfig) -> PairPlan:
    """The plan for `config.num_pairs` pairs from independent noises.

    Raises:
        BadInput: no such model, no prompts in these splits, or first frames that do not fit them.
    """
    prompts, drawn = prompts_to_continue(
        project, config.splits, seed=config.seed, model=model, first_frames=config.first_frames
    )
    return _plan(project, name, "independent", model, config, prompts, eta_of=lambda _: None, latents={}, drawn=drawn)


def plan_guided(project: Project, name: str, *, model: str | Path, config: GuidedConfig) -> PairPlan:
    """The plan for `config.num_pairs` pairs that start from noised real clips.

    Raises:
        BadInput: no such model, no clips in these splits, clips of another size or without latents for this model.
    """
    low, high = eta_range(model, config.eta_min, config.eta_max)
    prompts = select_prompts(project, config.splits, seed=config.seed, allow_clipless=False)
    latents = latents_of_clips(project, prompts, model=model)

    def eta_of(prompt: Prompt) -> float:
        return draw_eta(low, high, config.seed, "eta", prompt.id)

    extra: dict[str, JsonValue] = {"eta_min": low, "eta_max": high}
    return _plan(project, name, "guided", model, config, prompts, eta_of=eta_of, latents=latents, extra=extra)


def eta_range(model: str | Path, eta_min: float | None, eta_max: float | None) -> tuple[float, float]:
    """The range that eta is drawn from; an end that is not given is the model's own.

    Raises:
        BadInput: it is empty.
    """
    defaults = catalogue.defaults(model)
    low = defaults.eta_min if eta_min is None else eta_min
    high = defaults.eta_max if eta_max is None else eta_max
    if low > high:
        raise BadInput(f"eta_min = {low} is above eta_max = {high}")
    return low, high


def draw_eta(low: float, high: float, *parts: int | str) -> float:
    """An eta from a range, named by its parts."""
    drawn = generator(*parts).uniform(low, high)
    # in float32, the sampler's type, so that the first noise level equals the recorded eta exactly
    return float(np.float32(drawn))


def pixel_scale(geometry: Geometry) -> int:
    """How often the mp4 repeats each pixel: 2 for small clips, whose edges 4:2:0 colour would smear, else 1."""
    return 2 if min(geometry.height, geometry.width) <= SMALL_SIDE else 1


def _plan(
    project: Project,
    name: str,
    kind: Kind,
    model: str | Path,
    config: MadeConfig,
    prompts: Sequence[Prompt],
    *,
    eta_of: Callable[[Prompt], float | None],
    latents: dict[str, Path],
    extra: dict[str, JsonValue] | None = None,
    drawn: Frames | None = None,
) -> PairPlan:
    start = None if config.start_from is None else trained_by(project, config.start_from, model=model)
    request = request_for(
        kind,
        model,
        weights=fingerprint_with(catalogue.fingerprint(model), start),
        num_steps=config.num_steps,
        guidance_scale=config.guidance_scale,
        seed=config.seed,
    )
    settings: dict[str, JsonValue] = {
        "kind": kind,
        "model": request.model,
        "num_steps": request.num_steps,
        "guidance_scale": request.guidance_scale,
        "seed": request.seed,
        "splits": list(config.splits),
        "dtype": config.dtype,
        **({"match_colours": True} if config.match_colours else {}),
        **(extra or {}),
    }
    frames = frames_to_continue(project, prompts, drawn or {}, model=model)
    pairs = []
    for index in range(config.num_pairs):
        repetition, place = divmod(index, len(prompts))
        prompt = prompts[place]
        files = frames.get(prompt.id, ())
        first = files[repetition % len(files)] if files else None
        also = [first.content] if first is not None and first.content else []
        if config.match_colours:
            also.append("match_colours")
        pair = _record(request, prompt, repetition, eta=eta_of(prompt), dtype=config.dtype, also=also)
        pairs.append(PlannedPair(pair=pair, clip_latents=latents.get(prompt.id), first=first))
    above = [] if config.start_from is None else [project.run(config.start_from)]
    if isinstance(config, IndependentConfig) and config.first_frames is not None:
        above.append(project.pairs(config.first_frames))
    return PairPlan(
        project=project,
        folder=project.pairs(name),
        model=catalogue.find(model),
        device=config.device,
        pairs_per_batch=config.pairs_per_batch,
        decode=config.decode,
        settings=settings,
        pairs=tuple(pairs),
        start=start,
        above=tuple(above),
    )


def request_for(
    kind: Kind, model: str | Path, *, weights: str, num_steps: int | None, guidance_scale: float | None, seed: int
) -> PairRequest:
    """What all pairs of a plan share; steps and guidance that are not given are the model's own.

    Args:
        weights: the identity of what makes the pairs: of the model, or of a policy on it.
    """
    defaults = catalogue.defaults(model)
    return PairRequest(
        kind=kind,
        model=weights,
        geometry=catalogue.geometry(model),
        num_steps=num_steps or defaults.num_steps,
        guidance_scale=defaults.guidance_scale if guidance_scale is None else guidance_scale,
        seed=seed,
    )


def _record(
    request: PairRequest,
    prompt: Prompt,
    repetition: int,
    *,
    eta: float | None,
    dtype: str,
    also: Sequence[str],
) -> Pair:
    geometry = request.geometry
    noise_key = f"{request.seed}/{prompt.id}/{repetition}"
    made_from: list[JsonValue] = [
        *(request.kind, request.model, dtype, prompt.id, prompt.caption, prompt.clip_id, eta, noise_key),
        *(request.num_steps, request.guidance_scale, geometry.num_frames, geometry.height, geometry.width),
        *also,
    ]
    noise_keys = (f"{noise_key}/a", f"{noise_key}/b")
    return pair_of(request, prompt, made_from, noise_keys=noise_keys, clip_id=prompt.clip_id, eta=eta)


def pair_of(
    request: PairRequest,
    prompt: Prompt,
    made_from: Sequence[JsonValue],
    *,
    noise_keys: tuple[str, str],
    clip_id: str | None,
    eta: float | None,
) -> Pair:
    """The row of a pair, whose id is the hash of what it is made from."""
    geometry, (noise_key_a, noise_key_b) = request.geometry, noise_keys
    pair_id = f"{request.kind}-{sha256_json(list(made_from))[:16]}"
    return Pair(
        id=pair_id,
        kind=request.kind,
        prompt_id=prompt.id,
        clip_id=clip_id,
        caption=prompt.caption,
        split=prompt.split,
        eta=eta,
        noise_key_a=noise_key_a,
        noise_key_b=noise_key_b,
        seed=request.seed,
        num_steps=request.num_steps,
        guidance_scale=request.guidance_scale,
        model=request.model,
        num_frames=geometry.num_frames,
        fps=geometry.fps,
        height=geometry.height,
        width=geometry.width,
        pixel_scale=pixel_scale(geometry),
        video=f"videos/{pair_id}.mp4",
        latents=f"latents/{pair_id}.safetensors",
        scene=prompt.scene,
        num_given_frames=geometry.num_given_frames,
    )
