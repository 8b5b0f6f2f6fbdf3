"""The renderer: a scene to frames, bit for bit the same for the same scene.

Coordinates are pixels with x to the right and y down; a pixel's centre is at its index. An edge is a
ramp of `EDGE_PX` of the signed distance, so sub-pixel motion is visible.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from densedpo.world.scene import BACKGROUNDS, COLOURS, SIZES, Scene

FRAME_SIZE: Final = 64
NUM_FRAMES: Final = 33
FPS: Final = 8.0
DURATION_S: Final = (NUM_FRAMES - 1) / FPS
MARGIN: Final = 2.0
EDGE_PX: Final = 2.5  # width of the ramp at an edge: what the shipped autoencoder can carry at 64 pixels

# Path lengths over a full clip. Fast ones are what the shipped model gets wrong: up to 5 pixels or 10 degrees a frame.
SLIDE_PX: Final = {"slow": 18.0, "fast": 36.0}
BOUNCE_CYCLES: Final = {"slow": 1.0, "fast": 2.0}
BOUNCE_AMPLITUDE_PX: Final = 15.0
ORBIT_TURNS: Final = {"slow": 0.5, "fast": 1.25}
ORBIT_RADIUS_PX: Final = 15.0
FALL_PX: Final = {"slow": 18.0, "fast": 36.0}
SPIN_DEGREES: Final = {"slow": 90.0, "fast": 270.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Pose:
    """Where a shape is: centre in pixels, angle in radians (positive is clockwise as seen)."""

    x: float
    y: float
    angle: float


def circumradius(shape: str, size: str) -> float:
    """Distance in pixels from the centre to the farthest point of the shape."""
    radius = SIZES[size]
    area = math.pi * radius**2
    match shape:
        case "circle":
            return radius
        case "square":
            return math.sqrt(area / 2)
        case "triangle":
            return math.sqrt(area * 4 / (3 * math.sqrt(3)))
        case _:
            raise ValueError(f"unknown shape {shape!r}")


def pose_at(scene: Scene, time_s: float) -> Pose:
    """The pose of a scene's shape at a time in seconds."""
    u = time_s / DURATION_S
    middle = (FRAME_SIZE - 1) / 2
    reach = middle - circumradius(scene.shape, scene.size) - MARGIN  # how far the centre may stray from the middle
    dx = dy = angle = 0.0
    room_x = room_y = reach
    sign = -1.0 if scene.direction in ("left", "up", "counterclockwise") else 1.0
    match scene.motion:
        case "slides":
            travel = SLIDE_PX[scene.speed] * (u - 0.5) * sign
            if scene.direction in ("left", "right"):
                dx, room_x = travel, max(0.0, reach - SLIDE_PX[scene.speed] / 2)
            else:
                dy, room_y = travel, max(0.0, reach - SLIDE_PX[scene.speed] / 2)
        case "bounces":
            # a triangle wave: constant speed between two walls, so that each segment moves as much as the others
            cycle = (BOUNCE_CYCLES[scene.speed] * u + scene.phase) % 1.0
            wave = BOUNCE_AMPLITUDE_PX * (4 * abs(cycle - 0.5) - 1)
            if scene.direction == "up and down":
                dy, room_y = wave, max(0.0, reach - BOUNCE_AMPLITUDE_PX)
            else:
                dx, room_x = wave, max(0.0, reach - BOUNCE_AMPLITUDE_PX)
        case "orbits":
            theta = 2 * math.pi * (scene.phase + sign * ORBIT_TURNS[scene.speed] * u)
            dx, dy = ORBIT_RADIUS_PX * math.cos(theta), ORBIT_RADIUS_PX * math.sin(theta)
            room_x = room_y = max(0.0, reach - ORBIT_RADIUS_PX)
        case "falls":
            # starts with a push, so that the first segment is seen to move too
            travel = FALL_PX[scene.speed] * ((0.35 * u + 0.65 * u * u) - 0.5)
            dy, room_y = travel, max(0.0, reach - FALL_PX[scene.speed] / 2)
        case "spins":
            angle = math.radians(SPIN_DEGREES[scene.speed]) * sign * u + 2 * math.pi * scene.phase
        case _:
            raise ValueError(f"unknown motion {scene.motion!r}")
    return Pose(x=middle + dx + scene.offset_x * room_x, y=middle + dy + scene.offset_y * room_y, angle=angle)


def signed_distance(shape: str, size: str, pose: Pose, frame_size: int = FRAME_SIZE) -> NDArray[np.float64]:
    """Distance of each pixel's centre to a shape's outline in pixels, [frame_size, frame_size], negative inside."""
    y, x = np.mgrid[0:frame_size, 0:frame_size].astype(np.float64)
    x, y = x - pose.x, y - pose.y
    cos, sin = math.cos(pose.angle), math.sin(pose.angle)
    x, y = cos * x + sin * y, -sin * x + cos * y
    outer = circumradius(shape, size)
    match shape:
        case "circle":
            distance = np.hypot(x, y) - outer
        case "square":
            half = outer / math.sqrt(2)
            distance = np.maximum(np.abs(x), np.abs(y)) - half
        case "triangle":  # equilateral, one corner up
            inner = outer / 2
            distance = np.maximum(y - inner, np.abs(x) * math.sqrt(3) / 2 - y / 2 - inner)
        case _:
            raise ValueError(f"unknown shape {shape!r}")
    return np.asarray(distance, dtype=np.float64)


def coverage(shape: str, size: str, pose: Pose, frame_size: int = FRAME_SIZE) -> NDArray[np.float32]:
    """How much of each pixel a shape covers, float32 [frame_size, frame_size] in [0, 1]."""
    return np.clip(0.5 - signed_distance(shape, size, pose, frame_size) / EDGE_PX, 0.0, 1.0).astype(np.float32)


def compose(
    cover: NDArray[np.float32], colour: tuple[int, int, int], background: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """A frame uint8 [H, W, 3] of a coverage mask in one colour over another."""
    mask = cover[..., None].astype(np.float64)
    frame = mask * np.array(colour, dtype=np.float64) + (1 - mask) * np.array(background, dtype=np.float64)
    return np.rint(frame).astype(np.uint8)


def render(scene: Scene, *, num_frames: int = NUM_FRAMES, fps: float = FPS) -> NDArray[np.uint8]:
    """The clip of a scene: uint8 [num_frames, 64, 64, 3], RGB."""
    colour, background = COLOURS[scene.colour], BACKGROUNDS[scene.background]
    return np.stack(
        [
            compose(coverage(scene.shape, scene.size, pose_at(scene, i / fps)), colour, background)
            for i in range(num_frames)
        ]
    )
