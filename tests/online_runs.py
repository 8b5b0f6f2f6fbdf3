"""Small online runs on the toy model, for the tests."""

from __future__ import annotations

import json
from pathlib import Path

from densedpo.core.workspace import Project
from densedpo.learn.online.config import OnlineConfig
from densedpo.learn.online.run import learn_online
from processes import SERVER

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
DEATHS = {
    "before the first look": ("densedpo.learn.online.guard", "write_look", 1, "before"),
    "between two rollouts": ("densedpo.learn.online.judging", "JudgingAhead.take", 2, "after"),
    "while it judges": ("densedpo.judge.run", "_rows", 2, "before"),
    "when it has judged": ("densedpo.learn.online.session", "choose", 1, "before"),
    "in the middle of a chosen pair": ("densedpo.learn.online.chosen", "write_pair_mp4", 1, "before"),
    "between chosen pairs and answers": ("densedpo.learn.online.chosen", "collect", 1, "before"),
    "in a step": ("densedpo.learn.loop", "take_step", 2, "before"),
    "when a checkpoint is half written": ("densedpo.learn.checkpoint", "_manifest", 1, "before"),
    "right after a refresh": ("densedpo.learn.online.session", "require_reference", 1, "before"),
    "when a round has learned": ("densedpo.learn.online.session", "write_round", 1, "before"),
    "at the end": ("densedpo.learn.online.session", "_Online._finish", 1, "before"),
}


def train_and_die(project: Project, name: str, model: Path, config: OnlineConfig, death: str) -> None:
    """Runs until one of `DEATHS`, and is gone there as by kill -9."""
    import importlib
    import os
    import signal

    module, function, nth, when = DEATHS[death]
    owner = importlib.import_module(module)
    if "." in function:
        cls, _, function = function.partition(".")
        owner = vars(owner)[cls]
    real, calls = vars(owner)[function], []

    def dying(*args, **kwargs):
        calls.append(1)
        if len(calls) == nth and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if len(calls) == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, function, dying)
    learn_online(project, name, model=model, config=config)


def killed_online(project: Project, name: str, model: Path, config: OnlineConfig, death: str) -> int | None:
    """Runs in a process of its own until it dies; returns its exit code."""
    process = SERVER.Process(target=train_and_die, args=(project, name, model, config, death))
    process.start()
    process.join()
    return process.exitcode
