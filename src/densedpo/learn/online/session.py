"""An online run with torch: rounds of generate, judge and learn, each phase resumed from what is on the disk.

Every process of a run goes through the same rounds. All of them make clips and learn; the first one alone judges,
chooses, and decides whether a round is done, and tells the others.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from densedpo.adapters.trained import ADAPTER_FILE
from densedpo.core.errors import BadInput
from densedpo.core.files import read_object, write_atomic
from densedpo.core.workspace import Project, read_stamp
from densedpo.generate.rollouts import RolloutPlan, plan_rollouts
from densedpo.learn.course import RUN_FILE
from densedpo.learn.online.choose import Chosen, choose
from densedpo.learn.online.chosen import write_chosen
from densedpo.learn.online.guard.lookout import Lookout
from densedpo.learn.online.guard.taking import look_folder
from densedpo.learn.online.journal import report_round
from densedpo.learn.online.jury import Sitting, seat_jury
from densedpo.learn.online.learning import Learning
from densedpo.learn.online.policy import Policy
from densedpo.learn.online.rollouts import make_rollouts
from densedpo.learn.online.round import (
    ROLLOUTS,
    RoundRecord,
    drop_rollouts,
    make_project,
    policy_of,
    read_round,
    rollout_settings,
    round_project,
    told_round,
    visits_of,
    write_round,
)
from densedpo.learn.online.run import OnlineInputs, OnlineSummary
from densedpo.learn.processes.meanwhile import first_works
from densedpo.learn.processes.team import device_of, joined

if TYPE_CHECKING:
    from densedpo.learn.processes.launch import World
    from densedpo.learn.processes.team import Team
    from densedpo.learn.stop import StopFlag

_log = logging.getLogger("densedpo")


def run_online(inputs: OnlineInputs, *, identity: str, flag: StopFlag, world: World) -> OnlineSummary:
    """Runs the rounds that are not done, as one of the processes of a world.

    Args:
        identity: the hash of the run's config and inputs, which its checkpoints carry.
        flag: asked wherever the work can end.

    Raises:
        Interrupted, BadInput: see `learn_online`.
    """
    flag.poll()
    config = inputs.config
    with joined(world, config.training) as team:
        learn = config.learn.model_copy(update={"device": device_of(config.learn, world)})
        here = replace(inputs, config=config.model_copy(update={"learn": learn}))
        return _Online(here, identity, team, team.poll(flag)).run()


class _Online:
    """A run between its rounds: the policy, the judges, and what has been done so far."""

    def __init__(self, inputs: OnlineInputs, identity: str, team: Team, poll: Callable[[], None]) -> None:
        self._inputs, self._config, self._team, self._poll = inputs, inputs.config, team, poll
        self._policy = Policy(inputs, identity, team)
        self._learning = Learning(inputs, identity, self._policy, team, poll)
        self._jury = first_works(team, partial(seat_jury, inputs), poll)
        self._lookout = Lookout(inputs, self._policy, self._jury, team, poll)
        self._records: list[RoundRecord] = []

    def run(self) -> OnlineSummary:
        self._lookout.look_if_due(0, last_step=0)
        stopped = None
        for number in range(self._config.num_rounds):
            stopped = self._lookout.why_stop()
            if stopped is not None:
                _log.warning("stopped before round %d: %s", number, stopped)
                break
            project = round_project(self._inputs.folder, number)
            record = told_round(read_round(project) if self._team.is_first else None, self._team)
            if record is None or record.last_step > self._policy.step:
                record = self._round(number, project)
            self._records.append(record)
            self._lookout.look_if_due(number + 1, last_step=record.last_step)
        return self._finish(stopped)

    def _round(self, number: int, project: Project) -> RoundRecord:
        first_step = self._records[-1].last_step if self._records else 0
        started = time.monotonic()
        self._team.first_does(lambda: make_project(project))
        with ExitStack() as held:
            sitting = None
            if self._jury is not None:
                folder, labels = project.pairs(ROLLOUTS), project.labels_db
                sitting = held.enter_context(Sitting(self._jury, self._jury.rewards, folder, labels))
            plan = self._rollouts(number, project, first_step, sitting)
            sampled = time.monotonic()
            chosen = first_works(self._team, partial(self._choose, plan, project, sitting), self._poll)
        judged = time.monotonic()
        pairs = self._learning.pairs(project)
        if pairs:
            self._learning.learn(number, pairs, first_step)
        record = None
        if chosen is not None:
            record = RoundRecord(
                round=number,
                policy=policy_of(project),
                first_step=first_step,
                last_step=self._policy.step if pairs else first_step,
                num_rollouts=2 * len(plan.pairs.pairs),
                num_pairs=len(pairs),
                num_tied=chosen.num_tied,
                num_unscored=chosen.num_unscored,
                mean_reward=chosen.mean_reward,
                mean_gap=chosen.mean_gap,
                sampling_seconds=round(sampled - started, 2),
                judging_seconds=round(0.0 if sitting is None else sitting.seconds, 2),
                waiting_seconds=round(judged - sampled, 2),
                learning_seconds=round(time.monotonic() - judged, 2),
            )
        return self._end_round(project, record)

    def _rollouts(self, number: int, project: Project, first_step: int, sitting: Sitting | None) -> RolloutPlan:
        """The round's clips from the policy in force, judged as they come; what is there already is kept."""
        folder = project.pairs(ROLLOUTS)
        is_whole = self._team.is_first and folder.is_dir() and read_stamp(folder) is not None
        whole_of = self._team.told(policy_of(project) if is_whole else "")
        if not whole_of and self._policy.step != first_step:
            raise BadInput(f"{folder} is not whole, and the policy that made it has gone on; start another run")
        policy = whole_of or self._policy.identity()
        visits = visits_of(number, self._inputs.prompts, self._config)
        plan = plan_rollouts(self._inputs.project, project, ROLLOUTS, visits, rollout_settings(self._inputs, policy))
        if not whole_of:
            take = None if sitting is None else sitting.take
            make_rollouts(self._policy.model, plan.pairs, self._team, poll=self._poll, take=take)
        return plan

    def _choose(self, plan: RolloutPlan, project: Project, sitting: Sitting | None, poll: Callable[[], None]) -> Chosen:
        """Judges what is not judged yet, and writes the pairs that come of the rollouts."""
        assert sitting is not None  # it is there on the first process, which alone chooses
        assert self._jury is not None
        pairs = sitting.judged(poll)
        chosen = choose(plan.groups, self._jury.scores(pairs, sitting.store), margin=self._config.margin)
        if chosen.choices:
            write_chosen(project, chosen.choices, sitting.store, self._jury.rewards, self._config)
        return chosen

    def _end_round(self, project: Project, record: RoundRecord | None) -> RoundRecord:
        """Writes what the first process says of a round, and tells the others."""

        def write() -> None:
            assert record is not None
            report_round(self._inputs.folder, record, after_step=self._policy.step)
            if not self._config.keep_rollouts:
                drop_rollouts(project)
            write_round(project, record)

        self._team.first_does(write)
        told = told_round(record, self._team)
        assert told is not None
        self._refuse_empty(told)
        return told

    def _refuse_empty(self, record: RoundRecord) -> None:
        limit = self._config.max_empty_rounds
        last = [*self._records, record][-limit:]
        if len(last) == limit and all(one.num_pairs == 0 for one in last):
            raise BadInput(
                f"{limit} rounds in a row gave no pair ({record.num_tied} ties and {record.num_unscored} prompts "
                f"without scores in the last): lower margin = {self._config.margin:g}, or look at the judge; other "
                "settings are another run"
            )

    def _finish(self, stopped: str | None) -> OnlineSummary:
        """Leaves the selected adapter in the run's folder, and what all rounds came to."""
        folder, target = self._inputs.folder, self._inputs.folder / ADAPTER_FILE
        best = self._lookout.best() if self._config.guard.select == "best" else None
        if best is None:
            self._policy.save(target)
        else:
            kept = look_folder(folder, best[0]) / ADAPTER_FILE
            self._team.first_does(lambda: write_atomic(target, kept.read_bytes()))
        self._team.first_does(self._list_pairs)
        every = self._config.refresh_every
        return OnlineSummary(
            folder=self._inputs.project.relative(folder),
            rounds=len(self._records),
            empty_rounds=sum(record.num_pairs == 0 for record in self._records),
            steps=self._policy.step,
            refreshes=(self._policy.step - 1) // every if every and self._policy.step else 0,
            num_rollouts=sum(record.num_rollouts for record in self._records),
            num_pairs=sum(record.num_pairs for record in self._records),
            selected_step=self._policy.step if best is None else best[1],
            stopped_early=stopped,
            sampling_seconds=round(sum(record.sampling_seconds for record in self._records), 2),
            judging_seconds=round(sum(record.judging_seconds for record in self._records), 2),
            waiting_seconds=round(sum(record.waiting_seconds for record in self._records), 2),
            learning_seconds=round(sum(record.learning_seconds for record in self._records), 2),
            strategy=self._team.strategy,
            in_force=self._policy.in_force(),
        )

    def _list_pairs(self) -> None:
        """The pairs that were learned from, in run.json, where those of an offline run stand from the start."""
        folder = self._inputs.folder
        row = read_object(folder / RUN_FILE)
        projects = [round_project(folder, record.round) for record in self._records]
        row["train_pairs"] = [pair.id for project in projects for pair in self._learning.pairs(project)]
        write_atomic(folder / RUN_FILE, json.dumps(row, indent=2) + "\n")
