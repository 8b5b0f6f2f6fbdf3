"""Small online runs on the toy model, for the tests."""

from __future__ import annotations

import importlib
import json
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

from densedpo.core.workspace import Project
from densedpo.learn.online.config import OnlineConfig
from densedpo.learn.online.run import learn_online
from processes import SERVER, work_together

LEARN = {"batch_pairs": 2, "lora_rank": 4, "learning_rate": 1e-3, "warmup_steps": 0, "beta": 100.0}
SMALL = {
    "num_rounds": 3,
    "prompts_per_round": 2,
    "rollouts": 4,
    "sampler_steps": 2,
    "steps_per_round": 2,
    "refresh_every": 3,
    "rewards": [{"judge": "online_judges:Brightness"}],
    "guard": {"every": 0},
}


def online_config(learn: dict[str, object] | None = None, **changes: object) -> OnlineConfig:
    """The small settings with some changed."""
    return OnlineConfig.model_validate({**SMALL, **changes, "learn": {**LEARN, **(learn or {})}})


def train_online(project: Project, name: str, model: Path, config: OnlineConfig) -> Path:
    """Runs in this process."""
    return learn_online(project, name, model=model, config=config)


def start_online(project: Project, name: str, model: Path, config: OnlineConfig):
    """Runs in a process of its own, which is returned."""
    process = SERVER.Process(target=learn_online, args=(project, name), kwargs={"model": model, "config": config})
    process.start()
    return process


def rows(folder: Path, split: str = "train") -> list[dict[str, object]]:
    """The rows of a split of metrics.jsonl, without what the clock says."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found if row["split"] == split]


def rounds(folder: Path) -> list[dict[str, object]]:
    """What the rounds of a run came to, without what the clock says."""
    found = [json.loads(path.read_text()) for path in sorted((folder / "rounds").glob("*/round.json"))]
    return [{key: value for key, value in row.items() if not key.endswith("_seconds")} for row in found]


# module and function at whose nth call a run dies, after the call where it says so
Death = tuple[str, str, int, str]
DEATHS: dict[str, Death] = {
    "before the first look": ("densedpo.learn.online.guard.taking", "write_look", 1, "before"),
    "between two rollouts": ("densedpo.learn.online.judging", "JudgingAhead.take", 2, "after"),
    "while it judges": ("densedpo.judge.run", "_rows", 2, "before"),
    "when it has judged": ("densedpo.learn.online.session", "choose", 1, "before"),
    "in the middle of a chosen pair": ("densedpo.judge.studies.regroup", "write_pair_mp4", 1, "before"),
    "between chosen pairs and answers": ("densedpo.learn.online.chosen", "collect", 1, "before"),
    "in a step": ("densedpo.learn.loop", "take_step", 2, "before"),
    "when a checkpoint is half written": ("densedpo.learn.checkpoint", "_manifest", 1, "before"),
    "right after a refresh": ("densedpo.learn.online.learning", "require_reference", 1, "before"),
    "when a round has learned": ("densedpo.learn.online.session", "write_round", 1, "before"),
    "at the end": ("densedpo.learn.online.session", "_Online._finish", 1, "before"),
}


def at_call(module: str, function: str, nth: int, act: Callable[[], None], *, when: str = "before") -> None:
    """Has something done at the nth call of a function of this process, before it or after."""
    owner = importlib.import_module(module)
    if "." in function:
        cls, _, function = function.partition(".")
        owner = vars(owner)[cls]
    real, calls = vars(owner)[function], []

    def acting(*args, **kwargs):
        calls.append(1)
        if len(calls) == nth and when == "before":
            act()
        result = real(*args, **kwargs)
        if len(calls) == nth and when == "after":
            act()
        return result

    setattr(owner, function, acting)


def send(number: signal.Signals) -> None:
    """A signal to this process."""
    os.kill(os.getpid(), number)


def train_and_die(project: Project, name: str, model: Path, config: OnlineConfig, death: Death) -> None:
    """Runs until its death, and is gone there as by kill -9."""
    module, function, nth, when = death
    at_call(module, function, nth, partial(send, signal.SIGKILL), when=when)
    learn_online(project, name, model=model, config=config)


def online_together(
    project: Project,
    name: str,
    model: Path,
    config: OnlineConfig,
    fault: Callable[[int], None] | None = None,
    wait_for: int | None = None,
) -> list[int | None]:
    """Runs in two processes as torchrun starts them; see `work_together`."""
    return work_together(2, partial(learn_online, project, name, model=model, config=config), fault, wait_for)


def signalled_on_the_second(module: str, function: str, nth: int, number: signal.Signals, rank: int) -> None:
    """A fault for `online_together`, with all but the rank given: the second process is sent a signal at a call."""
    if rank == 1:
        at_call(module, function, nth, partial(send, number))


def killed_online(project: Project, name: str, model: Path, config: OnlineConfig, death: Death) -> int | None:
    """Runs in a process of its own until it dies; returns its exit code."""
    process = SERVER.Process(target=train_and_die, args=(project, name, model, config, death))
    process.start()
    process.join()
    return process.exitcode
