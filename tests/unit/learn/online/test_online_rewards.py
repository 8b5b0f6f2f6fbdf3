from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from densedpo.core.errors import BadInput
from densedpo.core.records import Judgement
from densedpo.judge.pairset import PairSet, pair_hash
from densedpo.judge.store import LabelStore
from densedpo.learn.online.config import RewardChoice
from densedpo.learn.online.rewards import build_judge, check_choice, rewards_of
from online_judges import Brightness, Stillness
from toy_pairs import toy_pair

JUDGES = [Brightness(), Stillness()]


@pytest.fixture
def pairs() -> PairSet:
    by_id = {pair.id: pair for pair in (toy_pair(index, SimpleNamespace(fingerprint="m"), "train") for index in (0, 1))}
    return PairSet(
        name="p", folder=Path("p"), by_id=by_id, hashes={id_: pair_hash(pair) for id_, pair in by_id.items()}
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LabelStore]:
    with LabelStore.open(tmp_path / "labels.db") as opened:
        yield opened


@pytest.fixture
def add(pairs: PairSet, store: LabelStore, new_judgement: Callable[..., Judgement]) -> Callable[..., None]:
    """Stores the scores of one segment of a pair."""

    def append(annotator: str, index: int, segment: int, score_a: float | None, score_b: float | None, **changes):
        row = new_judgement(
            id=f"{annotator}{index}{segment}", pair_id=f"pair-{index:03d}", annotator=annotator, segment=segment,
            start_frame=4 * segment, stop_frame=4 * segment + 4, score_a=score_a, score_b=score_b,
            instructions="planted 1",
        )  # fmt: skip
        store.append([replace(row, **changes)], pairs.hashes)

    return append


def test_scores_are_added_up_by_weight_and_stand_in_the_order_of_time(pairs, store, add):
    """2 x 0.1 - 1 x 0.3 = -0.1 in the first segment, 2 x 0.2 - 1 x 0.1 = 0.3 in the second; b likewise."""
    add("brightness", 0, 1, 0.2, 0.6)
    add("brightness", 0, 0, 0.1, 0.5)
    add("stillness", 0, 0, 0.3, 0.4)
    add("stillness", 0, 1, 0.1, 0.0)
    found = rewards_of(pairs, store, JUDGES, [2.0, -1.0], segment_seconds=0.5)
    assert found["pair-000", "a"] == pytest.approx((-0.1, 0.3))
    assert found["pair-000", "b"] == pytest.approx((0.6, 1.2))


def test_a_clip_that_one_judge_has_not_scored_in_full_has_no_reward(pairs, store, add):
    for index in (0, 1):
        for segment in (0, 1):
            add("brightness", index, segment, 0.1, 0.2)
    add("stillness", 0, 0, 0.1, 0.2)
    add("stillness", 0, 1, 0.1, 0.2)
    add("stillness", 1, 0, 0.1, 0.2)
    assert set(rewards_of(pairs, store, JUDGES, [1.0, 1.0], segment_seconds=0.5)) == {
        ("pair-000", "a"),
        ("pair-000", "b"),
    }


def test_an_answer_under_other_instructions_is_not_this_judges(pairs, store, add):
    add("brightness", 0, 0, 0.1, 0.2, instructions="planted 0")
    assert rewards_of(pairs, store, JUDGES[:1], [1.0], segment_seconds=0.5) == {}


def test_answers_without_scores_are_refused(pairs, store, add):
    add("brightness", 0, 0, None, None)
    with pytest.raises(BadInput, match="answers without scores"):
        rewards_of(pairs, store, JUDGES[:1], [1.0], segment_seconds=0.5)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"judge": "reward", "options": {"whole_clip": 1}}, "options of judge 'reward': 'whole_clip'"),
        ({"judge": "reward", "options": {"margin": 0.1}}, "margin changes its answers, and learn online goes by"),
        ({"judge": "oracle", "options": {"motion_bias": 0.1}}, "motion_bias changes its answers"),
        ({"judge": "http", "url": "ftp://here"}, "has to begin with http"),
        ({"judge": "no_such_module:Judge"}, "no module 'no_such_module'"),
        ({"judge": "reward", "options": {"no_such": 1}}, "options of judge 'reward': 'no_such'"),
        ({"judge": "oracle", "options": {"segment_seconds": 2.0}}, "is set for the whole run"),
        ({"judge": "nobody"}, "it is one of reward, oracle, http"),
    ],
)
def test_a_judge_that_cannot_be_made_says_why(choice, said):
    """Before anything is loaded or asked, and where it is made."""
    for make in (check_choice, build_judge):
        with pytest.raises(BadInput, match=said):
            make(RewardChoice.model_validate(choice), segment_seconds=1.0)
