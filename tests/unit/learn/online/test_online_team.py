"""Two processes over gloo make and learn what one does, also cut short in each phase and with a judge that is away."""

from __future__ import annotations

import json
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from densedpo.core.errors import BadInput, Interrupted
from densedpo.core.workspace import Project
from densedpo.judge.pairset import PairSet
from densedpo.learn.processes.launch import World
from densedpo.learn.processes.meanwhile import first_works
from densedpo.learn.processes.team import ALONE, Team
from online_runs import (
    killed_online,
    online_config,
    online_together,
    rounds,
    rows,
    signalled_on_the_second,
    train_online,
)

# what no number of processes changes: the identity of the policy, and of the pairs that it made, has its last bits
ROUND = ("round", "first_step", "last_step", "num_rollouts", "num_pairs", "num_tied", "num_unscored")


def assert_same_run(ours: Path, theirs: Path) -> None:
    """The same rounds, and losses, rewards and weights to float tolerance."""
    mine, other = ([[row[key] for key in ROUND] for row in rounds(folder)] for folder in (ours, theirs))
    assert mine == other
    for split, key in (("train", "loss"), ("round", "mean_reward"), ("guard", "reward")):
        mine, other = ([row[key] for row in rows(folder, split)] for folder in (ours, theirs))
        assert mine == pytest.approx(other, rel=1e-3, abs=1e-4)
    mine, other = (load_file(folder / "adapter.safetensors") for folder in (ours, theirs))
    assert mine.keys() == other.keys()
    for name, tensor in other.items():
        torch.testing.assert_close(mine[name], tensor, rtol=1e-2, atol=1e-4)


@pytest.mark.slow
def test_two_processes_are_one_to_float_tolerance(done: Project, prompted: Project, toy_model_dir: Path):
    """With 3 of 4 pairs of rollouts in a batch of each: 4 fall to them as 2 and 2."""
    config = online_config({"strategy": "data_parallel"}, pairs_per_batch=3)
    assert online_together(prompted, "small", toy_model_dir, config) == [0, 0]
    assert_same_run(prompted.run("small"), done.run("small"))
    summary = json.loads((prompted.run("small") / "summary.json").read_text())
    assert summary["strategy"] == "data parallel over 2 processes, gloo, cpu"
    made, alone = (PairSet.read(root.run("small") / "rounds/0000/pairs/rollouts") for root in (prompted, done))
    assert [(pair.noise_key_a, pair.caption) for pair in made] == [(pair.noise_key_a, pair.caption) for pair in alone]
    learned, wanted = (PairSet.read(root.run("small") / "rounds/0002/pairs/chosen") for root in (prompted, done))
    assert list(learned.by_id) == list(wanted.by_id)  # noise and t of the steps are drawn by these


@pytest.mark.slow
def test_sharded_processes_cut_in_each_phase_and_resumed_are_one(prompted: Project, toy_model_dir: Path):
    """Guided rollouts of 3 prompts: the second process has two pairs of a batch and then none, and other etas.

    Told to stop while it samples a round, while the first judges it, and in the third step; killed in the look.
    """
    config = online_config(
        {"objective": "dense_dpo", "strategy": "fully_shard", "checkpoint_every": 1},
        kind="guided", segment_seconds=0.5, prompts_per_round=3, rollouts=2, pairs_per_batch=1, num_rounds=2,
        guard={"every": 2, "num_prompts": 1, "judge": {"judge": "online_judges:Darkness"}, "select": "best"},
    )  # fmt: skip
    moments = [
        ("densedpo.learn.online.rollouts", "sample_pairs", 3, signal.SIGTERM),
        ("densedpo.learn.online.session", "first_works", 2, signal.SIGTERM),
        ("densedpo.learn.loop", "take_step", 2, signal.SIGTERM),
        ("densedpo.learn.online.guard.taking", "first_works", 1, signal.SIGKILL),
    ]
    for module, function, nth, number in moments:
        fault = partial(signalled_on_the_second, module, function, nth, number)
        wait_for = 1 if number == signal.SIGKILL else None
        codes = online_together(prompted, "cut", toy_model_dir, config, fault, wait_for)
        assert 0 not in codes, function
        assert not (prompted.run("cut") / "stamp.json").exists()
    assert online_together(prompted, "cut", toy_model_dir, config) == [0, 0]
    summary = json.loads((prompted.run("cut") / "summary.json").read_text())
    assert summary["strategy"] == "fully sharded over 2 processes, gloo, cpu"
    one = config.model_copy(update={"learn": config.learn.model_copy(update={"strategy": "auto"})})
    assert_same_run(prompted.run("cut"), train_online(prompted, "one", toy_model_dir, one))


