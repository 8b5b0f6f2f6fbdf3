"""Clean clips to train and test the reward on: scenes of the world, and textured ones under a moving camera.

The world alone would teach that a good clip has a plain background. Every clip moves, so that a held or reordered frame
is always a fault. All randomness comes from the generator that is passed in.
"""

from __future__ import annotations

import math
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from densedpo.world.render import FPS, FRAME_SIZE, NUM_FRAMES, compose, coverage, pose_at
from densedpo.world.scene import BACKGROUNDS, COLOURS, draw_scene

Frames = NDArray[np.uint8]
Source = Literal["world", "textured"]

_CANVAS: Final = 160  # side of a texture in pixels; frames are windows of it
_SMALLEST_CELL: Final = 3  # pixels; finer detail would blink when it is moved by part of a pixel
_MOST_SPRITES: Final = 3


def clean_clip(source: Source, rng: np.random.Generator, num_frames: int, *, split: str = "train") -> Frames:
    """A clip uint8 [num_frames, 64, 64, 3] without a fault, at 8 frames per second.

    Args:
        split: of the world's scenes; `held_out` for tests.
    """
    if source == "world":
        return _world(rng, num_frames, split)
    return _textured(rng, num_frames)


def _world(rng: np.random.Generator, num_frames: int, split: str) -> Frames:
    scene = draw_scene(int(rng.integers(2**62)), split=split)
    start = int(rng.integers(NUM_FRAMES - num_frames + 1))
    colour, background = COLOURS[scene.colour], BACKGROUNDS[scene.background]
    poses = [pose_at(scene, (start + i) / FPS) for i in range(num_frames)]
    return np.stack([compose(coverage(scene.shape, scene.size, pose), colour, background) for pose in poses])


def _textured(rng: np.random.Generator, num_frames: int) -> Frames:
    """A texture under a camera (or a still one), with sprites of other textures that move by themselves."""
    num_sprites = int(rng.integers(0, _MOST_SPRITES + 1))
    camera_moves = num_sprites == 0 or rng.random() < 0.6
    layers = [_Layer(rng, num_frames, moves=camera_moves, whole=True)]
    layers += [_Layer(rng, num_frames, moves=True, whole=False) for _ in range(num_sprites)]
    frames = []
    for index in range(num_frames):
        frame, _ = layers[0].drawn(index)
        for layer in layers[1:]:
            own, alpha = layer.drawn(index)
            frame = alpha * own + (1 - alpha) * frame
        frames.append(frame)
    return np.clip(np.rint(np.stack(frames)), 0, 255).astype(np.uint8)


class _Layer:
    """A texture on a path: constant speed, a slow turn and a slow change of size."""

    def __init__(self, rng: np.random.Generator, num_frames: int, *, moves: bool, whole: bool) -> None:
        self._texture = _texture(rng)
        self._mask = None if whole else _blob(rng)
        speed = rng.uniform(0.6, 4.0) if moves else 0.0
        heading = rng.uniform(0, 2 * math.pi)
        self._step = speed * np.array([math.cos(heading), math.sin(heading)])
        self._turn = rng.uniform(-4, 4) if moves and rng.random() < 0.6 else 0.0  # degrees a frame
        self._growth = rng.uniform(-0.02, 0.02) if moves and rng.random() < 0.5 else 0.0
        reach = 0.0 if whole else 18.0
        # the path's middle, not its start, is where it was drawn, so that sprites do not leave at once
        self._start = rng.uniform(-reach, reach, size=2) - self._step * (num_frames - 1) / 2
        self._middle = (num_frames - 1) / 2

    def drawn(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Colours [64, 64, 3] and coverage [64, 64, 1] in a frame."""
        since = index - self._middle
        centre = (_CANVAS / 2, _CANVAS / 2)
        matrix = np.asarray(cv2.getRotationMatrix2D(centre, self._turn * since, 1 + self._growth * since), np.float64)
        matrix[:, 2] += self._start + self._step * index + (FRAME_SIZE - _CANVAS) / 2
        size = (FRAME_SIZE, FRAME_SIZE)
        colours = cv2.warpAffine(
            self._texture, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
        ).astype(np.float32)
        if self._mask is None:
            return colours, np.ones((FRAME_SIZE, FRAME_SIZE, 1), dtype=np.float32)
        cover = cv2.warpAffine(self._mask, matrix, size, flags=cv2.INTER_LINEAR, borderValue=0)
        return colours, np.asarray(cover, dtype=np.float32)[..., None]


def _texture(rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth noise of several sizes around a colour, [160, 160, 3]."""
    base = rng.uniform(20, 235, size=3)
    texture = np.full((_CANVAS, _CANVAS, 3), base, dtype=np.float32)
    for cell in (40, 16, 7, _SMALLEST_CELL):
        grid = rng.standard_normal((_CANVAS // cell + 2, _CANVAS // cell + 2, 3)).astype(np.float32)
        shared = grid.mean(axis=2, keepdims=True) * math.sqrt(3)  # brightness more than hue, as in photographs
        grid = (0.7 * shared + 0.3 * grid) * rng.uniform(0, 28)
        texture += cv2.resize(grid, (_CANVAS, _CANVAS), interpolation=cv2.INTER_CUBIC)
    return np.clip(texture, 0, 255)


def _blob(rng: np.random.Generator) -> NDArray[np.float32]:
    """A soft-edged outline round the middle of the canvas, [160, 160] in [0, 1]."""
    y, x = np.mgrid[0:_CANVAS, 0:_CANVAS] - (_CANVAS - 1) / 2
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    outline: NDArray[np.float64] = np.full(angle.shape, rng.uniform(6, 16))
    for order in range(2, 6):
        outline += rng.uniform(0, 2.5) * np.cos(order * angle + rng.uniform(0, 2 * math.pi))
    edge = rng.uniform(1.5, 3.0)
    return np.asarray(np.clip(0.5 - (radius - outline) / edge, 0, 1), dtype=np.float32)
