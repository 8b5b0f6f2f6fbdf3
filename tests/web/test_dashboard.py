"""The dashboard's numbers against answers that were planted, and what only admins may see."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable

import httpx2
import pytest
from pyarrow import parquet

from densedpo.core.records import write_jsonl
from densedpo.core.seeds import generator
from densedpo.core.workspace import Project
from densedpo.judge.studies import ledger
from densedpo.judge.studies.answers import answer_rows
from densedpo.judge.studies.dashboard import rate, summarise_study
from densedpo.judge.studies.records import Assignment, Person
from studio_example import Room, new_pair, save_request, whole_choice

NewRoom = Callable[..., Room]


def work_through(room: Room, person: Person, answer_of: Callable[[int, str], list[str]], **changes: object) -> None:
    """Submits every item; `answer_of` gets the item's number and which clip is left."""
    turn = 0
    while held := room.desk.hand_out(person, count=1):
        answers = answer_of(turn, held[0].assignment.left)
        choice = whole_choice().model_copy(update={"answers": {"overall": answers}, **changes})
        room.desk.save(person, save_request(held[0].assignment.id, "submit", choice))
        turn += 1


def prefers(clip: str) -> Callable[[int, str], list[str]]:
    return lambda _, left: ["left" if left == clip else "right"] * 3


def test_a_share_has_wilsons_interval() -> None:
    """8 of 10: (0.490, 0.943), from the formula with z = 1.96: centre (8 + 1.921) / (10 + 3.841) = 0.7168,
    half width sqrt(1.6 + 0.960) * 1.96 / 13.841 = 0.2266."""
    found = rate([True] * 8 + [False] * 2)
    assert (found.count, found.n, found.value) == (8, 10, 0.8)
    assert found.low == pytest.approx(0.4902, abs=1e-3)
    assert found.high == pytest.approx(0.9433, abs=1e-3)
    assert rate([]).value is None


def test_planted_people_are_seen_for_what_they_are(new_room: NewRoom) -> None:
    """Ann prefers a everywhere, bob always says left in no time, cid says tie."""
    room = new_room(overlap=3)
    work_through(room, room.person("ann"), prefers("a"))
    work_through(room, room.person("bob"), lambda *_: ["left"] * 3, active_ms=300)
    work_through(room, room.person("cid"), lambda *_: ["tie"] * 3)
    board = summarise_study(room.desk, motion={}, faults={})
    ann, bob, cid = board.people
    assert (ann.name, ann.num_done, ann.ties.value) == ("ann", 24, 0.0)
    assert (bob.left.value, cid.ties.value) == (1.0, 1.0)
    assert ann.flags == ()
    assert bob.flags == ("one side far more often than chance", "faster than the clips can be watched")
    assert cid.flags == ("nothing but ties",)
    assert (board.num_filled, board.num_places) == (72, 72)
    assert board.ties.value == pytest.approx(1 / 3)
    wins_of_bob = sum(row.answer == "a" for row in room.labels(annotators=["bob"]))
    assert board.wins is not None
    assert board.left is not None
    assert (board.wins.wins, board.wins.ties, board.wins.losses) == (72 + wins_of_bob, 72, 72 - wins_of_bob)
    left_of_ann = sum(row.answer == row.left for row in room.labels(annotators=["ann"]))
    assert (board.left.wins, board.left.losses) == (72 + left_of_ann, 72 - left_of_ann)


def test_the_parts_of_an_item_are_one_piece_of_evidence_about_sides(new_room: NewRoom) -> None:
    """Eight items. Ann says left, left, right of seven: each leans left once, 7 of 7, where answers would be 14 of 21.
    The eighth is left, right, tie: it leans nowhere and does not count."""
    room = new_room(num_items=8)
    ann = room.person("ann")
    work_through(room, ann, lambda turn, _: ["left", "right", "tie"] if turn == 7 else ["left", "left", "right"])
    person = summarise_study(room.desk, motion={}, faults={}).people[0]
    assert (person.left.count, person.left.n) == (7, 7)


