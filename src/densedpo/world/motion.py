"""How the tracked shape moves: how much against what was asked, and which way.

Credit is only taken away by motion that is seen: a frozen clip contradicts no direction. That keeps a freeze the
business of the dynamic degree alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from densedpo.world.render import (
    BOUNCE_AMPLITUDE_PX,
    BOUNCE_CYCLES,
    DURATION_S,
    FALL_PX,
    ORBIT_RADIUS_PX,
    ORBIT_TURNS,
    SLIDE_PX,
    SPIN_DEGREES,
)
from densedpo.world.scene import Scene
from densedpo.world.template import Complexes, Floats
from densedpo.world.tracking import Track, ramp

_T = TypeVar("_T", bound=np.generic)
DEAD_ZONE: Final = 0.2  # steps under this share of the expected one count as standing still
HEADINGS: Final = {"left": -1 + 0j, "right": 1 + 0j, "up": -1j, "down": 1j}  # x + iy, y down


@dataclass(frozen=True, kw_only=True, slots=True)
class Kinematics:
    """A track's motion; step i leads to frame i, and step 0 repeats step 1. Arrays are [F]."""

    centre: Complexes
    step: Complexes  # pixels per frame
    turn: Floats  # change of heading per frame in radians, positive clockwise as seen; 0 at rest and at a reversal
    spin: Floats  # rotation of the shape per frame in radians, positive clockwise; 0 where no corner shows it
    radius: float
    expected: Floats  # length of the step the words call for: pixels, or radians for a scene that spins
    spins: bool
    duration: float  # of the clip, in lengths of the renderer's clip

    @property
    def amount(self) -> Floats:
        """Length of each step in the units of `expected`."""
        return np.abs(self.spin) if self.spins else np.abs(self.step)


@dataclass(frozen=True, kw_only=True, slots=True)
class Credits:
    """How far a stretch of motion is what the words say, each in [0, 1]."""

    direction: float
    speed: float


def expected_steps(scene: Scene, num_frames: int, fps: float) -> Floats:
    """Length [num_frames] of each step in a rendered clip of the scene: pixels, or radians where it spins."""
    mean = {
        "slides": SLIDE_PX[scene.speed],
        "bounces": 4 * BOUNCE_AMPLITUDE_PX * BOUNCE_CYCLES[scene.speed],
        "orbits": 2 * math.pi * ORBIT_RADIUS_PX * ORBIT_TURNS[scene.speed],
        "falls": FALL_PX[scene.speed],
        "spins": math.radians(SPIN_DEGREES[scene.speed]),
    }[scene.motion] / (DURATION_S * fps)
    profile = np.ones(num_frames)
    if scene.motion == "falls":
        profile = 0.35 + 1.3 * np.maximum(np.arange(num_frames) - 0.5, 0.5) / (DURATION_S * fps)
    return mean * profile


def kinematics(track: Track, scene: Scene, fps: float) -> Kinematics:
    """The motion of a track, measured on the scale of what the scene's words call for."""
    centre = track.poses.centre
    expected = expected_steps(scene, centre.size, fps)
    step = _doubled(np.diff(centre))
    still = np.abs(step) < (0.15 if scene.motion == "spins" else DEAD_ZONE * float(expected.mean()))
    triangular, square = (np.minimum(x[1:], x[:-1]) for x in (track.triangularity, track.squareness))
    third, fourth = (np.angle(x[1:] * x[:-1].conj()) for x in (track.triangle_phase, track.square_phase))
    # a step turns as the corners do that can be seen on both sides of it; a round shape has none
    spin = np.where(triangular > square, third / 3, fourth / 4) * ramp(np.maximum(triangular, square), 0.1, 0.3)
    return Kinematics(
        centre=centre,
        step=np.where(still, 0.0, step),
        turn=_turns(centre, still),
        spin=_doubled(_median3(spin)),
        radius=float(np.median(track.poses.radius)),
        expected=expected,
        spins=scene.motion == "spins",
        duration=(centre.size - 1) / (DURATION_S * fps),
    )


def dynamic_degree(moves: Kinematics) -> Floats:
    """Per frame [F]: 1 where the shape moves as much as its words call for, falling to 0 as it freezes."""
    amount: Floats = np.abs(moves.spin) if moves.spins else _doubled(_median3(np.abs(np.diff(moves.centre))))
    # a fall that starts evenly is no less dynamic than one that accelerates, so the slow start sets the early bar and
    # the mean the late one
    bar = np.minimum(moves.expected, moves.expected.mean())
    ratio: Floats = amount / bar
    return ramp(ratio, 0.12, 0.85)


