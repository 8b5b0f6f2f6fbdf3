"""The docs say what is there: commands, settings, links, methods, and code that runs."""

from __future__ import annotations

import re
import shlex
import typing
from pathlib import Path

import pytest

from cli_page import ROOT, cli_page
from densedpo.learn.config import ObjectiveName

PAGE = cli_page()
COMMANDS = dict(PAGE.commands())
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
METHODS = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "methods").glob("*.md"))}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_page_of_commands_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    PAGE.main()
    stored = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out == stored, "make it again by `make docs`"


def test_every_setting_says_what_it_does() -> None:
    silent = [
        f"{verb}: {key}"
        for verb in PAGE.SETTINGS
        for key, _, text in PAGE.described_keys(PAGE.settings_of(verb))
        if not text
    ]
    assert silent == []


def test_every_verb_is_in_the_readme() -> None:
    words = {*re.findall(r"[a-z]+", README), *re.findall(r"[a-z]+-[a-z]+", README)}
    assert [verb for verb in COMMANDS if not set(verb.split()) <= words] == []


def commands_shown() -> list[tuple[str, list[str]]]:
    """Every `densedpo ...` line of a code block of any page, with its place."""
    shown = []
    for path in PAGES:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if re.match(r"( {4}|\$ )densedpo ", line):
                for part in line.split("&&"):
                    words = shlex.split(part.removeprefix("$ "), comments=True)
                    shown.append((f"{name_of(path)}:{number}", words[1:] if words[0] == "densedpo" else []))
    return [(where, words) for where, words in shown if words]


@pytest.mark.parametrize(
    ("where", "words"), commands_shown(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_commands_shown_exist_with_their_flags(where: str, words: list[str]) -> None:
    verb = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
    assert verb in COMMANDS
    options = {word for param in COMMANDS[verb].params for word in (*param.opts, *param.secondary_opts)}
    assert {word for word in words if word.startswith("-")} <= options
    keys = {key for key, _, _ in PAGE.described_keys(PAGE.settings_of(verb))} if verb in PAGE.SETTINGS else set()
    set_here = [words[i + 1].split("=")[0] for i, word in enumerate(words) if word == "--set"]
    # a key under a key that takes a table is the table's own
    assert [key for key in set_here if not {key, key.rpartition(".")[0]} & keys] == []


def test_links_lead_somewhere() -> None:
    broken = set()
    for path in PAGES:
        for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", path.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", target) and not (path.parent / target).exists():
                broken.add(name_of((path.parent / target).resolve()))
    assert broken == set()


def test_every_objective_has_its_page_and_its_row() -> None:
    for objective in typing.get_args(ObjectiveName):
        assert f"`{objective}`" in README
        if objective != "sft":  # a control, no method of its own
            assert [path for path, text in METHODS.items() if f"`{objective}`" in text], objective
    for path in METHODS:
        assert f"]({name_of(path)})" in README, f"{name_of(path)} is in no row of the README"


def test_methods_name_code_and_tests_that_exist() -> None:
    for path, text in METHODS.items():
        for named in re.findall(r"`((?:densedpo|tests)/[\w./]+)`", text):
            place = ROOT / named if named.startswith("tests/") else ROOT / "src" / named
            assert place.exists(), f"{name_of(path)} names {named}"


def test_python_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
