"""Answers to preferences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densedpo.core.errors import BadInput
from densedpo.core.records import Judgement, Pair, Preference
from densedpo.judge.aggregate import aggregate, latest, summarise, swap, swap_preference

SEGMENTS = ((0, 8), (8, 16), (16, 24), (24, 33))
WHOLE = (0, 33)

confidences = st.none() | st.floats(0, 1)
scores = st.none() | st.floats(-10, 10)


@st.composite
def judgements(draw: st.DrawFn) -> list[Judgement]:
    """Answers of up to three annotators about segments and the whole of pair p0, with repeats."""
    found = []
    for number in range(draw(st.integers(0, 14))):
        segment = draw(st.none() | st.integers(0, len(SEGMENTS) - 1))
        start, stop = WHOLE if segment is None else SEGMENTS[segment]
        found.append(
            Judgement(
                id=f"j{number}",
                pair_id="p0",
                annotator=draw(st.sampled_from(["x", "y", "z"])),
                segment=segment,
                start_frame=start,
                stop_frame=stop,
                answer=draw(st.sampled_from(["a", "b", "tie", "skip"])),
                confidence=draw(confidences),
                score_a=draw(scores),
                score_b=draw(scores),
                left=draw(st.sampled_from(["a", "b"])),
                instructions="v1",
                tool_version="test",
                created_at="2026-01-01T00:00:00+00:00",
            )
        )
    return found


@given(judgements())
def test_exchanging_the_clips_exchanges_the_preference(new_pair: Callable[..., Pair], rows: list[Judgement]) -> None:
    pair = new_pair()
    preference = aggregate(pair, SEGMENTS, rows)
    swapped = aggregate(pair, SEGMENTS, [swap(row) for row in rows])
    assert swapped == (swap_preference(preference) if preference is not None else None)


@given(judgements())
def test_swapping_twice_changes_nothing(rows: list[Judgement]) -> None:
    assert [swap(swap(row)) for row in rows] == rows


@given(judgements())
def test_what_counts_is_decided_once(rows: list[Judgement]) -> None:
    assert latest(latest(rows)) == latest(rows)


@given(judgements())
def test_the_order_of_annotators_does_not_matter(new_pair: Callable[..., Pair], rows: list[Judgement]) -> None:
    counting = list(latest(rows))
    forward = aggregate(new_pair(), SEGMENTS, counting)
    backward = aggregate(new_pair(), SEGMENTS, counting[::-1])
    assert (forward and (forward.labels, forward.clip_label)) == (backward and (backward.labels, backward.clip_label))


@pytest.mark.parametrize(
    ("answers", "label"),
    [
        ("a", 1),
        ("b", -1),
        ("t", 0),
        ("aab", 1),
        ("abb", -1),
        ("ab", 0),
        ("at", 0),  # one of two is not more than half
        ("aat", 1),
        ("abt", 0),
        ("aatt", 0),
        ("as", 1),  # who skips has not answered
        ("ss", None),
    ],
)
def test_a_label_needs_more_than_half_of_the_answers(
    new_pair: Callable[..., Pair], new_judgement: Callable[..., Judgement], answers: str, label: int | None
) -> None:
    words = {"a": "a", "b": "b", "t": "tie", "s": "skip"}
    rows = [new_judgement(annotator=f"n{i}", answer=words[answer]) for i, answer in enumerate(answers)]
    preference = aggregate(new_pair(), SEGMENTS, rows)
    assert (preference.labels[0] if preference is not None else None) == label


def test_a_later_answer_replaces_and_a_skip_takes_back(
    new_pair: Callable[..., Pair], new_judgement: Callable[..., Judgement]
) -> None:
    first, second = new_judgement(answer="a"), new_judgement(answer="b")
    changed = aggregate(new_pair(), SEGMENTS, [first, second])
    assert changed is not None
    assert (changed.labels[0], changed.num_judgements) == (-1, 1)
    assert aggregate(new_pair(), SEGMENTS, [first, second, new_judgement(answer="skip")]) is None


def test_unanswered_segments_are_no_ties_and_the_clip_goes_to_who_wins_more(
    new_pair: Callable[..., Pair], new_judgement: Callable[..., Judgement]
) -> None:
    rows = [
        new_judgement(segment=i, start_frame=SEGMENTS[i][0], stop_frame=SEGMENTS[i][1], answer=answer)
        for i, answer in ((0, "b"), (1, "b"), (3, "a"))
    ]
    assert aggregate(new_pair(split="validation"), SEGMENTS, rows) == Preference(
        pair_id="p0", split="validation", ranges=SEGMENTS, labels=(-1, -1, 0, 1), clip_label=-1, num_judgements=3,
        answered=(True, True, False, True),
    )  # fmt: skip


def test_a_tie_is_an_answer(new_pair: Callable[..., Pair], new_judgement: Callable[..., Judgement]) -> None:
    rows = [
        new_judgement(segment=i, start_frame=start, stop_frame=stop, answer="tie" if i else "b")
        for i, (start, stop) in enumerate(SEGMENTS)
    ]
    preference = aggregate(new_pair(), SEGMENTS, rows)
    assert preference is not None
    assert (preference.labels, preference.answered) == ((-1, 0, 0, 0), None)


def test_an_answer_about_the_whole_clip_decides_the_clip_label(
    new_pair: Callable[..., Pair], new_judgement: Callable[..., Judgement]
) -> None:
    whole = new_judgement(segment=None, stop_frame=33, answer="b")
    both = aggregate(new_pair(), SEGMENTS, [new_judgement(answer="a"), whole])
    assert both is not None
    assert (both.labels, both.clip_label) == ((1, 0, 0, 0), -1)
    alone = aggregate(new_pair(), SEGMENTS, [whole])
    assert alone is not None
    assert (alone.ranges, alone.labels, alone.clip_label) == ((WHOLE,), (-1,), -1)


def test_confidence_is_the_mean_support_of_the_label(
    new_pair: Callable[..., Pair], new_judgement: Callable[..., Judgement]
) -> None:
    """Three say a (certain), a (0.8), b (certain): (1 + 0.8 + 0) / 3 = 0.6; unanswered segments are at one half."""
    rows = [
        new_judgement(annotator="x"),
        new_judgement(annotator="y", confidence=0.8),
        new_judgement(annotator="z", answer="b"),
    ]
    preference = aggregate(new_pair(), SEGMENTS, rows)
    assert preference is not None
    assert preference.confidence == pytest.approx((0.6, 0.5, 0.5, 0.5))


def test_one_certain_annotator_leaves_no_confidence_to_state(
    new_pair: Callable[..., Pair], new_judgement: Callable[..., Judgement]
) -> None:
    preference = aggregate(new_pair(), SEGMENTS, [new_judgement()])
    assert preference is not None
    assert preference.confidence is None


def test_an_answer_about_other_segments_is_refused_by_name(
    new_pair: Callable[..., Pair], new_judgement: Callable[..., Judgement]
) -> None:
    with pytest.raises(BadInput, match=r"pair p0: 'ann' judged frames 0 to 16, which is no segment"):
        aggregate(new_pair(), SEGMENTS, [new_judgement(stop_frame=16)])


def test_answers_about_other_pairs_do_not_count(
    new_pair: Callable[..., Pair], new_judgement: Callable[..., Judgement]
) -> None:
    assert aggregate(new_pair(), SEGMENTS, [new_judgement(pair_id="p9")]) is None


def test_summary_by_hand(new_pair: Callable[..., Pair], new_judgement: Callable[..., Judgement]) -> None:
    """Labels (1 0 0 0) and (1 -1 1 0): 4 of 8 are ties, 1 of 2 pairs holds both signs, a wins 3 of 4."""
    one = aggregate(new_pair(), SEGMENTS, [new_judgement()])
    assert one is not None
    summary = summarise([one, replace(one, labels=(1, -1, 1, 0))])
    assert (summary.num_pairs, summary.num_segments) == (2, 8)
    assert (summary.tie_share, summary.both_signs_share, summary.a_share) == (0.5, 0.5, 0.75)
    assert summarise([]).tie_share is None
