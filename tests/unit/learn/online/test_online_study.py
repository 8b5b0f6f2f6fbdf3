"""The study of benchmarks/online says what it compares, and its arms differ in nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest

from densedpo.judge.protocol import PairClips
from study_modules import BENCHMARKS, study_modules

FILE = BENCHMARKS / "online" / "online.toml"


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    with study_modules("online") as found:
        yield found


@pytest.fixture(scope="module")
def study(modules):
    return modules["settings"].read_study(FILE)


def test_every_arm_judges_as_many_clips(study, modules):
    assert {modules["passes"].sampled_clips(arm) for arm in study.arms.values()} == {640}


def test_the_long_offline_arm_spends_on_steps_what_online_takes_for_clips_and_steps(study, modules):
    """640 clips of 11 steps with guidance are 14,080 passes, 100 steps of 32 clips at 4 passes each 12,800; together
    26,880, which is 210 steps. The others take as many steps as online."""
    passes = modules["passes"]
    online = study.arms["online"]
    assert passes.sampling_passes(online, num_steps=11) == 14_080
    assert passes.learning_passes(online) == 12_800
    assert passes.learning_passes(study.arms["offline_long"]) == 26_880
    assert {arm.training.num_steps for name, arm in study.arms.items() if name != "offline_long"} == {100}


def test_an_arm_differs_from_the_online_one_in_what_it_is_named_after_alone(study):
    online = study.arms["online"].model_dump()
    changed = {
        name: {key for key, value in arm.model_dump().items() if value != online[key]}
        for name, arm in study.arms.items()
    }
    one_round = {"num_rounds", "prompts_per_round", "steps_per_round", "refresh_every", "guard"}
    assert changed == {
        "online": set(),
        "no_refresh": {"refresh_every"},
        "offline": one_round,
        "offline_long": one_round,
        "frames": {"rewards"},
        "oracle": {"rewards", "guard"},
        "online_dense": {"kind", "segment_seconds", "learn"},
    }


def test_quick_has_the_same_arms_on_next_to_nothing(study, modules):
    quick = modules["settings"].read_study(FILE, quick=True)
    assert quick.arms.keys() == study.arms.keys()
    assert {modules["passes"].sampled_clips(arm) for arm in quick.arms.values()} == {4}
    assert quick.arms["frames"].rewards == study.arms["frames"].rewards
    assert quick.arms["online_dense"].segment_seconds == 1.0


def test_the_estimate_of_an_arm_is_what_its_pieces_take(study, modules):
    """Online: 640 clips, 3 looks (before, after 5, after 10 rounds) of 24, measured on 128. With a second for a pass
    and nothing else it takes 26,880 + 2 * 11 * 72 for the looks + 2 * 11 * 128 for what is measured."""
    passes = modules["passes"]
    online = study.arms["online"]
    assert passes.clips_of_looks(online) == 72
    costs = passes.Costs(pass_s=1.0, store_s=0.0, judge_s=0.0, measure_s=0.0)
    assert passes.seconds_of_arm(online, costs, num_steps=11, measured_clips=128) == 26_880 + 22 * (72 + 128)
    costs = passes.Costs(pass_s=0.0, store_s=1.0, judge_s=0.5, measure_s=0.0)
    assert passes.seconds_of_arm(online, costs, num_steps=11, measured_clips=128) == 1.5 * (640 + 72) + 128


@pytest.mark.parametrize(
    ("goal", "low", "high", "holds"),
    [
        ("higher", 0.1, 0.3, True), ("higher", -0.1, 0.3, False), ("higher", None, None, False),
        ("lower", -0.3, -0.1, True), ("lower", -0.3, 0.1, False), ("lower", 0.1, 0.3, False),
    ],
)  # fmt: skip
def test_a_claim_holds_where_the_interval_lies_on_its_side_of_0(modules, goal, low, high, holds: bool):
    claim = modules["settings"].Claim(arm="online", against="offline", metric="flicker", goal=goal)
    assert claim.holds(low, high) is holds


def test_every_claim_is_about_a_contrast_and_a_metric_of_the_study(study):
    assert {(claim.arm, claim.against) for claim in study.claims} <= set(study.contrasts)
    assert {claim.metric for claim in study.claims} <= set(study.metrics)


def test_every_contrast_is_between_arms_of_the_study(study):
    assert {arm for pair in study.contrasts for arm in pair} <= set(study.arms)


def test_tables_are_merged_key_by_key_and_values_replaced(modules):
    merged = modules["settings"].merged({"a": 1, "t": {"x": 1, "y": 2}}, {"a": 3, "t": {"y": 4}})
    assert merged == {"a": 3, "t": {"x": 1, "y": 4}}


def test_the_frame_reward_cannot_tell_a_clip_from_its_shuffled_frames(modules):
    frames = np.random.default_rng(0).integers(0, 255, (6, 16, 16, 3), dtype=np.uint8)
    (answer,) = modules["frame_reward"].FrameReward().judge(PairClips(pair=None, a=frames, b=frames[::-1]), [(0, 6)])
    assert answer.score_a == pytest.approx(answer.score_b)
