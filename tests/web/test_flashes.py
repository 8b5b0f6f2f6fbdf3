"""Clips that flash, by WCAG 2.3.1, against clips that merely move or change slowly."""

from __future__ import annotations

from collections.abc import Callable

import httpx2
import numpy as np
import pytest

from densedpo.core.media import write_pair_mp4
from densedpo.judge.studies.flashes import flashes
from studio_example import FPS, NUM_FRAMES, SIDE, Room, coded_clip


def clip(values: list[tuple[int, int, int]], *, rows: int = SIDE) -> np.ndarray:
    """A clip whose upper rows have one colour in each frame, on grey."""
    frames = np.full((len(values), SIDE, SIDE, 3), 128, dtype=np.uint8)
    for n, colour in enumerate(values):
        frames[n, :rows] = colour
    return frames


def grey(*values: int) -> list[tuple[int, int, int]]:
    return [(value, value, value) for value in values]


def test_more_than_three_flashes_in_a_second_are_too_many() -> None:
    """At 8 frames a second, black and white in turn change 7 times from the first to the eighth frame: over the 6 that
    three flashes have. Held for two frames each, they change 4 times."""
    assert flashes(clip(grey(*[0, 255] * 8)), fps=8.0)
    assert not flashes(clip(grey(*[0, 0, 255, 255] * 4)), fps=8.0)


def test_the_rate_counts_not_the_number() -> None:
    """The same 15 changes at 24 frames a second lie in one second, at 4 frames a second there are 4 in each."""
    frames = clip(grey(*[0, 255] * 8))
    assert flashes(frames, fps=24.0)
    assert not flashes(frames, fps=4.0)


def test_a_change_under_a_tenth_of_the_range_is_none() -> None:
    """sRGB 0 and 85 are 0 and 0.091 of the largest luminance; 0 and 92 are 0 and 0.107."""
    assert not flashes(clip(grey(*[0, 85] * 8)), fps=8.0)
    assert flashes(clip(grey(*[0, 92] * 8)), fps=8.0)


def test_what_stays_bright_does_not_flash() -> None:
    """sRGB 232 is 0.807: the darker side of the change is above 0.8."""
    assert not flashes(clip(grey(*[232, 255] * 8)), fps=8.0)
    assert flashes(clip(grey(*[228, 255] * 8)), fps=8.0)


def test_a_small_spot_may_flash() -> None:
    """6 of 64 rows are 9.4 % of the clip, 7 are 10.9 %."""
    assert not flashes(clip(grey(*[0, 255] * 8), rows=6), fps=8.0)
    assert flashes(clip(grey(*[0, 255] * 8), rows=7), fps=8.0)


def test_saturated_red_flashes_with_less() -> None:
    """Red 128 is 0.216 in linear light: 0.046 of luminance, which is no general flash, and 69 of 320 in redness, over
    20. The same in blue is nothing."""
    assert flashes(clip([(0, 0, 0), (128, 0, 0)] * 8), fps=8.0)
    assert not flashes(clip([(0, 0, 0), (0, 0, 128)] * 8), fps=8.0)


def test_motion_is_no_flash() -> None:
    frames = np.zeros((24, SIDE, SIDE, 3), dtype=np.uint8)
    for n in range(24):
        frames[n, 10:50, (2 * n) % 24 : (2 * n) % 24 + 30] = 255
    assert not flashes(frames, fps=8.0)


@pytest.mark.parametrize("kind", ["segments", "scores"])
def test_the_browser_is_told_before_it_plays(
    new_room: Callable[..., Room], serve_room: Callable[..., httpx2.Client], kind: str
) -> None:
    """One pair of which b flashes: with both clips on the screen, or b alone, the answer says so."""
    room = new_room(kind=kind, num_items=1, name=f"flash-{kind}")
    item = next(iter(room.desk.items.values()))
    pair = room.pairs.by_id[item.pair_id]
    bright = clip(grey(*[0, 255] * (NUM_FRAMES // 2)))
    write_pair_mp4(room.pairs.folder / pair.video, coded_clip("a"), bright, fps=FPS, pixel_scale=2)
    client = serve_room(room, "ann")
    told = {}
    for view in client.post("/api/work", json={}).json()["items"]:
        media = client.get(view["media"])
        shown = next(each for each in room.desk.items.values() if view["media"].endswith(each.media))
        told[shown.side] = media.headers["x-flashes"]
    assert told == ({None: "yes"} if kind == "segments" else {"a": "no", "b": "yes"})
