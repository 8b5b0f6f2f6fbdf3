"""An online run with torch: rounds of generate, judge and learn, each phase resumed from what is on the disk."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from densedpo.core.errors import BadInput
from densedpo.core.files import read_object, write_atomic
from densedpo.core.workspace import Project, read_stamp
from densedpo.generate.resume import SETTINGS_FILE
from densedpo.generate.rollouts import RolloutPlan, plan_rollouts
from densedpo.judge.pairset import PairSet
from densedpo.judge.store import LabelStore
from densedpo.learn.export import ADAPTER_FILE
from densedpo.learn.feed.batch import Draws, Source
from densedpo.learn.feed.inputs import is_usable, read_pairs
from densedpo.learn.feed.order import TimeDensity, Visit
from densedpo.learn.loop import Workbench, train
from densedpo.learn.online.choose import Chosen, choose
from densedpo.learn.online.chosen import write_chosen
from densedpo.learn.online.guard import GuardBench, look_folder, take_look
from densedpo.learn.online.judging import Patience, judge_all, waiting_for
from densedpo.learn.online.looks import alarm_of, best_look, look_row, looks_since_best
from densedpo.learn.online.policy import Policy
from densedpo.learn.online.rewards import build_judge, rewards_of
from densedpo.learn.online.rollouts import make_and_judge
from densedpo.learn.online.round import (
    CHOSEN,
    ROLLOUTS,
    RoundRecord,
    drop_rollouts,
    read_round,
    rollout_settings,
    round_project,
    visits_of,
    write_round,
)
from densedpo.learn.online.run import OnlineInputs, OnlineSummary
from densedpo.learn.processes.team import ALONE
from densedpo.learn.reference import require_reference
from densedpo.learn.run import RUN_FILE
from densedpo.learn.tasks import PreferenceTask
from densedpo.learn.watch.alarms import Alarm, raise_alarms
from densedpo.learn.watch.track import METRICS_FILE, MetricsLog

if TYPE_CHECKING:
    from pydantic import JsonValue

    from densedpo.judge.protocol import Judge
    from densedpo.learn.feed.inputs import LabelledPair
    from densedpo.learn.online.looks import Look
    from densedpo.learn.stop import StopFlag
    from densedpo.learn.tasks import Task

_log = logging.getLogger("densedpo")


def run_online(inputs: OnlineInputs, *, identity: str, flag: StopFlag) -> OnlineSummary:
    """Runs the rounds that are not done.

    Args:
        identity: the hash of the run's config and inputs, which its checkpoints carry.
        flag: asked wherever the work can end.

    Raises:
        Interrupted, BadInput: see `learn_online`.
    """
    flag.poll()
    return _Online(inputs, identity, flag).run()


class _RoundTask(PreferenceTask):
    """A preference task whose steps are counted from the first step of its round."""

    first_step = 0

    def window(self, step: int) -> tuple[tuple[Visit, ...], ...]:
        """See `Task`."""
        return super().window(step - self.first_step)


class _Online:
    """A run between its rounds: the policy, the judges, and what has been done so far."""

    def __init__(self, inputs: OnlineInputs, identity: str, flag: StopFlag) -> None:
        self._inputs, self._identity, self._poll = inputs, identity, flag.poll
        self._config, self._training = inputs.config, inputs.config.training
        self._policy = Policy(inputs, identity)
        self._patience = Patience(minutes=inputs.config.judge_patience_min, poll=flag.poll)
        self._judges: tuple[Judge, ...] = ()
        self._held_out: Judge | None = None
        self._records: list[RoundRecord] = []
        self._looks: list[Look] = []

    def run(self) -> OnlineSummary:
        self._build_judges()
        self._look_if_due(0)
        stopped = None
        for number in range(self._config.num_rounds):
            stopped = self._why_stop()
            if stopped is not None:
                _log.warning("stopped before round %d: %s", number, stopped)
                break
            project = round_project(self._inputs.folder, number)
            record = read_round(project)
            if record is None or record.last_step > self._policy.step:
                record = self._round(number, project)
            self._records.append(record)
            self._look_if_due(number + 1)
        return self._finish(stopped)

    def _round(self, number: int, project: Project) -> RoundRecord:
        first_step = self._records[-1].last_step if self._records else 0
        started = time.monotonic()
        with LabelStore.open(project.labels_db) as store:
            plan = self._rollouts(number, project, first_step, store)
            sampled = time.monotonic()
            chosen = self._choose(plan, project, store)
        judged = time.monotonic()
        pairs = self._pairs(project)
        if pairs:
            self._learn(pairs, [*self._replayed(number)], first_step)
        record = RoundRecord(
            round=number,
            policy=_policy_of(project),
            first_step=first_step,
            last_step=self._policy.step if pairs else first_step,
            num_rollouts=2 * len(plan.pairs.pairs),
            num_pairs=len(pairs),
            num_tied=chosen.num_tied,
            num_unscored=chosen.num_unscored,
            mean_reward=chosen.mean_reward,
            mean_gap=chosen.mean_gap,
            sampling_seconds=round(sampled - started, 2),
            judging_seconds=round(judged - sampled, 2),
            learning_seconds=round(time.monotonic() - judged, 2),
        )
        self._report(record)
        if not self._config.keep_rollouts:
            drop_rollouts(project)
        write_round(project, record)
        self._refuse_empty(record)
        return record

    def _rollouts(self, number: int, project: Project, first_step: int, store: LabelStore) -> RolloutPlan:
        """The round's clips from the policy in force, judged as they come; what is there already is kept."""
        folder = project.pairs(ROLLOUTS)
        is_whole = folder.is_dir() and read_stamp(folder) is not None
        if not is_whole and self._policy.step != first_step:
            raise BadInput(f"{folder} is not whole, and the policy that made it has gone on; start another run")
        policy = _policy_of(project) if is_whole else self._policy.identity()
        visits = visits_of(number, self._inputs.prompts, self._config)
        plan = plan_rollouts(self._inputs.project, project, ROLLOUTS, visits, rollout_settings(self._inputs, policy))
        if not is_whole:
            make_and_judge(
                self._policy.model, plan.pairs, self._judges, store, self._config.segment_seconds, self._patience
            )
        return plan

    def _choose(self, plan: RolloutPlan, project: Project, store: LabelStore) -> Chosen:
        """Judges what is not judged yet, and writes the pairs that come of the rollouts."""
        pairs = PairSet.read(project.pairs(ROLLOUTS))
        for judge in self._judges:
            judge_all(judge, pairs, store, segment_seconds=self._config.segment_seconds, patience=self._patience)
        weights = [choice.weight for choice in self._config.rewards]
        seconds = self._config.segment_seconds
        rewards = rewards_of(pairs, store, self._judges, weights, segment_seconds=seconds)
        chosen = choose(plan.groups, rewards, margin=self._config.margin)
        if chosen.choices:
            write_chosen(project, chosen.choices, store, self._judges, self._config)
        return chosen

    def _pairs(self, project: Project) -> list[LabelledPair]:
        """The pairs of a round that can be learned from."""
        preferences = project.preferences(CHOSEN)
        if not preferences.is_file():
            return []
        found = read_pairs(project.pairs(CHOSEN), preferences, self._policy.model.geometry, _policy_of(project))
        return [pair for pair in found if is_usable(pair, self._training)]

    def _replayed(self, number: int) -> list[LabelledPair]:
        earlier = range(max(0, number - self._config.replay_rounds), number)
        return [pair for one in earlier for pair in self._pairs(round_project(self._inputs.folder, one))]

    def _learn(self, pairs: Sequence[LabelledPair], replayed: Sequence[LabelledPair], first_step: int) -> None:
        """The steps of a round, refreshing the reference where it is due."""
        policy, last = self._policy, first_step + self._config.steps_per_round
        density = TimeDensity.of(self._training)
        draws = Draws(noise_seed=self._training.noise_seed, count="fresh", density=density, noise=self._training.noise)
        source, items = Source(policy.model), [*pairs, *replayed]
        task = _RoundTask(policy.model, source, items, draws, self._training, None, reference=policy.reference)
        task.first_step = first_step
        while policy.step < last:
            if policy.put_reference():
                batch = source.pairs(items, [Visit(index=0, draw=0)], draws)
                require_reference(policy.model, batch, self._training, policy.reference)
            due = policy.next_refresh()
            until = last if due is None else min(last, due)
            train(self._bench(task, until))
            policy.step = until

    def _bench(self, task: Task, until: int) -> Workbench:
        return Workbench(
            task=task,
            evaluation=None,
            parameters=self._policy.parameters,
            optimizer=self._policy.optimizer,
            config=self._training,
            folder=self._inputs.folder,
            identity=self._identity,
            poll=self._poll,
            team=ALONE,
            until=until,
        )

    def _build_judges(self) -> None:
        """Makes the judges, waiting for those that are away, and refuses ones that have changed since the start."""
        seconds, guard = self._config.segment_seconds, self._config.guard.judge
        self._judges = tuple(
            waiting_for(partial(build_judge, choice, segment_seconds=seconds), self._patience)
            for choice in self._config.rewards
        )
        if guard is not None:
            self._held_out = waiting_for(partial(build_judge, guard, segment_seconds=seconds), self._patience)
        judges = [*self._judges, *([self._held_out] if self._held_out is not None else [])]
        path = self._inputs.folder / "judges.json"
        row = {"instructions": [judge.instructions for judge in judges]}
        if path.exists() and read_object(path) != row:
            raise BadInput(f"{path}: a judge is not what it was when the run began; start another run")
        write_atomic(path, json.dumps(row, indent=2) + "\n")

    def _look_if_due(self, number: int) -> None:
        """The guard's look after so many rounds, and what it gives reason for."""
        guard, folder = self._config.guard, self._inputs.folder
        is_due = guard.every and (number % guard.every == 0 or number == self._config.num_rounds)
        is_there = look_folder(folder, number).joinpath("guard.json").is_file()
        if not is_due or (not is_there and self._policy.step != (self._records[-1].last_step if self._records else 0)):
            return
        settings = replace(
            rollout_settings(self._inputs, self._policy.identity()),
            kind="independent",
            num_rollouts=2,
            eta_min=None,
            eta_max=None,
        )
        bench = GuardBench(
            folder=folder,
            model=self._policy.model,
            prompts=self._inputs.guard_prompts,
            settings=settings,
            rewards=self._judges,
            weights=[choice.weight for choice in self._config.rewards],
            held_out=self._held_out,
            segment_seconds=self._config.segment_seconds,
            patience=self._patience,
        )
        look = take_look(bench, number, self._policy.step)
        self._looks.append(look)
        self._log_once(look_row(self._looks[0], look))
        alarm = alarm_of(self._looks[0], look)
        if alarm is not None:
            raise_alarms(folder, [Alarm(name="goodhart", step=look.step, message=f"step {look.step}: {alarm.text}")])

    def _why_stop(self) -> str | None:
        """Why no further round is made; None to go on."""
        guard, looks = self._config.guard, self._looks
        if guard.stop_on_alarm and looks and alarm_of(looks[0], looks[-1]) is not None:
            return f"the alarm after round {looks[-1].round}"
        if guard.patience and looks_since_best(looks) >= guard.patience:
            return f"no better held-out score in {guard.patience} looks"
        return None

    def _report(self, record: RoundRecord) -> None:
        row: dict[str, JsonValue] = {"step": record.last_step, "split": "round", "round": record.round}
        row |= {"num_pairs": record.num_pairs, "num_tied": record.num_tied}
        row |= {"mean_reward": record.mean_reward, "mean_gap": record.mean_gap}
        self._log_once(row)
        reward = "none" if record.mean_reward is None else f"{record.mean_reward:.4g}"
        _log.info(
            "round %d: %d clips, mean reward %s, %d pairs, %d ties",
            record.round, record.num_rollouts, reward, record.num_pairs, record.num_tied,
        )  # fmt: skip

    def _log_once(self, row: dict[str, JsonValue]) -> None:
        """A row in metrics.jsonl and TensorBoard, unless an earlier call wrote it."""
        path = self._inputs.folder / METRICS_FILE
        log = MetricsLog(self._inputs.folder, after_step=self._policy.step, evaluated_step=None)
        try:
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            known = {(before.get("split"), before.get("round")) for before in map(json.loads, lines)}
            if (row["split"], row["round"]) not in known:
                log.write(row)
        finally:
            log.close()

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
        best = best_look(self._looks) if self._config.guard.select == "best" else None
        if best is None:
            self._policy.model.save_adapter(target)
        else:
            write_atomic(target, (look_folder(folder, best.round) / ADAPTER_FILE).read_bytes())
        row = read_object(folder / RUN_FILE)
        projects = [round_project(folder, record.round) for record in self._records]
        row["train_pairs"] = [pair.id for project in projects for pair in self._pairs(project)]
        write_atomic(folder / RUN_FILE, json.dumps(row, indent=2) + "\n")
        every = self._config.refresh_every
        return OnlineSummary(
            folder=self._inputs.project.relative(folder),
            rounds=len(self._records),
            empty_rounds=sum(record.num_pairs == 0 for record in self._records),
            steps=self._policy.step,
            refreshes=(self._policy.step - 1) // every if every and self._policy.step else 0,
            num_rollouts=sum(record.num_rollouts for record in self._records),
            num_pairs=sum(record.num_pairs for record in self._records),
            selected_step=self._policy.step if best is None else best.step,
            stopped_early=stopped,
            sampling_seconds=round(sum(record.sampling_seconds for record in self._records), 2),
            judging_seconds=round(sum(record.judging_seconds for record in self._records), 2),
            learning_seconds=round(sum(record.learning_seconds for record in self._records), 2),
            strategy=ALONE.strategy,
        )


def _policy_of(project: Project) -> str:
    """The identity of the policy that made the rollouts of a round."""
    return str(read_object(project.pairs(ROLLOUTS) / SETTINGS_FILE)["model"])