def kind_credit(moves: Kinematics, scene: Scene) -> float:
    """How far the whole clip's motion is of the kind that was asked (slides, bounces, ...), in [0, 1]."""
    length = float(np.abs(moves.step[1:]).sum())
    rotation = abs(float(moves.spin[1:].sum()))
    moved = ramp(_moved(moves, slice(1, None)), 0.1, 0.3)
    net = abs(complex(moves.step[1:].sum()))
    match scene.motion:
        case "slides" | "falls":
            credit = ramp(net / max(length, 1e-6), 0.4, 0.85)
        case "bounces":
            turned_back = length - net
            one_way = 1 - ramp(length, 2 * BOUNCE_AMPLITUDE_PX, 2.4 * BOUNCE_AMPLITUDE_PX)
            credit = max(ramp(turned_back, 2.0, 8.0), one_way) * ramp(_lineness(moves.step[1:]), 0.6, 0.9)
        case "orbits":
            credit = ramp(abs(_curvature(moves, slice(1, None))), 0.25, 0.7)
        case "spins":
            drift = ramp(length / max(rotation * moves.radius, 1e-6), 3.0, 1.0)
            credit, moved = drift, max(moved, ramp(length, 4.0, 10.0))
        case _:
            raise ValueError(f"unknown motion {scene.motion!r}")
    if not moves.spins:
        moved = max(moved, ramp(math.degrees(rotation), 50.0, 90.0))
    return 1 - moved * (1 - credit)


def stretch_credits(moves: Kinematics, scene: Scene, frames: slice) -> Credits:
    """How far the motion into a stretch of frames goes the asked way at the asked speed."""
    start = max(frames.start, 1)
    frames = slice(start, max(frames.stop, start + 1))
    moved = ramp(_moved(moves, frames), 0.1, 0.3)
    return Credits(
        direction=1 - moved * (1 - _direction_credit(moves, scene, frames)),
        speed=1 - moved * (1 - _speed_credit(moves, scene, frames)),
    )


def _direction_credit(moves: Kinematics, scene: Scene, frames: slice) -> float:
    step = moves.step[frames]
    length = max(float(np.abs(step).sum()), 1e-6)
    clockwise = -1.0 if scene.direction == "counterclockwise" else 1.0
    match scene.motion:
        case "slides" | "falls":
            heading = HEADINGS[scene.direction or "down"]
            return ramp(float((step * heading.conjugate()).real.sum()) / length, 0.2, 0.8)
        case "bounces":
            along = step.imag if scene.direction == "up and down" else step.real
            return ramp(float((along**2).sum()) / max(float((np.abs(step) ** 2).sum()), 1e-6), 0.3, 0.85)
        case "orbits":
            return ramp(clockwise * _curvature(moves, frames), 0.05, 0.45)
        case _:
            spin = moves.spin[frames]
            return ramp(clockwise * float(spin.sum()) / max(float(np.abs(spin).sum()), 1e-6), 0.0, 0.7)


def _speed_credit(moves: Kinematics, scene: Scene, frames: slice) -> float:
    amount, expected = moves.amount[frames], moves.expected[frames]
    moving = amount > DEAD_ZONE * expected
    if not moving.any():
        return 1.0
    ratio = float(np.median(amount[moving])) / float(expected[moving].mean())
    slack = 0.6 if scene.motion == "falls" else 0.0  # a fall's speed depends on when it began
    return 1 - ramp(abs(math.log2(ratio)), 0.45 + slack, 1.0 + slack)


def _moved(moves: Kinematics, frames: slice) -> float:
    """Path over the path that is asked."""
    amount, expected = moves.amount[frames], moves.expected[frames]
    return float(amount[amount > DEAD_ZONE * expected].sum() / expected.sum())


def _curvature(moves: Kinematics, frames: slice) -> float:
    """Turning per pixel of path over that of the orbit: 1 for a clockwise orbit, however much of it is run."""
    return float(moves.turn[frames].sum()) * ORBIT_RADIUS_PX / max(float(np.abs(moves.step[frames]).sum()), 1e-6)


def _lineness(step: Complexes) -> float:
    """1 where all steps lie on one line, 0 where they point everywhere."""
    return float(np.abs((step**2).sum()) / max(float((np.abs(step) ** 2).sum()), 1e-6))


def _doubled(steps: NDArray[_T]) -> NDArray[_T]:
    """Steps between frames [F - 1] as steps into frames [F]: the first frame takes the step out of it."""
    return np.concatenate([steps[:1], steps])


def _turns(centre: Complexes, still: NDArray[np.bool_]) -> Floats:
    padded = np.concatenate([centre[:1], centre, centre[-1:]])
    step = _doubled(np.diff((padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4))
    turn = np.angle(step[1:] * step[:-1].conj())
    turn = np.where(np.abs(turn) > math.radians(100), 0.0, turn)
    turn = np.concatenate([[0.0], turn])
    rest = still | np.concatenate([still[:1], still[:-1]])
    return np.where(rest, 0.0, turn)


def _median3(values: Floats) -> Floats:
    # the ends take the median of the three nearest: one short step (a corner of the path) is outvoted there too
    padded = np.concatenate([values[2:3], values, values[-3:-2]])
    return np.asarray(np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0), dtype=np.float64)
