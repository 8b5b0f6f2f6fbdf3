"""Probe copies are what they are called, and the alarms follow the shares."""

from __future__ import annotations

import numpy as np
import pytest

from densedpo.metrics.motion import measure_motion
from densedpo.metrics.probes import PROBES, Probe, probe_check, probe_copy
from densedpo.world.render import render
from densedpo.world.scene import draw_scene

CLIP = render(draw_scene(6))[:13]


@pytest.mark.parametrize("probe", PROBES)
def test_a_copy_has_the_form_of_the_original_and_is_the_same_each_time(probe: Probe) -> None:
    copy = probe_copy(CLIP, probe, seed=0, clip_id="c")
    assert (copy.shape, copy.dtype) == (CLIP.shape, CLIP.dtype)
    assert (copy != CLIP).any()
    assert (copy == probe_copy(CLIP, probe, seed=0, clip_id="c")).all()


def test_a_frozen_copy_does_not_move_and_a_slow_one_half_as_fast() -> None:
    assert measure_motion(probe_copy(CLIP, "frozen", seed=0, clip_id="c"), fps=8.0).object_px == 0
    slow = measure_motion(probe_copy(CLIP, "slow", seed=0, clip_id="c"), fps=8.0).object_px
    assert slow == pytest.approx(measure_motion(CLIP[:7], fps=8.0).object_px / 2, rel=0.15)


def test_a_slow_copy_holds_every_frame_of_the_first_half() -> None:
    assert (probe_copy(CLIP, "slow", seed=0, clip_id="c")[::2] == CLIP[:7]).all()


def test_reversed_and_shuffled_copies_have_the_same_frames_in_another_order() -> None:
    assert (probe_copy(CLIP, "reversed", seed=0, clip_id="c")[::-1] == CLIP).all()
    order = [probe_copy(np.arange(13), "shuffled", seed=0, clip_id=clip).tolist() for clip in "abcdef"]  # type: ignore[arg-type]
    assert all(sorted(each) == list(range(13)) and each != list(range(13)) for each in order)
    assert len({tuple(each) for each in order}) == 6


def test_a_shuffled_copy_of_a_short_clip_is_never_the_clip() -> None:
    for i in range(50):
        copy = probe_copy(np.arange(3), "shuffled", seed=i, clip_id="c")  # type: ignore[arg-type]
        assert copy.tolist() != [0, 1, 2]


@pytest.mark.parametrize(
    ("probe", "for_copy", "ties", "alarm"),
    [
        ("frozen", 14, 0, True),  # 70 %, as one published judge
        ("frozen", 4, 0, False),
        ("frozen", 0, 20, False),  # always a tie: exactly half, and not over
        ("slow", 11, 0, False),  # 55 %
        ("slow", 13, 0, True),
        ("shuffled", 7, 0, False),  # the original in 65 %
        ("shuffled", 9, 0, True),  # in 55 %
        ("reversed", 0, 20, True),  # a judge to which the order makes no difference
    ],
)
def test_alarms_follow_the_share_of_answers_for_the_copy(probe: Probe, for_copy: int, ties: int, alarm: bool) -> None:
    answers = [1] * for_copy + [0] * ties + [-1] * (20 - for_copy - ties)
    check = probe_check({(f"p{i}", 0): answer for i, answer in enumerate(answers)}, probe, seed=0)
    assert check.estimate is not None
    assert check.estimate.value == pytest.approx((for_copy + ties / 2) / 20)
    assert check.estimate.n == 20
    assert check.alarm is alarm


def test_a_judge_that_answered_nothing_was_not_probed() -> None:
    check = probe_check({("p", 0): None}, "frozen", seed=0)
    assert check.estimate is None
    assert not check.alarm
    assert check.reason == "the judge answered no probe"


def test_too_short_a_clip_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 3 frames"):
        probe_copy(CLIP[:2], "reversed", seed=0, clip_id="c")
