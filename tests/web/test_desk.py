"""The desk: who gets which item, and what becomes of what they choose."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from densedpo.core.errors import BadInput
from densedpo.core.media import read_pair_mp4
from densedpo.judge.preferences import collect
from densedpo.judge.studies import ledger
from densedpo.judge.studies.config import StudyConfig
from densedpo.judge.studies.desk import BadChoice, Conflict, NotYours
from densedpo.judge.studies.setup import shown_left
from densedpo.judge.web.views import item_view
from studio_example import Room, coded_clip, new_id, save_request, whole_choice

NewRoom = Callable[..., Room]
NUM_PAIRS = 24


def test_left_is_the_clip_that_was_shown_on_the_left(room: Room) -> None:
    """Whoever always says left prefers a where a was left and b where b was left; the row logs which it was."""
    ann = room.person("ann")
    seen = []
    for _ in range(12):
        held = room.desk.hand_out(ann, count=1)[0]
        seen.append(held.assignment.left)
        room.submit(ann, held, "left")
    rows = room.labels()
    assert [row.left for row in rows] == [left for left in seen for _ in range(3)]
    assert all(row.answer == row.left for row in rows)
    assert set(seen) == {"a", "b"}


def test_sides_are_even_and_can_be_checked_afterwards(room: Room) -> None:
    """2000 coins: 1000 +- 4.5 standard deviations of 22; the same coin falls the same way again."""
    tosses = [shown_left(b"k" * 32, f"item{i}", "ann", 1) for i in range(2000)]
    assert 900 < tosses.count("a") < 1100
    assert tosses == [shown_left(b"k" * 32, f"item{i}", "ann", 1) for i in range(2000)]
    flips = Counter(item.flipped for item in room.desk.items.values())
    assert min(flips.values()) >= 3


def test_a_submission_is_a_row_for_each_part(room: Room) -> None:
    ann = room.person("ann")
    held = room.desk.hand_out(ann)[0]
    room.submit(ann, held, "tie")
    rows = room.labels()
    assert [(row.segment, row.start_frame, row.stop_frame) for row in rows] == [(0, 0, 8), (1, 8, 16), (2, 16, 24)]
    assert {row.answer for row in rows} == {"tie"}
    assert {row.annotator for row in rows} == {"ann"}
    assert {row.duration_ms for row in rows} == {5000}
    assert all(row.instructions.startswith("demo v1, studio ") for row in rows)


def test_the_same_save_again_changes_nothing_and_another_under_its_id_is_refused(room: Room) -> None:
    ann = room.person("ann")
    held = room.desk.hand_out(ann)[0]
    request = save_request(held.assignment.id, "submit", whole_choice("left"), id_=new_id())
    assert [room.desk.save(ann, request).is_new for _ in range(3)] == [True, False, False]
    with pytest.raises(Conflict):
        room.desk.save(ann, request.model_copy(update={"choice": whole_choice("right")}))
    assert len(room.labels()) == 3


def test_a_later_submission_follows_the_first_and_the_last_one_counts(room: Room) -> None:
    ann = room.person("ann")
    held = room.desk.hand_out(ann)[0]
    room.submit(ann, held, "left")
    room.submit(ann, held, "right")
    assert len(room.labels()) == 6
    preference = collect(room.pairs, room.store, segment_seconds=1.0).rows[0]
    assert set(preference.labels) == {-1 if held.assignment.left == "a" else 1}


def test_a_skip_takes_an_answer_back(room: Room) -> None:
    ann = room.person("ann")
    first, second = room.desk.hand_out(ann)
    room.submit(ann, first)
    room.submit(ann, second)
    skip = save_request(first.assignment.id, "skip", whole_choice(reason="cannot tell"))
    room.desk.save(ann, skip)
    assert [row.pair_id for row in collect(room.pairs, room.store, segment_seconds=1.0).rows] == [second.item.pair_id]


def test_drafts_are_kept_and_come_back(room: Room) -> None:
    ann = room.person("ann")
    held = room.desk.hand_out(ann)[0]
    draft = whole_choice(note="half way").model_copy(update={"answers": {"overall": ["left", None, None]}})
    room.desk.save(ann, save_request(held.assignment.id, "draft", draft))
    assert room.labels() == ()
    again = room.desk.hand_out(ann)[0]
    assert again.assignment.id == held.assignment.id
    assert again.choice == draft


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": {"overall": ["left", None, "tie"]}}, "not answered yet: overall"),
        ({"answers": {}}, "not answered yet: overall"),
        ({"answers": {"overall": ["left"] * 4}}, "this item has 3 parts"),
        ({"answers": {"overall": ["left"] * 3, "beauty": ["left"] * 3}}, "other rows"),
        ({"watched": False}, "play the item to its end"),
    ],
)
def test_what_is_not_whole_cannot_be_submitted(room: Room, change: dict[str, object], message: str) -> None:
    ann = room.person("ann")
    held = room.desk.hand_out(ann)[0]
    with pytest.raises(BadChoice, match=message):
        room.desk.save(ann, save_request(held.assignment.id, "submit", whole_choice().model_copy(update=change)))
    assert room.labels() == ()


def test_nobody_writes_or_reads_what_is_somebody_elses(room: Room) -> None:
    ann, bob = room.person("ann"), room.person("bob")
    held = room.desk.hand_out(ann)[0]
    with pytest.raises(NotYours):
        room.submit(bob, held)
    with pytest.raises(NotYours):
        room.desk.look_up(bob, held.assignment.id)
    assert not room.desk.has_had(bob, held.item)


def test_ten_people_at_once_cover_every_item_exactly_as_often_as_asked(new_room: NewRoom) -> None:
    """24 items, 3 people each, 10 people: 72 answers, no item more than 3 times, nobody the same item twice."""
    room = new_room(overlap=3)
    crowd = [room.person(f"person {i}") for i in range(10)]

    def work(person) -> None:
        while held := room.desk.hand_out(person):
            room.submit(person, held[0])

    threads = [threading.Thread(target=work, args=(person,)) for person in crowd]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = Counter((row.pair_id, row.annotator) for row in room.labels())
    assert set(done.values()) == {3}  # the three parts
    assert set(Counter(pair for pair, _ in done).values()) == {3}
    assert len({pair for pair, _ in done}) == 24


def test_a_lease_that_ran_out_gives_the_place_away_and_work_that_comes_late_is_kept(new_room: NewRoom) -> None:
    room = new_room(num_items=1, lease_minutes=10)
    ann, bob = room.person("ann"), room.person("bob")
    held = room.desk.hand_out(ann)[0]
    room.desk.save(ann, save_request(held.assignment.id, "draft", whole_choice()))
    assert room.desk.hand_out(bob) == ()
    room.now[0] += 601
    other = room.desk.hand_out(bob)[0]
    assert other.item == held.item
    late = room.desk.save(ann, save_request(held.assignment.id, "submit", whole_choice()))
    assert late.extra
    room.submit(bob, other)
    assert {row.annotator for row in room.labels()} == {"ann", "bob"}


def test_an_item_that_was_never_begun_is_lost_with_its_lease(new_room: NewRoom) -> None:
    room = new_room(num_items=1, lease_minutes=10)
    ann, bob = room.person("ann"), room.person("bob")
    room.desk.hand_out(ann)
    room.now[0] += 601
    room.submit(bob, room.desk.hand_out(bob)[0])
    assert room.desk.hand_out(ann) == ()


def test_signs_of_life_keep_an_item(new_room: NewRoom) -> None:
    room = new_room(num_items=1, lease_minutes=10)
    ann, bob = room.person("ann"), room.person("bob")
    for _ in range(5):
        room.desk.hand_out(ann)
        room.now[0] += 400
        assert room.desk.hand_out(bob) == ()


def test_gold_and_repeats_lie_between_the_others(new_room: NewRoom, new_judgement: Callable[..., object]) -> None:
    plain = new_room()
    truth = [
        new_judgement(id=f"g{i}{s}", pair_id=pair.id, annotator="oracle", segment=s, start_frame=8 * s,
                      stop_frame=8 * s + 8, answer="a")
        for i, pair in enumerate(plain.pairs) for s in range(3) if i < 8
    ]  # fmt: skip
    plain.store.append(truth, plain.pairs.hashes)
    room = new_room(name="golden", gold_annotator="oracle", num_gold=4, gold_share=0.3, repeat_share=0.3)
    ann = room.person("ann")
    while held := room.desk.hand_out(ann, count=1):
        room.submit(ann, held[0])
    with room.store.database.reading() as connection:
        mine = ledger.assignments(connection, "golden", person=ann.id)
    kinds = Counter(each.kind for each in mine)
    assert kinds["plain"] == 20  # 24 pairs without the 4 that are set aside
    assert 1 <= kinds["gold"] <= 4
    assert kinds["repeat"] >= 1
    first = {each.item: each.number for each in mine if each.kind == "plain"}
    assert all(each.number - first[each.item] > 8 for each in mine if each.kind == "repeat")
    # a second answer to the same pair is no preference of its own
    assert all(count == 3 for count in Counter(r.pair_id for r in room.labels(annotators=["ann"])).values())
    assert all(item.gold == (1, 1, 1) for item in room.desk.items.values() if item.gold is not None)


def test_every_row_of_the_timeline_makes_preferences_of_its_own(new_room: NewRoom) -> None:
    """The first row is the main question; a skip takes back the answers to all of them."""
    room = new_room(dimensions=("overall", "motion"), num_items=1)
    ann = room.person("ann")
    held = room.desk.hand_out(ann)[0]
    answers = {"overall": ["left", "tie", "right"], "motion": ["right", "right", "tie"]}
    room.desk.save(ann, save_request(held.assignment.id, "submit", whole_choice(answers=answers)))
    sign = 1 if held.assignment.left == "a" else -1
    for dimension, labels in ((None, (sign, 0, -sign)), ("motion", (-sign, -sign, 0))):
        found = collect(room.pairs, room.store, segment_seconds=1.0, dimension=dimension)
        assert [row.labels for row in found.rows] == [labels]
    room.desk.save(ann, save_request(held.assignment.id, "skip", whole_choice(answers={}, reason="cannot tell")))
    for dimension in (None, "motion"):
        assert collect(room.pairs, room.store, segment_seconds=1.0, dimension=dimension).rows == ()


def test_clips_beside_their_frozen_copies_lie_between_the_others_and_make_no_labels(new_room: NewRoom) -> None:
    assert all(item.copy is None for item in new_room().desk.items.values())
    room = new_room(name="still", frozen_share=0.3, num_frozen=5)
    copies = {item.id for item in room.desk.items.values() if item.copy == "frozen"}
    assert len(copies) == 5
    ann, shown = room.person("ann"), []
    while held := room.desk.hand_out(ann, count=1):
        view = item_view(held[0], room.pairs, room.desk.study)
        assert (view.num_panes, len(view.segments)) == (2, 3)
        shown.append(held[0].item.id)
        room.submit(ann, held[0])
    assert sorted(Counter(shown).values()) == [1] * len(shown)
    assert {each for each in shown if each not in copies} == {each for each in room.desk.items if each not in copies}
    assert set(shown) & copies
    assert shown[-1] not in copies
    assert len(room.labels()) == 3 * NUM_PAIRS
    again = new_room(name="still", frozen_share=0.3, num_frozen=5)
    assert set(again.desk.items) == set(room.desk.items)


def test_the_copy_of_a_clip_is_its_first_frame_held_still(new_room: NewRoom) -> None:
    room = new_room(frozen_share=0.3, num_frozen=4)
    for item in room.desk.items.values():
        if item.copy is None:
            continue
        halves = read_pair_mp4(room.media.path_of(item), pixel_scale=2)
        clip, still = reversed(halves) if item.flipped else halves
        assert np.abs(clip.astype(int) - coded_clip(item.side)).max() < 24
        assert np.abs(still.astype(int) - coded_clip(item.side)[:1]).max() < 24


def test_single_clips_have_no_copy_beside_them() -> None:
    with pytest.raises(ValueError, match="frozen_share is for kind = segments"):
        StudyConfig(kind="scores", frozen_share=0.1)


def test_gold_from_somebody_who_labelled_nothing_is_refused(new_room: NewRoom) -> None:
    with pytest.raises(BadInput, match="gold_annotator = 'oracle' has labelled no pair"):
        new_room(gold_annotator="oracle")


def test_scores_of_the_two_clips_become_a_comparison_and_equal_scores_a_tie(new_room: NewRoom) -> None:
    """Means over two categories: (9 + 4) / 2 = 6.5 against (7 + 6) / 2 = 6.5 is a tie; against 7.5 the other wins."""
    room = new_room(kind="scores", categories=("looks", "motion"))
    ann = room.person("ann")
    scored = {"a": (9, 4), "b": (7, 6)}
    for turn in range(48):
        held = room.desk.hand_out(ann, count=1)[0]
        assert held.item.side is not None
        looks, motion = scored[held.item.side]
        if held.item.pair_id == "secret-pair-000" and held.item.side == "b":
            motion = 8
        choice = whole_choice(answers={}, scores={"looks": looks, "motion": motion})
        room.desk.save(ann, save_request(held.assignment.id, "submit", choice))
        assert len(room.labels()) <= (turn + 1) // 2
    rows = {row.pair_id: row for row in room.labels()}
    assert len(rows) == 24
    assert rows["secret-pair-000"].answer == "b"
    assert (rows["secret-pair-000"].score_a, rows["secret-pair-000"].score_b) == (6.5, 7.5)
    assert {row.answer for id_, row in rows.items() if id_ != "secret-pair-000"} == {"tie"}
    by_looks = room.labels(dimension="looks")
    assert {(row.answer, row.score_a, row.score_b) for row in by_looks} == {("a", 9.0, 7.0)}


def test_a_skip_of_one_clip_takes_the_comparison_of_scores_back(new_room: NewRoom) -> None:
    room = new_room(kind="scores", categories=("looks",), num_items=1)
    ann = room.person("ann")
    both = room.desk.hand_out(ann)
    for held in both:
        choice = whole_choice(answers={}, scores={"looks": 7})
        room.desk.save(ann, save_request(held.assignment.id, "submit", choice))
    assert len(collect(room.pairs, room.store, segment_seconds=1.0).rows) == 1
    skip = whole_choice(answers={}, reason="cannot tell")
    room.desk.save(ann, save_request(both[0].assignment.id, "skip", skip))
    assert [row.answer for row in room.labels()] == ["tie", "skip"]


def test_a_change_of_instructions_is_a_new_version_and_one_of_the_question_is_refused(new_room: NewRoom) -> None:
    assert new_room().desk.study.version == 1
    assert new_room().desk.study.version == 1
    assert new_room(instructions="Look at the hands.").desk.study.version == 2
    with pytest.raises(BadInput, match=r"study demo asks with segment_seconds = 1\.0, not 2\.0"):
        new_room(segment_seconds=2.0)


def test_the_clip_is_asked_about_where_a_study_wants_it(new_room: NewRoom) -> None:
    room = new_room(clip_answer=True)
    ann = room.person("ann")
    held = room.desk.hand_out(ann)[0]
    with pytest.raises(BadChoice, match="whole clip"):
        room.submit(ann, held)
    room.desk.save(ann, save_request(held.assignment.id, "submit", whole_choice("tie", clip="right")))
    preference = collect(room.pairs, room.store, segment_seconds=1.0).rows[0]
    assert preference.labels == (0, 0, 0)
    assert preference.clip_label == (-1 if held.assignment.left == "a" else 1)


def test_new_pairs_join_a_study_and_pairs_made_anew_start_again(new_room: NewRoom) -> None:
    from dataclasses import replace

    from densedpo.core.records import read_jsonl, write_jsonl
    from studio_example import new_pair

    room = new_room()
    path = room.pairs.folder / "pairs.jsonl"
    pairs = read_jsonl(path, type(new_pair(0)))
    write_jsonl(path, [replace(pairs[0], seed=8), *pairs[1:], new_pair(99)])
    later = new_room()
    assert len(later.desk.items) == 25
    assert len({item.pair_id for item in later.desk.items.values()}) == 25
    old = {item.pair_hash for item in room.desk.items.values() if item.pair_id == pairs[0].id}
    assert not old & {item.pair_hash for item in later.desk.items.values()}
