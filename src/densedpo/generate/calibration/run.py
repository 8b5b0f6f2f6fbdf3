"""Finds a model's range of eta: the highest noise level from which it still makes the motion of the real clip.

DenseDPO gives 0.65 to 0.8 for its own model from looking at clips (figure 3); another model, schedule or kind of
motion has another range. Here real clips are noised to each eta and denoised once, and their optical flow is compared
with the clip's own. The scale runs from 0, what the prompt alone gives (eta = 1), to 1, the clip itself.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from densedpo.adapters import load
from densedpo.core.errors import BadInput
from densedpo.core.paths import noised
from densedpo.core.progress import duration_text, track
from densedpo.core.seeds import noise
from densedpo.core.workspace import write_atomic, writing
from densedpo.generate.calibration.flow import flow_agreement
from densedpo.generate.estimate import better_of_two, peak_bytes, size_text
from densedpo.generate.first_frames import encode_first_frames
from densedpo.generate.guided import read_clip_latents
from densedpo.generate.sampler import guided_sigmas, sample
from densedpo.metrics.motion import step_motion
from densedpo.metrics.statistics import Estimate, cluster_mean

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

    from densedpo.adapters.base import FirstFrame, VideoModel
    from densedpo.generate.calibration.plan import CalibrationClip
    from densedpo.generate.config import CalibrateConfig

CALIBRATION_FILE: Final = "calibration.json"
RANGE_WIDTH: Final = 0.15  # of the suggested range: the paper's


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """What is left of the motion at one eta.

    `agreement` is the mean cosine of flow fields, `kept` the same on the scale from the prompt alone (0) to the clip
    itself (1), `motion_ratio` the amount of motion over the real clips'.
    """

    eta: float
    agreement: Estimate
    kept: float
    motion_ratio: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """The levels in ascending order of eta, the last one eta = 1; `eta_max` is None where no level keeps the motion."""

    model: str
    num_clips: int
    num_still: int
    keep: float
    eta_min: float | None
    eta_max: float | None
    levels: tuple[Level, ...]

    def table(self) -> str:
        """The levels as text, and what to do with them."""
        lines = [f"{'eta':>5}  {'flow agreement':^22}  {'motion kept':>11}  {'amount of motion':>16}"]
        for level in self.levels:
            found = level.agreement
            interval = "" if found.low is None or found.high is None else f" [{found.low:.2f}, {found.high:.2f}]"
            agreement = f"{found.value:.2f}{interval}"
            lines.append(f"{level.eta:5.2f}  {agreement:^22}  {level.kept:11.2f}  {level.motion_ratio:16.2f}")
        lines.append(f"{self.num_clips} clips, {self.num_still} more that stand still; intervals: 95 %, over clips")
        if self.eta_max is None:
            lines.append(f"no eta here keeps {self.keep:.0%} of the motion: look lower by --set etas=[...]")
        else:
            lines.append(f"use --set eta_min={self.eta_min} --set eta_max={self.eta_max}")
        return "\n".join(lines)


def calibrate(
    clips: Sequence[CalibrationClip],
    folder: Path,
    *,
    model: str | Path,
    config: CalibrateConfig,
    captions: Path | None = None,
) -> Calibration:
    """Measures each eta on the same clips with the same noise and writes `calibration.json` into the folder.

    Args:
        captions: where embeddings of captions are kept.

    Raises:
        BadInput: another process writes there, a damaged input, or every clip stands still.
    """
    with writing(folder):
        loaded, latents = _loaded(clips, model=model, config=config, captions=captions)
        real = loaded.decode_latents(latents)
        levels = []
        for eta in track(_etas(config), what="calibrating eta"):
            made = _regenerate(loaded, clips, latents, eta, config)
            levels.append(_level(clips, made, real, eta=eta, seed=config.seed))
        result = _conclude(levels, model=loaded.fingerprint, num_clips=len(clips), keep=config.keep)
        write_atomic(folder / CALIBRATION_FILE, json.dumps(dataclasses.asdict(result), indent=2) + "\n")
    return result


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationEstimate:
    """What a calibration will take."""

    num_levels: int
    num_clips: int
    time_s: float
    memory_bytes: int

    def __str__(self) -> str:
        """The estimate in one line."""
        return (
            f"{self.num_levels} levels of {self.num_clips} clips: about {duration_text(self.time_s)}, "
            f"{size_text(self.memory_bytes)} of memory at the peak"
        )


def estimate_calibration(
    clips: Sequence[CalibrationClip], *, model: str | Path, config: CalibrateConfig
) -> CalibrationEstimate:
    """Times one step, decoding and the flow of the first batch, on the model's device; writes nothing.

    Raises:
        BadInput: a damaged input.
    """
    batch = clips[: config.clips_per_batch]
    loaded, latents = _loaded(batch, model=model, config=config)
    one_step = _sigmas(loaded, 1.0, config)[[0, -1]]
    step_s, found = better_of_two(
        lambda: _denoised(loaded, batch, latents, one_step, config).cpu()  # waits for the device
    )
    started = time.perf_counter()
    made = loaded.decode_latents(found[:1])
    flow_agreement(made[0], made[0])
    clip_s = time.perf_counter() - started
    levels = _etas(config)
    num_steps = sum(len(_sigmas(loaded, eta, config)) - 1 for eta in levels)
    num_batches = math.ceil(len(clips) / config.clips_per_batch)
    return CalibrationEstimate(
        num_levels=len(levels),
        num_clips=len(clips),
        time_s=num_batches * num_steps * step_s + len(levels) * len(clips) * clip_s,
        memory_bytes=peak_bytes(torch.device(config.device)),
    )


def _loaded(
    clips: Sequence[CalibrationClip], *, model: str | Path, config: CalibrateConfig, captions: Path | None = None
) -> tuple[VideoModel, Float[Tensor, "clip c f h w"]]:
    """The model, and the latents of the clips."""
    dtype = torch.bfloat16 if config.dtype == "bfloat16" else torch.float32
    loaded = load(model, device=config.device, dtype=dtype, captions=captions)
    loaded.encode_ahead(["", *(clip.prompt.caption for clip in clips)])
    shape = loaded.geometry.latent_shape
    return loaded, torch.stack([read_clip_latents(clip.latents, shape) for clip in clips])


def _etas(config: CalibrateConfig) -> list[float]:
    """The levels that are tried, and the prompt alone."""
    return list(dict.fromkeys([*config.etas, 1.0]))


def _sigmas(model: VideoModel, eta: float, config: CalibrateConfig) -> Float[Tensor, "step"]:
    return guided_sigmas(model.sigmas(config.num_steps or model.defaults.num_steps).cpu(), eta)


def _regenerate(
    model: VideoModel,
    clips: Sequence[CalibrationClip],
    latents: Float[Tensor, "clip c f h w"],
    eta: float,
    config: CalibrateConfig,
) -> UInt8[np.ndarray, "clip time row column 3"]:
    """Each clip noised to eta and denoised with its prompt; the noise of a clip is the same at every eta."""
    sigmas = _sigmas(model, eta, config)
    made = []
    for first in range(0, len(clips), config.clips_per_batch):
        batch = clips[first : first + config.clips_per_batch]
        found = _denoised(model, batch, latents[first : first + len(batch)], sigmas, config)
        made.append(model.decode_latents(found))
    return np.concatenate(made)


def _denoised(
    model: VideoModel,
    batch: Sequence[CalibrationClip],
    latents: Float[Tensor, "clip c f h w"],
    sigmas: Float[Tensor, "step"],
    config: CalibrateConfig,
) -> Float[Tensor, "clip c f h w"]:
    """Clips noised to the first of the levels and denoised through the others."""
    guidance = model.defaults.guidance_scale if config.guidance_scale is None else config.guidance_scale
    shape = model.geometry.latent_shape
    eps = torch.stack([noise(shape, config.seed, "calibrate", clip.prompt.id) for clip in batch])
    return sample(
        model,
        start=noised(latents, eps, sigmas[:1].expand(len(batch))),
        sigmas=sigmas,
        text=model.encode_text([clip.prompt.caption for clip in batch]).given(_first(model, batch)),
        null_text=model.encode_text([""]),
        guidance_scale=guidance,
    )


def _first(model: VideoModel, clips: Sequence[CalibrationClip]) -> FirstFrame | None:
    files = [clip.first for clip in clips if clip.first is not None]
    return encode_first_frames(model, files) if files else None


def _level(
    clips: Sequence[CalibrationClip],
    made: UInt8[np.ndarray, "clip time row column 3"],
    real: UInt8[np.ndarray, "clip time row column 3"],
    *,
    eta: float,
    seed: int,
) -> Level:
    agreements = {
        (clip.prompt.id, 0): flow_agreement(one, reference)
        for clip, one, reference in zip(clips, made, real, strict=True)
    }
    agreement = cluster_mean(agreements, seed=seed)
    if agreement is None:
        raise BadInput("every clip stands still: there is no motion to keep; add clips that move")
    motion, real_motion = (sum(step_motion(one).frame_px.mean() for one in many) for many in (made, real))
    return Level(
        eta=eta,
        agreement=agreement,
        kept=0.0,  # known only when eta = 1 has been measured
        motion_ratio=float(motion / real_motion) if real_motion > 0 else 0.0,
    )


def _conclude(levels: Sequence[Level], *, model: str, num_clips: int, keep: float) -> Calibration:
    """Puts the levels on the scale from the prompt alone to the clip itself, and picks the range."""
    floor = levels[-1].agreement.value
    room = max(1.0 - floor, 1e-6)
    scaled = [dataclasses.replace(level, kept=(level.agreement.value - floor) / room) for level in levels]
    eta_max = None
    for level in scaled:
        # the first level that loses the motion ends the range: one above it that seems to keep it is chance
        if level.kept < keep:
            break
        eta_max = level.eta
    num_still = levels[0].agreement.num_excluded
    return Calibration(
        model=model,
        num_clips=num_clips - num_still,
        num_still=num_still,
        keep=keep,
        eta_min=None if eta_max is None else round(max(eta_max - RANGE_WIDTH, 0.05), 4),
        eta_max=eta_max,
        levels=tuple(scaled),
    )
