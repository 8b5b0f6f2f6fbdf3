"""Prints docs/cli.md from the commands and their settings, so that the page cannot disagree with them."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from typing import Final

from pydantic import BaseModel
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from densedpo.cli.main import app
from densedpo.core.config import Config

HEAD: Final = """# The command line

Made from the commands themselves by `make docs`. Exit codes: 0 done, 2 bad input, 75 cut short and resumable by running
the same command again, 130 interrupted. `-q` and `-v` may stand anywhere.

Settings are written `--set key=value`, or as a TOML file that `--config` names; `--set` wins. A name alone, such as
`huvidpo.toml`, is also that of a recipe of the package (`densedpo/recipes`).
"""
# verb -> the settings that its --set takes
SETTINGS: Final = {
    "data add": "densedpo.data.config:DataConfig",
    "generate independent": "densedpo.generate.config:IndependentConfig",
    "generate guided": "densedpo.generate.config:GuidedConfig",
    "generate first-frames": "densedpo.generate.config:FirstFramesConfig",
    "generate corrupted": "densedpo.generate.corrupted.config:CorruptedConfig",
    "generate arena": "densedpo.generate.config:ArenaConfig",
    "generate calibrate": "densedpo.generate.config:CalibrateConfig",
    "judge oracle": "densedpo.judge.oracle:OracleConfig",
    "judge reference": "densedpo.judge.reference:ReferenceConfig",
    "judge real": "densedpo.judge.known:RealConfig",
    "judge reward": "densedpo.judge.reward.judge:RewardConfig",
    "judge http": "densedpo.judge.reward.http:HttpConfig",
    "judge probe": "densedpo.judge.probe.config:ProbeConfig",
    "judge vlm": "densedpo.judge.vlm.config:VlmConfig",
    "judge custom": "densedpo.judge.custom:CustomConfig",
    "judge export": "densedpo.judge.preferences:ExportConfig",
    "judge scored": "densedpo.judge.studies.scored:ScoredConfig",
    "judge import": "densedpo.judge.exchange:ImportConfig",
    "judge serve": "densedpo.judge.studies.config:StudyConfig",
    "learn offline": "densedpo.learn.config:LearnConfig",
    "learn online": "densedpo.learn.online.config:OnlineConfig",
    "learn stages": "densedpo.learn.stages:StagesConfig",
    "measure run": "densedpo.measure.config:MeasureConfig",
    "measure compare": "densedpo.measure.config:CompareConfig",
    "measure judge": "densedpo.measure.config:JudgeConfig",
}


def main() -> None:
    """Prints the page."""
    print("\n".join([HEAD, *(line for verb, command in commands() for line in _describe(verb, command))]).rstrip())


def commands() -> Iterator[tuple[str, TyperCommand]]:
    """Every command, by the words that call it, in the order of work."""
    yield from _inside(get_command(app), "")


def settings_of(verb: str) -> type[Config]:
    """The class of the settings of a verb that takes `--set`."""
    module, _, name = SETTINGS[verb].partition(":")
    found: type[Config] = vars(importlib.import_module(module))[name]
    return found


def described_keys(cls: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Each key as it is written behind --set, its default as TOML, and what it does."""
    for name, field in cls.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from described_keys(field.annotation, f"{prefix}{name}.")
        else:
            default = "" if field.default is None else json.dumps(field.default, default=_plain)
            yield prefix + name, default, field.description or ""


def _plain(value: object) -> object:
    """A default that JSON has no word for."""
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)


def _inside(command: object, name: str) -> Iterator[tuple[str, TyperCommand]]:
    if isinstance(command, TyperGroup):
        for inner in command.list_commands(None):  # type: ignore[arg-type]  # ours needs no context
            yield from _inside(command.get_command(None, inner), f"{name} {inner}".strip())  # type: ignore[arg-type]
    else:
        assert isinstance(command, TyperCommand)
        yield name, command


def _describe(verb: str, command: TyperCommand) -> Iterator[str]:
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    usage = " ".join(["densedpo", verb, *((param.name or "").upper() for param in arguments)])
    yield f"## `{usage}`\n\n{(command.help or '').strip()}\n"
    for param in command.params:
        text = vars(param).get("help") or ""
        written = [(param.name or "").upper()] if param in arguments else [*param.opts, *param.secondary_opts]
        yield f"- {', '.join(f'`{word}`' for word in written)}: {text}".rstrip(": ")
    if verb in SETTINGS:
        yield "\n| setting | default | |\n|---|---|---|"
        for key, default, text in described_keys(settings_of(verb)):
            yield f"| `{key}` | {f'`{default}`' if default else ''} | {text} |"
    yield ""


if __name__ == "__main__":
    main()
