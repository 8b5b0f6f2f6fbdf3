"""The oracle: four scores in [0, 1] for a clip of a known scene, by classical vision; nothing is learned.

Each score answers one question and stays out of the others' way, so that a fault moves one score only:

| fault           | text_alignment | visual_quality | temporal_consistency | dynamic_degree |
|-----------------|----------------|----------------|----------------------|----------------|
| blur            |                | down           |                      |                |
| colour drift    |                |                | down                 |                |
| shape morph     |                |                | down                 |                |
| flicker         |                |                | down                 |                |
| freeze          |                |                |                      | down           |
| wrong colour    | down           |                |                      |                |
| wrong direction | down           |                |                      |                |

So text alignment takes means over time and judges only the motion that is there; visual quality compares each frame
with the best of the three shapes in whatever colour, place and size it has; consistency compares frames with the clip's
own median; and the dynamic degree asks how much is moved, not where to. Every score has a tolerance that an
autoencoder's reconstruction of truth stays within, and falls in a straight line beyond it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from densedpo.world.findings import Findings, find
from densedpo.world.motion import Kinematics, dynamic_degree, kind_credit, kinematics, stretch_credits
from densedpo.world.render import FPS, FRAME_SIZE
from densedpo.world.scene import BACKGROUNDS, COLOURS, SIZES, Scene
from densedpo.world.template import Floats
from densedpo.world.tracking import Track, ramp, track

# the parts of text alignment and their weights; they add up to 1
TEXT_WEIGHTS: Final = {
    "shape": 0.2,
    "colour": 0.2,
    "size": 0.1,
    "background": 0.1,
    "motion": 0.15,
    "direction": 0.2,
    "speed": 0.05,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """The four scores of a clip or a segment, each in [0, 1]."""

    text_alignment: float
    visual_quality: float
    temporal_consistency: float
    dynamic_degree: float


@dataclass(frozen=True, kw_only=True, slots=True)
class OracleReport:
    """What the oracle makes of a clip: its scores, its segments' scores, and the words it would use itself."""

    clip: Scores
    segments: tuple[Scores, ...]
    parts: dict[str, float]  # the parts of the clip's text alignment, by the keys of TEXT_WEIGHTS
    found: Findings