@pytest.mark.slow
def test_a_run_that_is_cut_goes_on_with_another_number_of_processes(prompted: Project, toy_model_dir: Path):
    """Two processes are stopped while they sample a round, one is killed in a step of the next, two in the last look.

    Each time half of a phase is on the disk, left there by another number of processes; one process ends the run.
    """
    config = online_config(
        {"checkpoint_every": 1}, pairs_per_batch=1, num_rounds=2,
        guard={"every": 2, "num_prompts": 2, "judge": {"judge": "online_judges:Darkness"}},
    )  # fmt: skip
    # the first batch is that of the look at the base
    sampling = partial(signalled_on_the_second, "densedpo.learn.online.rollouts", "sample_pairs", 2, signal.SIGTERM)
    assert 0 not in online_together(prompted, "cut", toy_model_dir, config, sampling)
    rollouts = prompted.run("cut") / "rounds/0000/pairs/rollouts"
    assert len((rollouts / "pairs.jsonl").read_text().splitlines()) == 2  # of 4
    in_step_4 = ("densedpo.learn.loop", "take_step", 4, "before")
    assert killed_online(prompted, "cut", toy_model_dir, config, in_step_4) == -signal.SIGKILL
    assert [row["round"] for row in rounds(prompted.run("cut"))] == [0]
    look = partial(signalled_on_the_second, "densedpo.learn.online.guard.taking", "first_works", 1, signal.SIGKILL)
    assert 0 not in online_together(prompted, "cut", toy_model_dir, config, look, 1)
    assert [row["round"] for row in rounds(prompted.run("cut"))] == [0, 1]
    train_online(prompted, "cut", toy_model_dir, config)
    assert_same_run(prompted.run("cut"), train_online(prompted, "alone", toy_model_dir, config))


@pytest.mark.slow
def test_all_wait_for_a_judge_for_longer_than_an_exchange_may_take_and_then_learn(
    prompted: Project, toy_model_dir: Path, tmp_path: Path
):
    """Away for pauses of 1, 2, 4 and 8 seconds, where processes give up on an exchange after 12; then a round of ties.

    It is away when it is asked ahead, and four times more.
    """
    away = tmp_path / "away"
    away.write_text("\n".join("12345"))
    rewards = [{"judge": "online_judges:Away", "options": {"file": str(away)}}]
    config = online_config({"process_timeout_min": 0.2}, rewards=rewards, num_rounds=1)
    assert online_together(prompted, "away", toy_model_dir, config) == [0, 0]
    assert rounds(prompted.run("away"))[0]["num_pairs"] == 2
    ties = online_config(rewards=[{"judge": "online_judges:Same"}], num_rounds=4, max_empty_rounds=2)
    assert 0 not in online_together(prompted, "ties", toy_model_dir, ties)
    assert [row["num_pairs"] for row in rounds(prompted.run("ties"))] == [0, 0]
    assert rows(prompted.run("ties")) == []


def test_alone_the_work_of_the_first_process_asks_what_all_would():
    asked = []
    assert first_works(ALONE, lambda poll: (poll(), "done")[1], lambda: asked.append(1)) == "done"
    assert asked == [1]


class Pretended(Team):
    """A team of two of which the other process says what it is told to here."""

    def __init__(self, rank: int, others: list[int]) -> None:
        super().__init__(World(rank=rank, size=2), "cpu", "")
        self._others = others

    def maximum(self, value: int) -> int:
        return max(value, self._others.pop(0) if self._others else 0)


def test_the_second_process_learns_how_the_work_of_the_first_ended():
    """What the first says: 0 while it works, then 1 done, 2 refused, 3 cut short, 4 broken."""
    polls = []
    assert first_works(Pretended(1, [0, 0, 1]), lambda _: "never", lambda: polls.append(1)) is None
    assert len(polls) == 3
    for said, error in ((2, BadInput), (3, Interrupted), (4, RuntimeError)):
        with pytest.raises(error):
            first_works(Pretended(1, [0, said]), lambda _: "never", lambda: None)


def test_work_of_the_first_process_gives_its_result_or_its_error_there():
    assert first_works(Pretended(0, []), lambda _: 7, lambda: None) == 7

    def refuses(_):
        raise BadInput("no such judge")

    with pytest.raises(BadInput, match="no such judge"):
        first_works(Pretended(0, []), refuses, lambda: None)


def test_a_signal_to_another_process_ends_the_work_of_the_first():
    """The work goes on until it is told; what ends it is what all asked together."""

    def works_until_told(ask):
        while True:
            ask()

    def told():
        raise Interrupted("stopped by SIGTERM")

    with pytest.raises(Interrupted, match="SIGTERM"):
        first_works(Pretended(0, []), works_until_told, told)


def test_parts_of_all_processes_are_what_each_takes():
    teams = [Team(World(rank=rank, size=3), "cpu", "") for rank in range(3)]
    assert [teams[0].parts(range(4))[rank] for rank in range(3)] == [team.part(range(4)) for team in teams]
    assert teams[0].parts(range(1)) == [(), (), (0,)]
