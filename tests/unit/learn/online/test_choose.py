from __future__ import annotations

from densedpo.core.records import Prompt
from densedpo.learn.online.choose import choose
from densedpo.learn.online.config import OnlineConfig
from densedpo.learn.online.round import visits_of

GROUPS = [("p0", "p1"), ("p2", "p3")]


def whole(*values: float) -> dict:
    """Rewards of whole clips, in the order p0 a, p0 b, p1 a, ..."""
    keys = [(pair, side) for group in GROUPS for pair in group for side in "ab"]
    return {key: (value,) for key, value in zip(keys, values, strict=False)}


def named(choice) -> tuple[str, str]:
    return tuple(f"{rollout.pair_id}{rollout.side}" for rollout in (choice.a, choice.b))


def test_the_best_and_the_worst_of_each_prompt_make_a_pair_in_the_order_in_which_they_were_made():
    """0.9 at p0 b and 0.1 at p1 b; 0.3 at p2 a and 0.8 at p3 a. Gaps 0.8 and 0.5, so 0.65 in the mean."""
    found = choose(GROUPS, whole(0.5, 0.9, 0.4, 0.1, 0.3, 0.6, 0.8, 0.5), margin=0.0)
    assert [named(choice) for choice in found.choices] == [("p0b", "p1b"), ("p2a", "p3a")]
    assert [choice.answers for choice in found.choices] == [("a",), ("b",)]
    assert round(found.mean_gap, 9) == 0.65
    assert round(found.mean_reward, 9) == round((0.5 + 0.9 + 0.4 + 0.1 + 0.3 + 0.6 + 0.8 + 0.5) / 8, 9)


def test_a_pair_under_the_margin_is_dropped_as_a_tie_and_so_are_equal_rollouts():
    found = choose(GROUPS, whole(0.5, 0.5, 0.5, 0.5, 0.3, 0.31, 0.32, 0.33), margin=0.05)
    assert (found.choices, found.num_tied, found.num_unscored) == ((), 2, 0)


def test_rollouts_without_a_reward_take_no_part_and_a_prompt_with_one_gives_no_pair():
    rewards = whole(0.5, 0.9, 0.4, 0.1, 0.3)  # of the second prompt only p2 a was scored
    del rewards["p0", "b"]
    found = choose(GROUPS, rewards, margin=0.0)
    assert [named(choice) for choice in found.choices] == [("p0a", "p1b")]
    assert found.num_unscored == 1


def test_segments_of_the_best_and_the_worst_are_compared_one_by_one():
    """Means 0.5, 0.6 and 0.4: the pair is p0 b against p1 a. In the second segment the worse clip is ahead."""
    rewards = {("p0", "a"): (0.5, 0.5), ("p0", "b"): (1.0, 0.2), ("p1", "a"): (0.2, 0.6), ("p1", "b"): (0.5, 0.5)}
    (choice,) = choose([("p0", "p1")], rewards, margin=0.1).choices
    assert named(choice) == ("p0b", "p1a")
    assert (choice.answers, choice.whole) == (("a", "b"), "a")


def test_as_a_whole_the_best_mean_wins_where_most_segments_say_otherwise():
    """Means 0.467 and 0.233: a wins, although b is ahead in two segments of three."""
    rewards = {("p0", "a"): (1.0, 0.2, 0.2), ("p0", "b"): (0.1, 0.3, 0.3)}
    (choice,) = choose([("p0",)], rewards, margin=0.0).choices
    assert (choice.answers, choice.whole) == (("a", "b", "b"), "a")


def test_a_segment_within_the_margin_is_a_tie_and_the_pair_stays_for_the_others():
    rewards = {("p0", "a"): (0.5, 0.5), ("p0", "b"): (0.9, 0.52)}
    (choice,) = choose([("p0",)], rewards, margin=0.1).choices
    assert choice.answers == ("b", "tie")


def prompts(count: int) -> list[Prompt]:
    return [Prompt(id=f"prompt-{index}", caption="the same words", split="train") for index in range(count)]


def test_all_prompts_are_visited_before_one_comes_again_and_rounds_go_on_where_the_last_one_ended():
    config = OnlineConfig(prompts_per_round=4)
    visits = [visit for number in range(3) for visit in visits_of(number, prompts(6), config)]
    assert len({visit.prompt.id for visit in visits[:6]}) == len({visit.prompt.id for visit in visits[6:]}) == 6
    assert [visit.visit for visit in visits] == [0] * 6 + [1] * 6


def test_one_prompt_is_visited_several_times_in_a_round_as_a_new_visit_each():
    visits = visits_of(2, prompts(1), OnlineConfig(prompts_per_round=3))
    assert [visit.visit for visit in visits] == [6, 7, 8]
