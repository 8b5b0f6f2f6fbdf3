"""The shipped reward: faults in order, a network that reads segments alone, a judge like any other."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from command_line import densedpo
from densedpo.adapters.tiny.resumable import load_state
from densedpo.core.errors import BadInput
from densedpo.core.records import Pair
from densedpo.core.seeds import generator
from densedpo.core.workspace import Project
from densedpo.judge.protocol import PairClips
from densedpo.judge.reward.clean import clean_clip
from densedpo.judge.reward.degrade import KINDS, degrade
from densedpo.judge.reward.judge import SHIPPED, RewardConfig, RewardJudge
from densedpo.judge.reward.network import TrainedReward, load_reward, save_reward
from densedpo.judge.reward.train import build_network, ranking_loss, seen_otherwise, train, training_group
from densedpo.judge.reward.windows import as_input, small, thinned
from densedpo.world.render import render
from densedpo.world.scene import Scene

NewPair = Callable[..., Pair]
SEGMENTS = ((0, 9), (9, 17), (17, 25), (25, 33))


@pytest.fixture(scope="module")
def reward() -> RewardJudge:
    return RewardJudge(RewardConfig())


@pytest.mark.parametrize("kind", KINDS)
def test_a_stronger_fault_is_further_from_the_clip(kind: str) -> None:
    clip = clean_clip("textured", generator("test", 3), 8)
    apart = [
        np.abs(degrade(clip, kind, strength, generator("fault", 1)).astype(int) - clip).mean()
        for strength in (0.0, 0.2, 0.6, 1.0)
    ]
    assert apart[0] == 0
    assert apart == sorted(apart)
    assert apart[1] > 0


def test_a_wholly_held_clip_is_one_frame_and_a_half_held_one_jumps_back_in_time() -> None:
    """Strength 1 of 8 frames holds 7: all are the first. Strength 0.5 holds ceil(3.5) = 4: 5 frames are one."""
    clip = clean_clip("world", generator("test", 0), 8)
    assert len(np.unique(degrade(clip, "frozen", 1.0, generator("fault", 0)), axis=0)) == 1
    half = degrade(clip, "frozen", 0.5, generator("fault", 0))
    assert len(np.unique(half, axis=0)) == 4
    assert np.array_equal(half[-1], clip[-1]) or np.array_equal(half[0], clip[0])


def test_reordered_frames_are_the_same_frames_never_in_order() -> None:
    clip = clean_clip("textured", generator("test", 1), 8)
    for index in range(20):
        shuffled = degrade(clip, "shuffled", 0.05, generator("fault", index))
        assert not np.array_equal(shuffled, clip)
        assert {frame.tobytes() for frame in shuffled} == {frame.tobytes() for frame in clip}


def test_a_fault_refuses_what_it_cannot_do() -> None:
    clip = clean_clip("world", generator("test", 0), 8)
    with pytest.raises(BadInput, match="lies in"):
        degrade(clip, "blur", 1.2, generator("x"))
    with pytest.raises(BadInput, match="at least 3 frames"):
        degrade(clip[:2], "blur", 0.5, generator("x"))


@pytest.mark.parametrize("source", ["world", "textured"])
def test_clean_clips_move_in_every_frame(source: str) -> None:
    for index in range(12):
        clip = clean_clip(source, generator("moves", index), 8)
        assert clip.shape == (8, 64, 64, 3)
        assert (np.abs(np.diff(clip.astype(int), axis=0)).reshape(7, -1).max(axis=1) > 0).all()


def test_a_step_sees_the_same_clips_again_and_every_kind_of_fault_in_turn() -> None:
    once, again = training_group(3, 2), training_group(3, 2)
    assert np.array_equal(once.strong, again.strong)
    assert np.array_equal(once.equal, again.equal)
    assert not np.array_equal(once.clean, once.weak)
    assert not np.array_equal(training_group(3, 3).clean, once.clean)


def test_the_loss_by_hand() -> None:
    """One group: clean 1, weak 0, strong -1, equal 0.5 (a twin of clean).

    softplus(-1) twice = 2 * 0.3132617; across softplus(-2) = 0.1269280; 0.5 * 0.5^2 = 0.125; 0.05 * 1 = 0.05.
    """
    one = torch.ones(1)
    loss = ranking_loss(one, 0 * one, -one, 0.5 * one, torch.tensor([True]))
    assert loss.item() == pytest.approx(2 * 0.3132617 + 0.1269280 + 0.125 + 0.05, abs=1e-5)


def test_a_cut_run_of_the_recipe_goes_on_like_an_uncut_one(tmp_path: Path) -> None:
    train(tmp_path / "whole", 3, stop_after=2)
    train(tmp_path / "cut", 3, stop_after=1)
    train(tmp_path / "cut", 3, stop_after=2)
    (whole, step), (cut, other) = (load_state(tmp_path / name / "state.safetensors") for name in ("whole", "cut"))
    assert step == other == 2
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_weights_come_back_as_half_precision(tmp_path: Path) -> None:
    reward = TrainedReward(network=build_network(), margin=0.25, num_steps=7)
    save_reward(reward, tmp_path / "r.safetensors")
    loaded = load_reward(tmp_path / "r.safetensors")
    assert (loaded.margin, loaded.num_steps) == (0.25, 7)
    for name, tensor in reward.network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], tensor.half().float())


def test_other_files_are_refused_as_weights(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        load_reward(tmp_path / "absent.safetensors")
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors", metadata={"reward": "{}"})
    (tmp_path / "pickled.safetensors").write_bytes(pickle.dumps({"x": 1}))
    for name in ("other.safetensors", "pickled.safetensors"):
        with pytest.raises(BadInput, match=rf"{name}: not the weights of the reward"):
            load_reward(tmp_path / name)


def test_the_shipped_weights_are_small() -> None:
    assert SHIPPED.stat().st_size < 4 << 20
    assert sum(parameter.numel() for parameter in load_reward(SHIPPED).network.parameters()) < 1_000_000


def test_frames_are_thinned_to_eight_a_second_and_made_small() -> None:
    frames = np.zeros((24, 128, 192, 3), dtype=np.uint8)
    assert thinned(frames, 24.0).shape[0] == 8
    assert thinned(frames, 5.0).shape[0] == 24
    assert small(frames[:1]).shape == (1, 64, 96, 3)
    assert small(np.zeros((1, 65, 64, 3), dtype=np.uint8)).shape == (1, 64, 64, 3)
    assert small(np.zeros((1, 32, 48, 3), dtype=np.uint8)).shape == (1, 64, 96, 3)
    assert as_input(frames[None, :3, :64, :64]).shape == (1, 3, 3, 64, 64)


@pytest.mark.parametrize("kind", KINDS)
def test_the_shipped_reward_finds_each_fault_in_unseen_clips(kind: str, reward: RewardJudge) -> None:
    """Of 12 held-out clips with a fault of strength 0.8, at least 10 score below the clip itself."""
    below = 0
    for index in range(12):
        rng = generator("unseen", kind, index)
        clip = clean_clip("world" if index % 2 else "textured", rng, 8, split="held_out")
        bad = degrade(clip, kind, 0.8, rng)
        whole = [(0, 8)]
        below += reward.scores(bad, whole, fps=8.0)[0] < reward.scores(clip, whole, fps=8.0)[0]
    assert below >= 10


def test_two_equal_clips_tie_and_exchanged_clips_exchange_the_answers(
    reward: RewardJudge, new_pair: NewPair, clean: np.ndarray, faulty: np.ndarray
) -> None:
    same = reward.judge(PairClips(pair=new_pair(), a=clean, b=clean), SEGMENTS)
    assert [answer.answer for answer in same] == ["tie"] * 4
    there = reward.judge(PairClips(pair=new_pair(), a=clean, b=faulty), SEGMENTS)
    back = reward.judge(PairClips(pair=new_pair(), a=faulty, b=clean), SEGMENTS)
    assert [answer.answer for answer in there] == ["tie", "tie", "a", "a"]
    assert [answer.answer for answer in back] == ["tie", "tie", "b", "b"]
    assert [(a.score_a, a.score_b) for a in there] == [(b.score_b, b.score_a) for b in back]


def test_clips_of_one_scene_at_other_places_tie(reward: RewardJudge, scene: Scene, clean: np.ndarray) -> None:
    """The margin is there for this: mirrored and backwards in time, a clean clip is as good."""
    other = seen_otherwise(clean, generator("otherwise"))
    scores = [reward.scores(clip, SEGMENTS, fps=8.0) for clip in (clean, other, render(scene))]
    assert np.abs(np.subtract(scores[0], scores[1])).mean() < 2 * load_reward(SHIPPED).margin
    assert scores[0] == scores[2]


def test_a_segment_is_scored_from_its_own_frames(reward: RewardJudge, clean: np.ndarray, faulty: np.ndarray) -> None:
    mixed = faulty.copy()
    assert reward.scores(mixed, SEGMENTS, fps=8.0)[:2] == reward.scores(clean, SEGMENTS, fps=8.0)[:2]


def test_whole_clips_give_every_segment_one_answer(new_pair: NewPair, clean: np.ndarray, faulty: np.ndarray) -> None:
    judge = RewardJudge(RewardConfig(whole_clip=True))
    answers = judge.judge(PairClips(pair=new_pair(), a=clean, b=faulty), SEGMENTS)
    assert len({(answer.answer, answer.score_a) for answer in answers}) == 1
    assert answers[0].answer == "a"
    assert judge.annotator.startswith("reward-")


def test_the_instructions_hold_the_weights_and_not_their_place(tmp_path: Path) -> None:
    copy = Path(shutil.copy(SHIPPED, tmp_path / "copy.safetensors"))
    hashes = [
        judge.instructions.split('"weights_sha256": ')[1]
        for judge in (RewardJudge(RewardConfig()), RewardJudge(RewardConfig(weights=str(copy))))
    ]
    assert hashes[0] == hashes[1]
    save_reward(TrainedReward(network=build_network(), margin=0.1, num_steps=0), copy)
    assert RewardJudge(RewardConfig(weights=str(copy))).instructions.split('"weights_sha256": ')[1] != hashes[0]


def test_segments_too_short_to_show_motion_are_refused(new_pair: NewPair, reward: RewardJudge) -> None:
    reward.check(new_pair())
    with pytest.raises(BadInput, match="needs 3"):
        RewardJudge(RewardConfig(segment_seconds=0.25)).check(new_pair())


def test_judge_reward_on_the_command_line(fresh_project: Project) -> None:
    done = densedpo("judge", "reward", "demo", "--project", fresh_project.root)
    assert done.code == 0
    assert "reward judged 3 of 3 pairs" in done.out
    assert densedpo("judge", "reward", "demo", "--project", fresh_project.root).out.startswith("reward judged 0 of 3")
    refused = densedpo("judge", "reward", "demo", "--project", fresh_project.root, "--set", "weights=nowhere.st")
    assert (refused.code, "no such file" in refused.err) == (2, True)
