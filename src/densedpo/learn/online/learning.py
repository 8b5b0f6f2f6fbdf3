"""The last phase of a round: optimizer steps on its pairs, and the reference put in place where it is due."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from densedpo.learn.feed.batch import Draws, Source
from densedpo.learn.feed.inputs import read_pairs
from densedpo.learn.feed.order import TimeDensity, Visit
from densedpo.learn.feed.splits import is_usable
from densedpo.learn.loop import Workbench, train
from densedpo.learn.online.round import CHOSEN, policy_of, round_project
from densedpo.learn.reference import require_reference
from densedpo.learn.task.preference import PreferenceTask

if TYPE_CHECKING:
    from densedpo.core.workspace import Project
    from densedpo.learn.feed.inputs import LabelledPair
    from densedpo.learn.online.policy import Policy
    from densedpo.learn.online.run import OnlineInputs
    from densedpo.learn.processes.team import Team
    from densedpo.learn.task.protocol import Task

_log = logging.getLogger("densedpo")


class _RoundTask(PreferenceTask):
    """A preference task whose steps are counted from the first step of its round.

    `first_draws` has for each pair the first of its draws that no earlier round has taken: a pair that is replayed
    meets noises and t that it has not met.
    """

    first_step = 0
    first_draws: Sequence[int] = ()

    def window(self, step: int) -> tuple[tuple[Visit, ...], ...]:
        """See `Task`."""
        return tuple(
            tuple(replace(visit, draw=visit.draw + self.first_draws[visit.index]) for visit in visits)
            for visits in super().window(step - self.first_step)
        )


class Learning:
    """Learns from the pairs of rounds, on every process of a team; each reads the same pairs."""

    def __init__(
        self, inputs: OnlineInputs, identity: str, policy: Policy, team: Team, poll: Callable[[], None]
    ) -> None:
        """Nothing is read yet.

        Args:
            identity: the hash of the run's config and inputs, which its checkpoints carry.
        """
        self._inputs, self._identity, self._policy, self._team, self._poll = inputs, identity, policy, team, poll
        self._config, self._training = inputs.config, inputs.config.training
        self._has_watched = False

    def pairs(self, project: Project) -> list[LabelledPair]:
        """The pairs of a round that can be learned from."""
        preferences = project.preferences(CHOSEN)
        if not preferences.is_file():
            return []
        found = read_pairs(project.pairs(CHOSEN), preferences, self._policy.model.geometry, policy_of(project))
        return [pair for pair in found if is_usable(pair, self._training)]

    def learn(self, number: int, pairs: Sequence[LabelledPair], first_step: int) -> None:
        """The steps of a round, refreshing the reference where it is due.

        Raises:
            Interrupted, BadInput: see `loop.train` and `reference.require_reference`.
        """
        policy, last = self._policy, first_step + self._config.steps_per_round
        density = TimeDensity.of(self._training)
        draws = Draws(noise_seed=self._training.noise_seed, count="fresh", density=density, noise=self._training.noise)
        replayed = self._replayed(number)
        source, items = Source(policy.model), [*pairs, *(pair for pair, _ in replayed)]
        task = _RoundTask(policy.model, source, items, draws, self._training, None, reference=policy.reference)
        task.first_step = first_step
        most_draws = self._config.steps_per_round * self._training.window_pairs  # of one pair in one round
        task.first_draws = [0] * len(pairs) + [age * most_draws for _, age in replayed]
        first = [Visit(index=0, draw=0)]
        while policy.step < last:
            is_fresh = policy.put_reference()
            if not self._has_watched:
                policy.watch_products(source.pairs(items, first, draws).packed())
                _log.info("in force: %s; %s", self._team.strategy, policy.in_force().text())
                self._has_watched = True
            if is_fresh:
                batch = source.pairs(items, first, draws)
                require_reference(policy.model, batch, self._training, policy.reference)
            due = policy.next_refresh()
            until = last if due is None else min(last, due)
            train(self._bench(task, until))
            policy.step = until

    def _replayed(self, number: int) -> list[tuple[LabelledPair, int]]:
        """Pairs of earlier rounds, and how many rounds ago they were made."""
        earlier = range(max(0, number - self._config.replay_rounds), number)
        return [(pair, number - one) for one in earlier for pair in self.pairs(round_project(self._inputs.folder, one))]

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
            team=self._team,
            until=until,
        )
