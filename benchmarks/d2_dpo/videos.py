"""Token videos whose truth is known: a coloured square that moves over a small board which wraps around.

A caption is a colour and a step per frame. A clip is right where it is the square of that colour on that path, from
whichever place it starts; how right it is can be counted, frame by frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float, Int
    from torch import Generator, Tensor

NUM_FRAMES: Final = 6
SIDE: Final = 8
_SQUARE: Final = 3
NUM_COLOURS: Final = 4
VOCABULARY: Final = 1 + NUM_COLOURS  # 0 is the ground
STEPS: Final = tuple(step for step in product((-1, 0, 1), repeat=2) if step != (0, 0))


@dataclass(frozen=True, kw_only=True, slots=True)
class Caption:
    """What a clip is to show: a colour from 1, and the places that the square moves in each frame."""

    colour: int
    step: tuple[int, int]

    @property
    def number(self) -> int:
        """From 0, among all captions."""
        return (self.colour - 1) * len(STEPS) + STEPS.index(self.step)


CAPTIONS: Final = tuple(Caption(colour=colour, step=step) for colour in range(1, VOCABULARY) for step in STEPS)


def paths(step: tuple[int, int]) -> Bool[Tensor, "start frame row column"]:
    """Where the square is in each frame, from each place of the board."""
    frame, row, column = torch.meshgrid(*(torch.arange(size) for size in (NUM_FRAMES, SIDE, SIDE)), indexing="ij")
    starts = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE))[:, :, None, None, None]
    down = (row - starts[:, 0] - frame * step[0]) % SIDE
    right = (column - starts[:, 1] - frame * step[1]) % SIDE
    return (down < _SQUARE) & (right < _SQUARE)


def overlap(clips: Int[Tensor, "clip frame row column"], captions: Sequence[Caption]) -> Float[Tensor, "clip frame"]:
    """How right each frame is, in [0, 1]: places of the right colour on the path, over those that are either.

    The path is the one of the caption that fits the whole clip best.
    """
    found = []
    for clip, caption in zip(clips, captions, strict=True):
        path = paths(caption.step)
        both = (path & (clip == caption.colour)).sum((2, 3))
        either = (path | (clip != 0)).sum((2, 3))
        by_start = both / either
        found.append(by_start[by_start.mean(1).argmax()])
    return torch.stack(found)


def motion(clips: Int[Tensor, "clip frame row column"]) -> Float[Tensor, " clip"]:
    """The share of coloured places that change from a frame to the next, in the mean; nothing in an empty clip."""
    coloured = clips != 0
    changed = (coloured[:, 1:] ^ coloured[:, :-1]).sum((2, 3))
    either = (coloured[:, 1:] | coloured[:, :-1]).sum((2, 3)).clamp(min=1)
    return (changed / either).mean(1)


def real_clips(
    captions: Sequence[Caption], *, fault_share: float, rng: Generator
) -> Int[Tensor, "clip frame row column"]:
    """Clips to learn from, of which a share has one of two faults: some frames of another colour, or a turn back."""
    clips = []
    for caption in captions:
        path = paths(caption.step)[_draw(SIDE * SIDE, rng)]
        colour = torch.full((NUM_FRAMES, 1, 1), caption.colour)
        if torch.rand((), generator=rng) < fault_share:
            when = 1 + _draw(NUM_FRAMES - 1, rng)
            if torch.rand((), generator=rng) < 0.5:
                colour[when:] = 1 + (caption.colour + _draw(NUM_COLOURS - 1, rng)) % NUM_COLOURS
            else:
                path = torch.cat([path[:when], path[:when].flip(0).repeat(NUM_FRAMES, 1, 1)[: NUM_FRAMES - when]])
        clips.append(torch.where(path, colour, 0))
    return torch.stack(clips)


def _draw(count: int, rng: Generator) -> int:
    return int(torch.randint(count, (), generator=rng))
