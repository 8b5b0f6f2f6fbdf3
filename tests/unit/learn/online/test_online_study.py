"""The study of benchmarks/online says what it compares, and its arms differ in nothing else."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from densedpo.judge.protocol import PairClips

FOLDER = Path(__file__).resolve().parents[4] / "benchmarks" / "online"


def loaded(name: str):
    """A file of benchmarks/online, which stands beside the package and not in it."""
    spec = importlib.util.spec_from_file_location(f"online_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[f"online_{name}"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def study():
    return loaded("run").read_study(FOLDER / "online.toml")


def test_every_arm_judges_as_many_clips_and_takes_as_many_steps(study):
    sizes = {
        (arm.num_rounds * arm.prompts_per_round * arm.rollouts, arm.training.num_steps) for arm in study.arms.values()
    }
    assert sizes == {(640, 100)}


def test_an_arm_differs_from_the_online_one_in_what_it_is_named_after_alone(study):
    online = study.arms["online"].model_dump()
    changed = {
        name: {key for key, value in arm.model_dump().items() if value != online[key]}
        for name, arm in study.arms.items()
    }
    assert changed == {
        "online": set(),
        "no_refresh": {"refresh_every"},
        "offline": {"num_rounds", "prompts_per_round", "steps_per_round", "refresh_every", "guard"},
        "frames": {"rewards"},
        "online_dense": {"kind", "segment_seconds", "learn"},
    }


def test_every_contrast_is_between_arms_of_the_study(study):
    assert {arm for pair in study.contrasts for arm in pair} <= set(study.arms)


def test_tables_are_merged_key_by_key_and_values_replaced():
    merged = loaded("run").merged({"a": 1, "t": {"x": 1, "y": 2}}, {"a": 3, "t": {"y": 4}})
    assert merged == {"a": 3, "t": {"x": 1, "y": 4}}


def test_the_frame_reward_cannot_tell_a_clip_from_its_shuffled_frames():
    frames = np.random.default_rng(0).integers(0, 255, (6, 16, 16, 3), dtype=np.uint8)
    (answer,) = loaded("frame_reward").FrameReward().judge(PairClips(pair=None, a=frames, b=frames[::-1]), [(0, 6)])
    assert answer.score_a == pytest.approx(answer.score_b)
