"""The command line: exit codes, one clear line on stderr, and the verbs about a project."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from densedpo import __version__
from densedpo.cli import main
from densedpo.core.workspace import append_jsonl, init_project, write_atomic, write_stamp

VERB = '''
import os
import signal

from densedpo.core.errors import BadInput, Interrupted

def verb(how: str) -> None:
    """A verb that goes wrong as it is told."""
    if how == "bad":
        raise BadInput("row\\n3 holds \\x1b[31mred\\x1b[0m")
    if how == "cut":
        raise Interrupted("stopped at step 7; run again to go on")
    if how == "terminate":
        os.kill(os.getpid(), signal.SIGTERM)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "missing":
        raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib.pyplot")
    if how == "fault":
        raise ModuleNotFoundError("No module named 'nonsense'", name="nonsense")
'''


@pytest.fixture
def verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a verb beside the shipped ones."""
    (tmp_path / "verb_of_test.py").write_text(VERB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(main.VERBS, "verb", "verb_of_test:verb")
    return "verb"


def leave(*arguments: str) -> int:
    """The exit code of a command line."""
    with pytest.raises(SystemExit) as caught:
        main.run(arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize(
    ("how", "code", "line"),
    [
        ("well", 0, ""),
        ("bad", 2, "densedpo: row\\n3 holds \\x1b[31mred\\x1b[0m\n"),
        ("cut", 75, "densedpo: stopped at step 7; run again to go on\n"),
        ("terminate", 75, "densedpo: stopped by SIGTERM; run the same command again to go on\n"),
        ("interrupt", 130, ""),
        ("missing", 2, "densedpo: this needs matplotlib; pip install 'densedpo[report]'\n"),
    ],
)
def test_what_goes_wrong_is_one_line_and_a_code(
    verb: str, how: str, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leave(verb, how) == code
    assert capsys.readouterr().err == line


def test_our_own_faults_are_not_dressed_up(verb: str) -> None:
    with pytest.raises(ModuleNotFoundError, match="nonsense"):
        main.run([verb, "fault"])


def test_version_and_unknown_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave("--version") == 0
    assert capsys.readouterr().out == f"densedpo {__version__}\n"
    assert leave("generrate") == 2
    assert "generrate" in capsys.readouterr().err


def test_init_then_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "mine"
    assert leave("init", str(root), "-q") == 0
    assert "next: densedpo data add" in capsys.readouterr().out
    assert leave("init", str(root)) == 2
    assert capsys.readouterr().err == f"densedpo: {root} is a project already\n"
    assert leave("status", "--project", str(root)) == 0
    assert "generate   nothing yet" in capsys.readouterr().out
    assert leave("status", "--project", str(tmp_path)) == 2
    assert "densedpo init" in capsys.readouterr().err


def test_status_tells_fresh_stale_and_unfinished_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = init_project(tmp_path / "mine")
    write_atomic(project.clips / "clips.jsonl", "")
    write_stamp(project.clips, [], project)
    write_atomic(project.pairs("p") / "pairs.jsonl", "")
    write_stamp(project.pairs("p"), [project.clips], project)
    write_atomic(project.pairs("cut") / "pairs.jsonl", "")
    append_jsonl(project.clips / "clips.jsonl", {})
    assert leave("status", "--project", str(project.root), "--json") == 0
    artefacts = json.loads(capsys.readouterr().out)["artefacts"]
    assert [(row["stage"], row["path"], row["state"], row["stale"]) for row in artefacts] == [
        ("data", "clips", "fresh", []),
        ("generate", "pairs/cut", "unfinished", []),
        ("generate", "pairs/p", "stale", ["clips changed"]),
    ]


def test_doctor_lists_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave("doctor", "--json") == 0
    machine = json.loads(capsys.readouterr().out)
    assert machine["densedpo"] == __version__
    assert machine["packages"]["numpy"]
    assert set(machine["missing"]) == {"train", "report"}


def test_what_is_not_there_is_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    project = init_project(tmp_path / "project")
    cases = (
        ["doctor", str(tmp_path / "model")],
        ["doctor", "nobody/nothing"],
        ["learn", "export", "absent", "--project", str(project.root)],
        ["learn", "export", "absent", "--format", "other", "--project", str(project.root)],
    )
    code = (
        "import json, sys; from densedpo.cli.main import run\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    try: run(words)\n"
        "    except SystemExit as leaving: assert leaving.code == 2, words\n"
        "    assert 'torch' not in sys.modules, words"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(cases)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.partition(" ")[0] for line in done.stderr.splitlines()] == ["densedpo:"] * len(cases)