def score_clip(
    frames: NDArray[np.uint8], scene: Scene, *, segments: Sequence[tuple[int, int]] | None = None, fps: float = FPS
) -> OracleReport:
    """Scores a clip against the words of its scene.

    Args:
        frames: uint8 [F, 64, 64, 3], RGB.
        scene: only its words are read; the path's offsets and phase may be anything.
        segments: half-open ranges of frames; none gives no segment scores.

    Raises:
        ValueError: the frames have another size or type, or a segment lies outside the clip.
    """
    if frames.ndim != 4 or frames.shape[1:] != (FRAME_SIZE, FRAME_SIZE, 3) or frames.dtype != np.uint8:
        raise ValueError(
            f"the oracle reads uint8 [F, {FRAME_SIZE}, {FRAME_SIZE}, 3], not {frames.dtype} {frames.shape}"
        )
    if frames.shape[0] < 5:
        raise ValueError(f"the oracle needs at least 5 frames to judge motion, not {frames.shape[0]}")
    for start, stop in segments or ():
        if not 0 <= start < stop <= frames.shape[0]:
            raise ValueError(f"segment [{start}, {stop}) lies outside a clip of {frames.shape[0]} frames")
    seen = track(frames)
    moves = kinematics(seen, scene, fps)
    frame_scores = _FrameScores.of(seen, moves)
    kind = kind_credit(moves, scene)

    def scores(start: int, stop: int) -> tuple[Scores, dict[str, float]]:
        parts = _text_parts(seen, moves, scene, kind, slice(start, stop))
        presence = float(seen.presence[start:stop].mean())
        return Scores(
            text_alignment=presence * sum(TEXT_WEIGHTS[name] * part for name, part in parts.items()),
            visual_quality=float(frame_scores.quality[start:stop].mean()),
            temporal_consistency=float(frame_scores.consistency[start:stop].mean()),
            dynamic_degree=float(frame_scores.dynamics[start:stop].mean()),
        ), parts

    clip, parts = scores(0, frames.shape[0])
    return OracleReport(
        clip=clip, segments=tuple(scores(a, b)[0] for a, b in segments or ()), parts=parts, found=find(seen, moves)
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _FrameScores:
    """The three scores that are means over frames, [F] each."""

    quality: Floats
    consistency: Floats
    dynamics: Floats

    @classmethod
    def of(cls, seen: Track, moves: Kinematics) -> _FrameScores:
        return cls(
            quality=seen.presence * _quality(seen),
            consistency=seen.presence * _appearance(seen) * _smoothness(moves),
            dynamics=seen.presence * dynamic_degree(moves),
        )


def _quality(seen: Track) -> Floats:
    sharp = ramp(seen.edge_width, 4.2, 1.7)
    even = ramp(seen.unevenness, 40.0, 7.0) * ramp(seen.grain, 25.0, 4.0)
    outline = ramp(seen.misfit, 0.65, 0.14)
    whole = ramp(seen.stray, 1.0, 0.03)
    return (0.45 * sharp + 0.15 * even + 0.4 * outline) * (0.3 + 0.7 * whole)


def _appearance(seen: Track) -> Floats:
    """How far each frame looks like the clip's median frame."""
    size = np.abs(np.log(seen.poses.radius / np.median(seen.poses.radius)))
    form = np.stack([seen.triangularity, seen.squareness, 4 * seen.elongation], axis=1)
    changed, colour, background = (_from_median(values) for values in (form, seen.colour, seen.background))
    return ramp(size, 0.4, 0.05) * ramp(changed, 0.7, 0.2) * ramp(colour, 120.0, 12.0) * ramp(background, 110.0, 6.0)


def _from_median(values: Floats) -> Floats:
    return np.asarray(np.linalg.norm(values - np.median(values, axis=0), axis=1), dtype=np.float64)


def _smoothness(moves: Kinematics) -> Floats:
    """1 where the track goes on as it came or will; lower at jitter and at jumps."""
    x = moves.centre
    second = np.abs(x[:-2] - 2 * x[1:-1] + x[2:])  # of frame i + 1
    # at a corner of the path too, a frame lies on the line of the two before it, of its neighbours or of the two after
    inner = np.minimum(np.minimum(second[:-2], second[2:]), second[1:-1] / 2)
    off = np.pad(inner, 2, mode="edge")
    step = np.concatenate([[0.0], np.abs(np.diff(x))])
    usual = 1.5 * float(np.max(moves.expected)) if not moves.spins else 0.0
    limit = 1.0 + max(usual, 2.0 * float(np.quantile(step, 0.9)))
    return ramp(off, 3.0, 0.6) * ramp(step - limit, 6.0, 0.0)


def _text_parts(seen: Track, moves: Kinematics, scene: Scene, kind: float, frames: slice) -> dict[str, float]:
    weight = seen.presence[frames] + 1e-6
    form = np.stack([seen.triangularity, seen.squareness, 2 * seen.elongation], axis=1)[frames]
    wanted = np.array([scene.shape == "triangle", scene.shape == "square", 0], dtype=np.float64)
    distance = float(np.linalg.norm(np.average(form, axis=0, weights=weight) - wanted))
    colour = np.average(seen.colour[frames], axis=0, weights=weight)
    background = np.average(seen.background[frames], axis=0, weights=weight)
    radius = float(np.average(np.log(seen.poses.radius[frames]), weights=weight))
    motion = stretch_credits(moves, scene, frames)
    return {
        "shape": ramp(distance, 0.95, 0.55),
        "colour": ramp(math.dist(colour, COLOURS[scene.colour]), 130.0, 45.0),
        "size": ramp(abs(radius - math.log(SIZES[scene.size])), 0.28, 0.1),
        "background": ramp(math.dist(background, BACKGROUNDS[scene.background]), 110.0, 35.0),
        "motion": kind,
        "direction": motion.direction,
        "speed": motion.speed,
    }
