"""The flags of each verb are frozen here: a new one is a decision, since most things are settings (`--set`)."""

from __future__ import annotations

import re

import pytest

from cli_page import cli_page
from command_line import densedpo

PAGE = cli_page()
COMMANDS = dict(PAGE.commands())
# these mean the same wherever they are, and are not counted
EVERYWHERE = {"--project", "--config", "--set", "--json"}
MAX_FLAGS = 6
FLAGS = {
    "init": "",
    "doctor": "--json",
    "status": "--project --json",
    "demo": "--project --long",
    "data add": "--model --project --config --set",
    "generate independent": "--model --project --config --set --dry-run",
    "generate guided": "--model --project --config --set --dry-run",
    "generate first-frames": "--model --project --config --set --dry-run",
    "generate corrupted": "--model --project --config --set --dry-run",
    "generate arena": "--name --model --project --config --set --dry-run",
    "generate calibrate": "--model --project --config --set --dry-run",
    "judge oracle": "--project --config --set --allow-stale",
    "judge reference": "--project --config --set --allow-stale",
    "judge real": "--project --config --set --allow-stale",
    "judge vlm": "--project --config --set --allow-stale",
    "judge custom": "--project --config --set --allow-stale",
    "judge export": "--pairs --annotator --judgements --project --set --allow-stale",
    "judge scored": "--pairs --project --set --allow-stale",
    "judge import": "--pairs --annotator --project --set",
    "judge serve": "--host --port --public-url --project --config --set --allow-stale",
    "judge invite": "--admin --project",
    "judge audit": "--run --top --project",
    "judge reward": "--project --config --set --allow-stale",
    "judge http": "--project --config --set --allow-stale",
    "judge probe": "--truth --project --config --set --allow-stale",
    "learn offline": "--pairs --preferences --model --project --config --set --allow-stale --dry-run",
    "learn export": "--format --project",
    "learn online": "--model --project --config --set --allow-stale --dry-run",
    "learn stages": "--pairs --preferences --model --project --config --set --allow-stale --dry-run",
    "measure run": "--run --model --project --config --set --allow-stale --json",
    "measure compare": "--pairs --preferences --run --project --config --set --allow-stale --json",
    "measure judge": "--pairs --annotator --against --project --config --set --allow-stale --json",
}


def flags(verb: str) -> list[str]:
    options = [param for param in COMMANDS[verb].params if param.param_type_name == "option"]
    return [word for option in options for word in (*option.opts, *option.secondary_opts)]


def test_the_flags_are_these_and_no_others() -> None:
    assert {verb: " ".join(flags(verb)) for verb in COMMANDS} == FLAGS


def test_no_verb_has_many_flags_and_none_has_a_short_form() -> None:
    for verb in COMMANDS:
        own = set(flags(verb)) - EVERYWHERE
        assert len(own) <= MAX_FLAGS, verb
        assert all(re.fullmatch(r"--[a-z]+(-[a-z]+)*", flag) for flag in own), verb


def test_every_flag_and_argument_says_what_it_is() -> None:
    silent = [
        f"{verb} {param.name}" for verb, command in COMMANDS.items() for param in command.params if not param.help
    ]
    assert silent == []


def test_verbs_with_settings_are_those_that_take_set() -> None:
    assert set(PAGE.SETTINGS) == {verb for verb in COMMANDS if "--set" in flags(verb)}


@pytest.mark.parametrize("verb", PAGE.SETTINGS)
def test_a_verb_takes_the_settings_that_the_page_lists(verb: str) -> None:
    """What a verb says about an unknown key is the truth about its keys."""
    arguments = ["x" for param in COMMANDS[verb].params if param.param_type_name == "argument"]
    required = [
        word for param in COMMANDS[verb].params if param.required and param.opts[0].startswith("--")
        for word in (param.opts[0], "x")
    ]  # fmt: skip
    done = densedpo(*verb.split(), *arguments, *required, "--set", "no_such=1")
    keys = ", ".join(key for key, _, _ in PAGE.described_keys(PAGE.settings_of(verb)))
    assert (done.code, done.err) == (2, f"densedpo: --set no_such=1: 'no_such': unknown key; the keys are {keys}\n")
