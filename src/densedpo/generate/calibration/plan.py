"""Which real clips a calibration looks at, decided before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from densedpo.core.errors import BadInput
from densedpo.generate.prompts import select_prompts
from densedpo.generate.real_clips import first_frames_of, latents_of_clips

if TYPE_CHECKING:
    from pathlib import Path

    from densedpo.core.records import Prompt
    from densedpo.core.workspace import Project
    from densedpo.generate.config import CalibrateConfig
    from densedpo.generate.first_frames import FrameFile


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationClip:
    """A prompt and the file with its real clip's latents."""

    prompt: Prompt
    latents: Path
    first: FrameFile | None = None


def clips_to_calibrate(project: Project, *, model: str | Path, config: CalibrateConfig) -> tuple[CalibrationClip, ...]:
    """The real clips that a calibration looks at.

    Raises:
        BadInput: as `plan_guided`, or fewer clips than asked for.
    """
    prompts = select_prompts(project, config.splits, seed=config.seed, allow_clipless=False)[: config.num_clips]
    if len(prompts) < config.num_clips:
        raise BadInput(f"num_clips = {config.num_clips}, but there are only {len(prompts)} clips in these splits")
    latents = latents_of_clips(project, prompts, model=model)
    first = first_frames_of(project, prompts, model=model)
    return tuple(
        CalibrationClip(prompt=prompt, latents=latents[prompt.id], first=first.get(prompt.id)) for prompt in prompts
    )
