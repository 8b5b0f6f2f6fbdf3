"""Which corrupted pairs are to be made, decided in full before torch is loaded.

Which clip is the real one is drawn for each pair, so that neither the order of the clips nor the side on which a judge
sees them tells; the pair's row says it (`Pair.corruption`), which is where `judge real` has it from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from densedpo.adapters import catalogue
from densedpo.core.errors import BadInput
from densedpo.core.records import CLIP_SIDES, Clip, Corruption, read_jsonl
from densedpo.core.seeds import generator
from densedpo.generate.plan import (
    PairPlan,
    PairRequest,
    PlannedPair,
    draw_eta,
    eta_range,
    pair_of,
    request_for,
)
from densedpo.generate.prompts import select_prompts
from densedpo.generate.real_clips import latents_of_clips, require_text_to_video

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from densedpo.core.records import Pair, Prompt
    from densedpo.core.workspace import Project
    from densedpo.generate.corrupted.config import CorruptedConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class CorruptedPlan:
    """The pairs to make; `clips` has the real clips by id, `mask_share` what of a frame each pair's mask covers."""

    pairs: PairPlan
    clips: Mapping[str, Clip]
    mask_share: Mapping[str, float]


def plan_corrupted(project: Project, name: str, *, model: str | Path, config: CorruptedConfig) -> CorruptedPlan:
    """The plan for `config.num_pairs` pairs of a real clip and its corrupted copy.

    Raises:
        BadInput: no such model or an image-to-video one, no clips in these splits, clips of another size or without
            latents for this model, or clips too short to shuffle.
    """
    require_text_to_video(model, what="corrupted pairs")
    prompts = select_prompts(project, config.splits, seed=config.seed, allow_clipless=False)
    latents = latents_of_clips(project, prompts, model=model)
    low, high = eta_range(model, config.eta_min, config.eta_max)
    request = request_for(
        "corrupted",
        model,
        weights=catalogue.fingerprint(model),
        num_steps=config.num_steps,
        guidance_scale=config.guidance_scale,
        seed=config.seed,
    )
    _require_long_enough(config, request.geometry.num_frames)
    planned, shares = [], {}
    for index in range(config.num_pairs):
        repetition, place = divmod(index, len(prompts))
        prompt = prompts[place]
        key = f"{config.seed}/{prompt.id}/corrupted/{repetition}"
        eta = draw_eta(low, high, key, "eta")
        pair = _record(request, prompt, key, config, eta)
        shares[pair.id] = float(generator(key, "mask share").uniform(config.mask_min, config.mask_max))
        planned.append(PlannedPair(pair=pair, clip_latents=latents[prompt.id]))
    pairs = PairPlan(
        project=project,
        folder=project.pairs(name),
        model=catalogue.find(model),
        device=config.device,
        pairs_per_batch=config.pairs_per_batch,
        decode=config.decode,
        settings=_settings(request, config, eta=(low, high)),
        pairs=tuple(planned),
    )
    clips = {clip.id: clip for clip in read_jsonl(project.clips / "clips.jsonl", Clip)}
    return CorruptedPlan(pairs=pairs, clips=clips, mask_share=shares)


def _require_long_enough(config: CorruptedConfig, num_frames: int) -> None:
    if "shuffled" in config.corruptions and num_frames <= config.shuffle_frames:
        raise BadInput(f"shuffle_frames = {config.shuffle_frames} leaves nothing to shuffle in {num_frames} frames")


def _settings(request: PairRequest, config: CorruptedConfig, *, eta: tuple[float, float]) -> dict[str, JsonValue]:
    """What the pairs depend on: of the settings, those of the corruptions that are used."""
    named: dict[str, JsonValue] = {
        "corruptions": list(config.corruptions),
        "shuffle_frames": config.shuffle_frames,
        "noise_min": config.noise_min,
        "noise_max": config.noise_max,
        "blur_min": config.blur_min,
        "blur_max": config.blur_max,
        "eta_min": eta[0],
        "eta_max": eta[1],
        "mask_min": config.mask_min,
        "mask_max": config.mask_max,
        "num_steps": request.num_steps,
        "guidance_scale": request.guidance_scale,
    }
    return {
        "kind": request.kind,
        "model": request.model,
        "seed": request.seed,
        "splits": list(config.splits),
        "dtype": config.dtype,
        **{name: value for name, value in named.items() if config.used(name)},
    }


def _record(request: PairRequest, prompt: Prompt, key: str, config: CorruptedConfig, eta: float) -> Pair:
    corruption = _corruption(request, key, config)
    is_made = corruption.kind == "regenerated"
    made_from: list[JsonValue] = [
        *(request.kind, request.model, config.dtype, prompt.id, prompt.caption, prompt.clip_id, key),
        *(corruption.kind, corruption.real, corruption.strength),
        *((eta, request.num_steps, request.guidance_scale, config.mask_min, config.mask_max) if is_made else ()),
    ]
    # a real clip was made from no noise: the empty key says so
    noise_keys = ("", key) if corruption.real == "a" else (key, "")
    pair = pair_of(
        request,
        prompt,
        made_from,
        noise_keys=noise_keys,
        clip_id=prompt.clip_id,
        eta=eta if is_made else None,
    )
    return replace(pair, corruption=corruption)


def _corruption(request: PairRequest, key: str, config: CorruptedConfig) -> Corruption:
    rng = generator(key, "corruption")
    kind = config.corruptions[int(rng.integers(len(config.corruptions)))]
    real = CLIP_SIDES[int(rng.integers(2))]
    strength: float | None = None
    match kind:
        case "shuffled":
            strength = float(config.shuffle_frames)
        case "noised":
            strength = float(rng.uniform(config.noise_min, config.noise_max))
        case "blurred":
            side = min(request.geometry.height, request.geometry.width)
            strength = side * float(rng.uniform(config.blur_min, config.blur_max))
        case "reversed" | "regenerated":
            pass
    return Corruption(kind=kind, real=real, strength=strength)