def test_agreement_is_of_people_and_says_when_there_is_none(new_room: NewRoom) -> None:
    room = new_room(overlap=2)
    work_through(room, room.person("ann"), lambda turn, left: [["left", "right"][left == "b"], "tie", "tie"])
    assert summarise_study(room.desk, motion={}, faults={}).agreement == ()
    work_through(room, room.person("bob"), lambda turn, left: [["left", "right"][left == "b"], "tie", "tie"])
    found = {row.name: row for row in summarise_study(room.desk, motion={}, faults={}).agreement}
    assert found["same answer, of two people"].value == 1.0
    assert found["Krippendorff's alpha"].value == 1.0
    constant = new_room(name="constant", overlap=2)
    for name in ("dan", "eve"):
        work_through(constant, constant.person(name), lambda *_: ["tie"] * 3)
    lines = summarise_study(constant.desk, motion={}, faults={}).agreement
    alpha = next(row for row in lines if row.name == "Krippendorff's alpha")
    assert alpha.value is None
    assert alpha.reason


def test_a_preference_for_still_clips_is_an_alarm(new_room: NewRoom) -> None:
    """Whoever always prefers the clip that moves less has MB2 = 1, far above one half."""
    room = new_room()
    moving = {pair: ("a" if index % 2 else "b") for index, pair in enumerate(sorted(room.pairs.hashes.values()))}
    motion = {pair: ((4.0, 5.0, 6.0), (1.0, 2.0, 1.5)) if who == "a" else ((1.0, 2.0, 1.5), (4.0, 5.0, 6.0))
              for pair, who in moving.items()}  # fmt: skip
    ann = room.person("ann")
    while held := room.desk.hand_out(ann, count=1):
        still = "b" if moving[held[0].item.pair_hash] == "a" else "a"
        room.submit(ann, held[0], "left" if held[0].assignment.left == still else "right")
    board = summarise_study(room.desk, motion=motion, faults={})
    low_motion = board.bias[1]
    assert low_motion.estimate is not None
    assert low_motion.estimate.value == 1.0
    assert low_motion.alarm
    assert board.num_motion_known == 24


def test_whoever_prefers_a_frozen_copy_is_an_alarm(new_room: NewRoom) -> None:
    """Ann takes the copy (b) in every part: MB3 = 1. Bob takes it in one part of three, another is a tie: 1.5 / 3."""
    room = new_room(frozen_share=0.4, num_frozen=10, overlap=2)

    def answer(name: str, of_copy: list[str]) -> None:
        person = room.person(name)
        while held := room.desk.hand_out(person, count=1):
            side = {held[0].assignment.left: "left", "ab".strip(held[0].assignment.left): "right"}
            words = [side.get(each, "tie") for each in (of_copy if held[0].item.copy else ["a", "b", "tie"])]
            choice = whole_choice(answers={"overall": words})
            room.desk.save(person, save_request(held[0].assignment.id, "submit", choice))

    answer("ann", ["b", "b", "b"])
    check = summarise_study(room.desk, motion={}, faults={}).bias[-1]
    assert (check.name, check.alarm) == ("MB3", True)
    assert check.estimate is not None
    assert check.estimate.value == 1.0
    room = new_room(name="bob", frozen_share=0.4, num_frozen=10)
    answer("bob", ["b", "a", "tie"])
    board = summarise_study(room.desk, motion={}, faults={})
    assert board.bias[-1].estimate is not None
    assert board.bias[-1].estimate.value == pytest.approx(0.5)
    assert not board.bias[-1].alarm
    assert board.ties.n == 3 * 24  # of the pairs alone
    assert board.people[0].flags == ()


