"""The colours of a clip brought to those of its first frame."""

from __future__ import annotations

import numpy as np

from densedpo.core.seeds import generator
from densedpo.generate.colours import match_first_frame


def clip_of(*frames: list[int]) -> np.ndarray:
    """Frames of one row and one channel."""
    return np.array(frames, dtype=np.uint8)[:, None, :, None]


def test_values_move_to_those_of_the_same_share_by_hand() -> None:
    """The first frame's values are 0 up to a share of 1/2 and 10 up to 1.

    Of the second, 5 has the share 1/2, so 0; 9 has the share 1, so 10; 7 has 3/4, half way between: 5.
    """
    assert match_first_frame(clip_of([0, 0, 10, 10], [5, 5, 7, 9]))[1].ravel().tolist() == [0, 0, 5, 10]


def test_a_clip_that_only_changes_its_light_gets_its_first_frame_back() -> None:
    """Each channel by its own law: brighter, darker with less contrast; pixels may have moved meanwhile."""
    first = generator(0, "colours").integers(0, 100, (8, 8, 3)).astype(np.uint8)
    moved = np.roll(first, 3, axis=1)
    second = np.stack([moved[..., 0] + 50, 2 * moved[..., 1], moved[..., 2]], axis=-1).astype(np.uint8)
    clip = np.stack([first, second])
    before = clip.copy()
    assert np.array_equal(match_first_frame(clip), np.stack([first, moved]))
    assert np.array_equal(clip, before)


def test_the_order_of_values_is_kept_and_the_first_frame_untouched() -> None:
    clip = generator(1, "colours").integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
    clip[0] //= 3
    found = match_first_frame(clip)
    assert np.array_equal(found[0], clip[0])
    for before, after in zip(clip[1:].reshape(-1, 3).T, found[1:].reshape(-1, 3).T, strict=True):
        one = slice(0, 256)  # of the second frame
        order = np.argsort(before[one], kind="stable")
        assert bool((np.diff(after[one][order].astype(int)) >= 0).all())
    assert abs(found[2].mean() - clip[0].mean()) < 1


def test_one_flat_colour_becomes_the_first_frames_brightest() -> None:
    """A share of 1 is that of the highest value: what nothing distinguishes cannot be spread out again."""
    assert match_first_frame(clip_of([1, 2, 3], [9, 9, 9]))[1].ravel().tolist() == [3, 3, 3]
