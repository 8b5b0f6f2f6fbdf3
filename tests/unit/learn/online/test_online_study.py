"""The study of benchmarks/online says what it compares, and its arms differ in nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest

from densedpo.judge.oracle import OracleConfig, OracleJudge
from densedpo.judge.protocol import PairClips
from densedpo.world.faults import plant
from densedpo.world.render import render
from densedpo.world.scene import draw_scene
from measure_example import world_pair
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
        "network": {"rewards", "guard"},
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
    ("goal", "goes", "answer"),
    [
        ("higher", "up", "holds"), ("higher", "down", "does not hold"), ("higher", "not shown", "not shown"),
        ("lower", "down", "holds"), ("lower", "up", "does not hold"), ("lower", None, "not shown"),
    ],
)  # fmt: skip
def test_a_claim_holds_where_its_direction_is_shown(modules, goal, goes, answer):
    claim = modules["settings"].Claim(arm="online", against="offline", metric="flicker", goal=goal)
    assert claim.answer(goes) == answer


def test_every_claim_is_about_a_contrast_and_a_metric_of_the_study(study):
    assert {(claim.arm, claim.against) for claim in study.claims} <= set(study.contrasts)
    assert {claim.metric for claim in study.claims} <= set(study.metrics)


def test_every_contrast_is_between_arms_of_the_study(study):
    assert {arm for pair in study.contrasts for arm in pair} <= set(study.arms)


def test_tables_are_merged_key_by_key_and_values_replaced(modules):
    merged = modules["settings"].merged({"a": 1, "t": {"x": 1, "y": 2}}, {"a": 3, "t": {"y": 4}})
    assert merged == {"a": 3, "t": {"x": 1, "y": 4}}


def test_the_frame_reward_sees_the_oracles_faults_of_frames_and_none_of_time(modules):
    """Blur is a fault of each frame; flicker and frames out of order are none, which the oracle does see."""
    scene = draw_scene(0)
    good = render(scene)
    clips = {
        "blurred": plant(scene, "blur"),
        "flickering": plant(scene, "flicker"),
        "shuffled": good[np.random.default_rng(0).permutation(len(good))],
    }

    def losses(judge):
        pair = world_pair("p", scene, "p")
        answers = {
            name: judge.judge(PairClips(pair=pair, a=good, b=clip), [(0, 33)])[0] for name, clip in clips.items()
        }
        return {name: answer.score_a - answer.score_b for name, answer in answers.items()}

    by_frame, by_video = losses(modules["frame_reward"].FrameReward()), losses(OracleJudge(OracleConfig()))
    assert by_frame["blurred"] == pytest.approx(by_video["blurred"], abs=0.05)
    assert min(by_video.values()) > 0.05
    assert by_frame["flickering"] < 0.2 * by_video["flickering"]
    assert by_frame["shuffled"] == pytest.approx(0, abs=0.01)