def test_videos_that_fail_are_listed(room: Room) -> None:
    import threading

    item = next(iter(room.desk.items.values()))
    (room.pairs.folder / room.pairs.by_id[item.pair_id].video).write_bytes(b"no video")
    media = room.media
    media.prepare([item], 1.0, threading.Event())
    board = summarise_study(room.desk, motion=media.motion, faults=media.faults)
    assert [pair for pair, _ in board.unplayable] == [item.pair_id]


def test_rows_undo_the_sides(room: Room) -> None:
    ann = room.person("ann")
    held = room.desk.hand_out(ann)[0]
    choice = whole_choice(note="=cmd()").model_copy(update={"answers": {"overall": ["left", "tie", "right"]}})
    room.desk.save(ann, save_request(held.assignment.id, "submit", choice))
    row = answer_rows(room.desk)[0]
    sign = 1 if held.assignment.left == "a" else -1
    assert row.labels == {"overall": (sign, 0, -sign)}
    assert (row.annotator, row.ranges, row.left) == ("ann", ((0, 8), (8, 16), (16, 24)), held.assignment.left)


def test_admins_see_the_dashboard_and_the_answers(room: Room, sign_in: Callable[..., httpx2.Client]) -> None:
    ann = room.person("<ann>".strip("<>"))
    held = room.desk.hand_out(ann)[0]
    room.desk.save(ann, save_request(held.assignment.id, "submit", whole_choice(note="=1+1")))
    boss = sign_in("boss", is_admin=True)
    page = boss.get("/dashboard")
    assert page.status_code == 200
    assert "1 / 24" in page.text
    lines = [json.loads(line) for line in boss.get("/export/answers.jsonl").text.splitlines()]
    assert [line["note"] for line in lines] == ["=1+1"]
    table = list(csv.DictReader(io.StringIO(boss.get("/export/answers.csv").text)))
    assert [line["note"] for line in table] == ["'=1+1"]
    file = boss.get("/export/answers.parquet")
    assert [line["note"] for line in parquet.read_table(io.BytesIO(file.content)).to_pylist()] == ["=1+1"]
    assert boss.get("/export/answers.exe").status_code == 404


def plant(room: Room, names: list[str]) -> None:
    """Every item submitted by every person, in one transaction and by chance: the desk would take minutes."""
    rng = generator("planted answers")
    with room.store.database.writing() as connection:
        for name in names:
            ledger.set_person(connection, name, f"token of {name}", is_admin=False, keep_sessions=False)
            person = ledger.person_by_name(connection, name)
            assert person is not None
            for number, item in enumerate(room.desk.items.values(), start=1):
                held = Assignment(
                    id=ledger.opaque(), item=item.id, person=person.id, number=number, kind="plain",
                    left="a" if rng.random() < 0.5 else "b", state="done", leased_until=0.0,
                )  # fmt: skip
                ledger.add_assignment(connection, room.desk.study.name, held)
                answers = {"overall": [("left", "right", "tie")[part] for part in rng.integers(0, 3, 3)]}
                choice = whole_choice().model_copy(update={"answers": answers})
                ledger.add_save(connection, room.desk.study, person.id, save_request(held.id, "submit", choice))


@pytest.mark.slow
@pytest.mark.parametrize(("num_pairs", "num_people"), [(24, 417), (3336, 3)])
def test_a_dashboard_of_ten_thousand_answers_takes_a_second(
    new_room: NewRoom, fresh_project: Project, num_pairs: int, num_people: int
) -> None:
    """10 008 answers, by many people or about many items: a second of a processor, and half as much again where others
    are at work on its other half."""
    write_jsonl(fresh_project.pairs("demo") / "pairs.jsonl", [new_pair(index) for index in range(num_pairs)])
    room = new_room(overlap=1000)
    plant(room, [f"p{number}" for number in range(num_people)])
    taken = []
    for _ in range(3):
        started = time.process_time()
        board = summarise_study(room.desk, motion={}, faults={})
        taken.append(time.process_time() - started)
    assert board.num_filled == 10_008
    assert board.agreement[0].n == num_pairs
    assert min(taken) < 1.5
