"""The guard within a run: when it looks, what it gives reason for, and which look was the best."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from densedpo.learn.online.guard.looks import LOOK_FILE, alarm_of, best_look, look_row, looks_since_best, read_look
from densedpo.learn.online.guard.taking import GuardBench, look_folder, take_look
from densedpo.learn.online.journal import log_once
from densedpo.learn.online.round import rollout_settings
from densedpo.learn.watch.alarms import Alarm, raise_alarms

if TYPE_CHECKING:
    from densedpo.learn.online.guard.looks import Look
    from densedpo.learn.online.jury import Jury
    from densedpo.learn.online.policy import Policy
    from densedpo.learn.online.run import OnlineInputs
    from densedpo.learn.processes.team import Team


class Lookout:
    """The looks of a run. The first process alone has them, and tells the others what follows."""

    def __init__(
        self, inputs: OnlineInputs, policy: Policy, jury: Jury | None, team: Team, poll: Callable[[], None]
    ) -> None:
        """No look has been taken."""
        self._inputs, self._policy, self._jury, self._team, self._poll = inputs, policy, jury, team, poll
        self._guard = inputs.config.guard
        self._looks: list[Look] = []

    def look_if_due(self, number: int, *, last_step: int) -> None:
        """The look after so many rounds, which end at a step: taken, or read where it was; and the alarm.

        A look that is missing can no longer be taken once the policy has gone on.
        """
        every = self._guard.every
        if not every or (number % every and number != self._inputs.config.num_rounds):
            return
        is_there = self._is_there(number)
        if not is_there and self._policy.step != last_step:
            return
        if is_there:
            look = read_look(look_folder(self._inputs.folder, number)) if self._team.is_first else None
        else:
            look = take_look(self._bench(), number)
        if look is not None:
            self._note(look)

    def why_stop(self) -> str | None:
        """Why no further round is made; None to go on."""
        return self._team.told(self._reason() or "") or None

    def best(self) -> tuple[int, int] | None:
        """Round and step of the look with the best held-out score; None where nothing is held out."""
        best = best_look(self._looks)
        told = json.loads(self._team.told(json.dumps(None if best is None else [best.round, best.step])))
        return None if told is None else (told[0], told[1])

    def _is_there(self, number: int) -> bool:
        path = look_folder(self._inputs.folder, number) / LOOK_FILE
        return bool(self._team.told("yes" if path.is_file() else ""))

    def _bench(self) -> GuardBench:
        settings = replace(
            rollout_settings(self._inputs, self._policy.identity()),
            kind="independent",
            num_rollouts=2,
            eta_min=None,
            eta_max=None,
        )
        return GuardBench(
            folder=self._inputs.folder,
            policy=self._policy,
            prompts=self._inputs.guard_prompts,
            settings=settings,
            jury=self._jury,
            team=self._team,
            poll=self._poll,
        )

    def _note(self, look: Look) -> None:
        folder = self._inputs.folder
        self._looks.append(look)
        log_once(folder, look_row(self._looks[0], look), after_step=self._policy.step)
        alarm = alarm_of(self._looks[0], look)
        if alarm is not None:
            raise_alarms(folder, [Alarm(name="goodhart", step=look.step, message=f"step {look.step}: {alarm.text}")])

    def _reason(self) -> str | None:
        looks, patience = self._looks, self._guard.patience
        if self._guard.stop_on_alarm and looks and alarm_of(looks[0], looks[-1]) is not None:
            return f"the alarm after round {looks[-1].round}"
        if patience and looks_since_best(looks) >= patience:
            return f"no better held-out score in {patience} looks"
        return None
