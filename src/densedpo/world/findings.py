"""The words the oracle would use for a clip itself, without being told what was asked: what the gates count."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from densedpo.world.motion import HEADINGS, Kinematics
from densedpo.world.render import (
    BOUNCE_AMPLITUDE_PX,
    BOUNCE_CYCLES,
    FALL_PX,
    ORBIT_RADIUS_PX,
    ORBIT_TURNS,
    SLIDE_PX,
    SPIN_DEGREES,
)
from densedpo.world.scene import BACKGROUNDS, COLOURS, MOTIONS, SIZES
from densedpo.world.template import Floats
from densedpo.world.tracking import Track

FAR_FROM_ALL: Final = 90.0  # a colour this far (0-255, Euclidean) from all that have a name has none
STILL_PX: Final = 4.0  # a path shorter than this over a clip is no motion
SPIN_DEGREES_SEEN: Final = 35.0
ORBIT_DEGREES_SEEN: Final = 70.0
ACCELERATION_SEEN: Final = 1.6  # a fall's last third is this much faster than its first; a slide's is not


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What is seen in a clip, in the world's words; None where it has no such thing or it has no name.

    A slide down that speeds up is called a fall. A clip that stands still has neither motion, direction nor speed.
    """

    shape: str | None
    colour: str | None
    size: str | None
    background: str | None
    motion: str | None
    direction: str | None
    speed: str | None


def find(seen: Track, moves: Kinematics) -> Findings:
    """Names what a tracked clip shows."""
    background = _nearest_colour(seen.background.mean(axis=0), BACKGROUNDS)
    if seen.presence.mean() < 0.3:
        return Findings(
            shape=None, colour=None, size=None, background=background, motion=None, direction=None, speed=None
        )
    weight = seen.presence + 1e-6
    triangularity, squareness = float(np.median(seen.triangularity)), float(np.median(seen.squareness))
    cornered = "triangle" if triangularity > squareness else "square"
    radius = math.exp(float(np.average(np.log(seen.poses.radius), weights=weight)))
    motion, direction = _motion(moves)
    return Findings(
        shape="circle" if max(triangularity, squareness) < 0.5 else cornered,
        colour=_nearest_colour(np.average(seen.colour, axis=0, weights=weight), COLOURS),
        size=min(SIZES, key=lambda name: abs(math.log(radius / SIZES[name]))),
        background=background,
        motion=motion,
        direction=direction,
        speed=_speed(moves, motion),
    )


def _nearest_colour(colour: Floats, names: Mapping[str, tuple[int, int, int]]) -> str | None:
    name = min(names, key=lambda one: math.dist(colour, names[one]))
    return name if math.dist(colour, names[name]) < FAR_FROM_ALL else None


def _motion(moves: Kinematics) -> tuple[str | None, str | None]:
    step = moves.step[1:]
    path, net = float(np.abs(step).sum()), complex(step.sum())
    rotation = math.degrees(float(moves.spin[1:].sum()))
    turned = math.degrees(float(moves.turn.sum()))
    if abs(rotation) > SPIN_DEGREES_SEEN and path < 12:
        return "spins", "clockwise" if rotation > 0 else "counterclockwise"
    if path < STILL_PX:
        return None, None
    if abs(turned) > ORBIT_DEGREES_SEEN and abs(turned) > 2 * path:  # an orbit turns 3.8 degrees per pixel
        return "orbits", "clockwise" if turned > 0 else "counterclockwise"
    if path - abs(net) > 8:
        upright = float((step.imag**2).sum()) > float((step.real**2).sum())
        return "bounces", MOTIONS["bounces"][0 if upright else 1]
    direction = max(HEADINGS, key=lambda name: (net * HEADINGS[name].conjugate()).real)
    third = max(1, step.size // 3)
    faster = float(np.abs(step[-third:]).sum()) / max(float(np.abs(step[:third]).sum()), 1e-6)
    if direction == "down" and faster > ACCELERATION_SEEN:
        return "falls", ""
    return "slides", direction


def _speed(moves: Kinematics, motion: str | None) -> str | None:
    """Slow or fast, whichever's length over a whole clip is nearer to what is seen."""
    if motion is None:
        return None
    lengths = {
        "slides": SLIDE_PX,
        "bounces": {speed: 4 * BOUNCE_AMPLITUDE_PX * cycles for speed, cycles in BOUNCE_CYCLES.items()},
        "orbits": {speed: 2 * math.pi * ORBIT_RADIUS_PX * turns for speed, turns in ORBIT_TURNS.items()},
        "falls": FALL_PX,
        "spins": SPIN_DEGREES,
    }[motion]
    amount = np.degrees(np.abs(moves.spin)) if motion == "spins" else np.abs(moves.step)
    seen = float(amount[1:].sum()) / moves.duration  # as a share of the renderer's clip length
    return min(lengths, key=lambda speed: abs(math.log(max(seen, 1e-6) / lengths[speed])))
