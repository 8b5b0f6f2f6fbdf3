"""Several clips for one prompt, from one policy: what an online round judges and learns from (no torch).

Rollouts are stored two to a pair, in the ordinary folder of pairs, so that whatever reads pairs reads them. What the
pairs are made from includes the policy, since the same noise under another adapter is another clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from densedpo.adapters import catalogue
from densedpo.generate.plan import PairPlan, PairRequest, PlannedPair, draw_eta, eta_range, pair_of, request_for
from densedpo.generate.real_clips import latents_of_clips, require_text_to_video

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from densedpo.core.records import Pair, Prompt
    from densedpo.core.workspace import Project


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutSettings:
    """How the rollouts of a run are made; `policy` is the identity of the weights that make them."""

    kind: Literal["independent", "guided"]
    model: str | Path
    policy: str
    num_rollouts: int
    num_steps: int | None
    guidance_scale: float | None
    eta_min: float | None
    eta_max: float | None
    seed: int
    pairs_per_batch: int
    device: str
    dtype: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptVisit:
    """A prompt, and how often it was visited before: each visit has noise of its own."""

    prompt: Prompt
    visit: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutPlan:
    """The pairs to make; `groups` has the ids of each visit's pairs, in the order of the visits."""

    pairs: PairPlan
    groups: tuple[tuple[str, ...], ...]


def plan_rollouts(
    source: Project, target: Project, name: str, visits: Sequence[PromptVisit], settings: RolloutSettings
) -> RolloutPlan:
    """The plan for `num_rollouts` clips of each visit.

    Args:
        source: the project whose clips guided rollouts start from.
        target: the project in which the pairs are written as `pairs/<name>`.

    Raises:
        BadInput: no such model or an image-to-video one, an empty range of eta; for guided rollouts a prompt without a
            clip of this model's.
    """
    require_text_to_video(settings.model, what="online rounds")
    request = request_for(
        settings.kind,
        settings.model,
        weights=settings.policy,
        num_steps=settings.num_steps,
        guidance_scale=settings.guidance_scale,
        seed=settings.seed,
    )
    low, high = eta_range(settings.model, settings.eta_min, settings.eta_max)
    is_guided = settings.kind == "guided"
    prompts = list({visit.prompt.id: visit.prompt for visit in visits}.values())
    latents = latents_of_clips(source, prompts, model=settings.model) if is_guided else {}
    planned: list[PlannedPair] = []
    groups = []
    for visit in visits:
        eta = draw_eta(low, high, settings.seed, "eta", visit.prompt.id, visit.visit) if is_guided else None
        rows = [_record(request, settings, visit, index, eta) for index in range(settings.num_rollouts // 2)]
        planned += [PlannedPair(pair=row, clip_latents=latents.get(visit.prompt.id)) for row in rows]
        groups.append(tuple(row.id for row in rows))
    stored: dict[str, JsonValue] = {
        "kind": settings.kind,
        "model": settings.policy,
        "num_steps": request.num_steps,
        "guidance_scale": request.guidance_scale,
        "seed": settings.seed,
        "dtype": settings.dtype,
        **({"eta_min": low, "eta_max": high} if is_guided else {}),
    }
    pairs = PairPlan(
        project=target,
        folder=target.pairs(name),
        model=catalogue.find(settings.model),
        device=settings.device,
        pairs_per_batch=settings.pairs_per_batch,
        settings=stored,
        pairs=tuple(planned),
    )
    return RolloutPlan(pairs=pairs, groups=tuple(groups))


def _record(request: PairRequest, settings: RolloutSettings, visit: PromptVisit, index: int, eta: float | None) -> Pair:
    prompt = visit.prompt
    noise_key = f"{settings.seed}/{prompt.id}/rollout/{visit.visit}/{index}"
    made_from: list[JsonValue] = [
        *(request.kind, request.model, settings.dtype, prompt.id, prompt.caption, prompt.clip_id, eta, noise_key),
        *(request.num_steps, request.guidance_scale),
    ]
    noise_keys = (f"{noise_key}/a", f"{noise_key}/b")
    return pair_of(request, prompt, made_from, noise_keys=noise_keys, clip_id=prompt.clip_id, eta=eta)
