"""Planted faults: a scene's clip with one thing wrong, to show that each score of the oracle sees only its own faults.

A fault has a strength in [0, 1] (0 is the rendered truth) and, where it happens in time, a half-open range of frames.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from densedpo.world.render import EDGE_PX, FPS, NUM_FRAMES, Pose, compose, coverage, pose_at, render, signed_distance
from densedpo.world.scene import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, Scene
from densedpo.world.template import Floats

Frames = NDArray[np.uint8]

BLUR_SIGMA_PX: Final = 2.5
DRIFT: Final = 85.0  # in units of 0-255, along the line to another colour
FLICKER: Final = 30.0  # in units of 0-255, up and down in turn
MORPH: Final = 0.8  # how far the outline goes towards the other shape's

# the score of `Scores` that each fault lowers; it leaves the other three where they are
LOWERS: Final[dict[str, str]] = {
    "blur": "visual_quality",
    "colour drift": "temporal_consistency",
    "shape morph": "temporal_consistency",
    "flicker": "temporal_consistency",
    "freeze": "dynamic_degree",
    "wrong colour": "text_alignment",
    "wrong shape": "text_alignment",
    "wrong direction": "text_alignment",
}


def plant(
    scene: Scene, fault: str, *, strength: float = 1.0, start_frame: int = 0, stop_frame: int = NUM_FRAMES
) -> Frames:
    """A clip [33, 64, 64, 3] of a scene with a fault.

    Args:
        fault: a key of LOWERS. The wrong words (colour, shape, direction) concern the clip as a whole and take no
            range; a direction is wrong or not, at any strength above 0.

    Raises:
        ValueError: unknown fault, strength outside [0, 1], or a range outside the clip.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength lies in [0, 1], not {strength}")
    if not 0 <= start_frame < stop_frame <= NUM_FRAMES:
        raise ValueError(f"frames [{start_frame}, {stop_frame}) lie outside a clip of {NUM_FRAMES}")
    share = np.zeros(NUM_FRAMES)
    share[start_frame:stop_frame] = strength
    match fault:
        case "blur":
            return _blurred(render(scene), share)
        case "colour drift":
            swing = np.sin(2 * math.pi * _progress(start_frame, stop_frame))
            return _recoloured(scene, _other_colour(scene), share * swing * DRIFT)
        case "shape morph":
            return _morphed(scene, share * MORPH * np.sin(math.pi * _progress(start_frame, stop_frame)) ** 2)
        case "flicker":
            offset = share * FLICKER * (-1.0) ** np.arange(NUM_FRAMES)
            return _to_uint8(render(scene) + offset[:, None, None, None])
        case "freeze":
            pace = np.concatenate([[0.0], np.cumsum(1 - share[1:])])
            return _drawn(scene, [pose_at(scene, float(time) / FPS) for time in pace])
        case "wrong colour":
            apart = math.dist(COLOURS[scene.colour], COLOURS[_other_colour(scene)])
            return _recoloured(scene, _other_colour(scene), np.full(NUM_FRAMES, strength * apart))
        case "wrong shape":
            return _morphed(scene, np.full(NUM_FRAMES, strength))
        case "wrong direction":
            return _turned_round(scene) if strength > 0 else render(scene)
        case _:
            raise ValueError(f"unknown fault {fault!r}; known: {', '.join(LOWERS)}")


def _progress(start_frame: int, stop_frame: int) -> Floats:
    return np.clip((np.arange(NUM_FRAMES) - start_frame + 0.5) / (stop_frame - start_frame), 0.0, 1.0)


def _to_uint8(frames: NDArray[np.generic]) -> Frames:
    return np.asarray(np.clip(np.rint(frames), 0, 255), dtype=np.uint8)


def _other_colour(scene: Scene) -> str:
    names = list(COLOURS)
    return names[(names.index(scene.colour) + 1) % len(names)]


def _other_shape(scene: Scene) -> str:
    # a spinning shape does not become a circle: that could not be seen to spin
    names = [name for name in SHAPES if scene.motion != "spins" or name != "circle"]
    return names[(names.index(scene.shape) + 1) % len(names)]


def _drawn(scene: Scene, poses: list[Pose]) -> Frames:
    colour, background = COLOURS[scene.colour], BACKGROUNDS[scene.background]
    return np.stack([compose(coverage(scene.shape, scene.size, pose), colour, background) for pose in poses])


def _blurred(frames: Frames, share: Floats) -> Frames:
    blurred = [
        cv2.GaussianBlur(frame.astype(np.float32), (0, 0), max(BLUR_SIGMA_PX * amount, 0.05)) if amount else frame
        for frame, amount in zip(frames, share, strict=True)
    ]
    return _to_uint8(np.stack(blurred))


def _recoloured(scene: Scene, other: str, distance: Floats) -> Frames:
    """The clip with the shape's colour moved a distance per frame along the line to another colour."""
    own, background = np.array(COLOURS[scene.colour], dtype=np.float64), np.array(BACKGROUNDS[scene.background])
    line = (np.array(COLOURS[other]) - own) / math.dist(COLOURS[scene.colour], COLOURS[other])
    frames = []
    for i, amount in enumerate(distance):
        cover = coverage(scene.shape, scene.size, pose_at(scene, i / FPS))[..., None]
        frames.append(cover * np.clip(own + amount * line, 0, 255) + (1 - cover) * background)
    return _to_uint8(np.stack(frames))


def _morphed(scene: Scene, amount: Floats) -> Frames:
    """The clip with the outline part of the way to another shape's, sharp all the time."""
    other = _other_shape(scene)
    frames = []
    for i, share in enumerate(amount):
        pose = pose_at(scene, i / FPS)
        own, new = (signed_distance(shape, scene.size, pose) for shape in (scene.shape, other))
        blend = (1 - share) * own + share * new
        cover = np.clip(0.5 - blend / EDGE_PX, 0.0, 1.0).astype(np.float32)
        frames.append(compose(cover, COLOURS[scene.colour], BACKGROUNDS[scene.background]))
    return np.stack(frames)


def _turned_round(scene: Scene) -> Frames:
    """The same scene in another direction; a fall, which has only one, is turned upside down."""
    directions = MOTIONS[scene.motion]
    if len(directions) == 1:
        return np.ascontiguousarray(render(scene)[:, ::-1])
    opposite = {"left": "right", "right": "left", "up": "down", "down": "up"}
    other = opposite.get(scene.direction) or next(d for d in directions if d != scene.direction)
    return render(dataclasses.replace(scene, direction=other))
