"""Scenes of the procedural world: what can be in a clip, how it is said, and who is held out.

A scene is one coloured shape on a plain background that moves in one named way. Everything that a caption can say is a
finite table here, so that the shipped text encoder's vocabulary, the oracle and the renderer cannot disagree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np

SHAPES: Final = ("circle", "square", "triangle")
COLOURS: Final[dict[str, tuple[int, int, int]]] = {
    "red": (230, 50, 45),
    "green": (60, 190, 70),
    "blue": (60, 100, 240),
    "yellow": (240, 215, 50),
    "purple": (180, 70, 210),
}
BACKGROUNDS: Final[dict[str, tuple[int, int, int]]] = {
    "black": (16, 16, 18),
    "gray": (112, 114, 118),
    "white": (236, 236, 232),
}
SIZES: Final[dict[str, float]] = {"small": 8.5, "large": 11.5}  # radius of the circle with the same area, in pixels
SPEEDS: Final = ("slow", "fast")

# motion -> its directions, as they are said; "" where the motion has only one
MOTIONS: Final[dict[str, tuple[str, ...]]] = {
    "slides": ("left", "right", "up", "down"),
    "bounces": ("up and down", "left and right"),
    "orbits": ("clockwise", "counterclockwise"),
    "falls": ("",),
    "spins": ("clockwise", "counterclockwise"),
}
SPEED_WORDS: Final = {"slow": "slowly", "fast": "fast"}

# What a caption leaves open is drawn from half of its range and a quarter turn. Over the whole ranges two clips of one
# caption share so little that the shipped model, with hours on two cores, learns the looks and not the directions.
OFFSET_DRAWN: Final = 0.5
PHASE_DRAWN: Final = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """One scene: the words of its caption and the continuous parameters that its seed drew.

    `offset_x`, `offset_y` are in [-1, 1] and shift the path within the room that the motion leaves; `phase` is in
    [0, 1).
    """

    shape: str
    colour: str
    size: str
    background: str
    motion: str
    direction: str
    speed: str
    offset_x: float
    offset_y: float
    phase: float

    @property
    def caption(self) -> str:
        """What is seen, in one sentence of the world's grammar."""
        words = ["a", self.size, self.colour, self.shape, self.motion, self.direction, SPEED_WORDS[self.speed]]
        return " ".join(word for word in words if word) + f" on a {self.background} background"

    @property
    def combination(self) -> tuple[str, str, str, str, str]:
        """The part of the caption on which the held-out split is decided."""
        return (self.shape, self.colour, self.motion, self.direction, self.speed)

    @property
    def split(self) -> str:
        """`held_out` for a tenth of the combinations, which training never sees, else `train`."""
        digest = hashlib.blake2b("|".join(self.combination).encode(), digest_size=4).digest()
        return "held_out" if int.from_bytes(digest, "big") % 10 == 0 else "train"


def all_scenes() -> Iterator[Scene]:
    """Every scene that a caption can tell apart, with its path centred (offsets and phase 0)."""
    looks = product(SHAPES, COLOURS, SIZES, BACKGROUNDS)
    moves = [(m, d, s) for m, directions in MOTIONS.items() for d in directions for s in SPEEDS]
    for (shape, colour, size, background), (motion, direction, speed) in product(looks, moves):
        if shape == "circle" and motion == "spins":  # a spinning circle cannot be seen to spin
            continue
        yield Scene(
            shape=shape,
            colour=colour,
            size=size,
            background=background,
            motion=motion,
            direction=direction,
            speed=speed,
            offset_x=0.0,
            offset_y=0.0,
            phase=0.0,
        )


def draw_scene(seed: int, *, split: str | None = None) -> Scene:
    """The scene of a seed; the same seed gives the same scene on every machine.

    Args:
        split: `train` or `held_out` to redraw (deterministically) until the combination is of that split.
    """
    if split not in (None, "train", "held_out"):
        raise ValueError(f"split is 'train' or 'held_out', not {split!r}")
    rng = np.random.Generator(np.random.Philox(key=seed))
    while True:
        shape = str(rng.choice(SHAPES))
        motions = [m for m in MOTIONS if not (shape == "circle" and m == "spins")]
        motion = str(rng.choice(motions))
        scene = Scene(
            shape=shape,
            colour=str(rng.choice(list(COLOURS))),
            size=str(rng.choice(list(SIZES))),
            background=str(rng.choice(list(BACKGROUNDS))),
            motion=motion,
            direction=str(rng.choice(MOTIONS[motion])),
            speed=str(rng.choice(SPEEDS)),
            offset_x=float(rng.uniform(-OFFSET_DRAWN, OFFSET_DRAWN)),
            offset_y=float(rng.uniform(-OFFSET_DRAWN, OFFSET_DRAWN)),
            phase=float(rng.uniform(0, PHASE_DRAWN)),
        )
        if split is None or scene.split == split:
            return scene


def parse_caption(caption: str) -> Scene:
    """The scene that a caption of the world describes, with a centred path.

    Raises:
        ValueError: the caption is not a sentence of the world's grammar.
    """
    for scene in all_scenes():
        if scene.caption == caption.strip().lower():
            return scene
    raise ValueError(
        f"caption {caption!r} is not a sentence of the world; an example: 'a small red circle slides left "
        "fast on a black background'"
    )
