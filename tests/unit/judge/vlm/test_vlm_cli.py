"""`judge vlm` and `judge custom` as they are typed, on a project of three pairs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command_line import Done, densedpo, settings
from densedpo.core.workspace import Project
from densedpo.judge.pairset import PairSet
from densedpo.judge.store import LabelStore
from scripted_vlm import TIE, Json, Reply, Script, chat, scripted, videos_of


def sharper(request: Json, _number: int) -> Reply:
    """The video with less grain wins: that is the clean one of the project's pairs."""
    first, second = (sum(_grain(frame) for frame in frames) for frames in videos_of(request))
    word = "tie" if abs(first - second) < 0.5 else "first" if first < second else "second"
    return chat(json.dumps({"answer": word, "reason": "less grain"}))


def _grain(frame: object) -> float:
    import numpy as np

    grey = np.asarray(frame, dtype=float).mean(axis=2)
    return float(np.abs(np.diff(grey, axis=1)).mean())


def vlm(project: Project, script: Script | None, **changes: object) -> Done:
    values = {"model": "scripted", "key_env": "", "first_wait_s": 0.01, "min_side": 16, **changes}
    if script is not None:
        values["base_url"] = script.url
    return densedpo("judge", "vlm", "demo", "--project", project.root, *settings(**values))


def answers(project: Project) -> list[str]:
    with LabelStore.open(project.labels_db) as store:
        rows = store.judgements(PairSet.read(project.pairs("demo")).hashes)
    return [f"{row.pair_id}{'' if row.segment is None else row.segment}={row.answer}" for row in rows]


EXPECTED = [
    "p00=tie", "p01=tie", "p02=a", "p03=a", "p10=tie", "p11=tie", "p12=b", "p13=b",
    "p20=tie", "p21=tie", "p22=tie", "p23=tie",
]  # fmt: skip


def test_pairs_are_judged_stored_and_never_asked_about_again(fresh_project: Project) -> None:
    """p0 is clean against grain in its second half, p1 the other way round, p2 a clip with itself.

    Three pairs of four segments in two orders are 24 questions. Four of them show frames that others show in the same
    order (before the grain begins, clips are the same), so 20 are sent.
    """
    with scripted(sharper) as script:
        done = vlm(fresh_project, script)
        assert (done.code, len(script.requests)) == (0, 20), done.err
        assert answers(fresh_project) == EXPECTED
        assert "20 requests, 44000 tokens" in done.out
        again = vlm(fresh_project, script)
        assert (again.code, len(script.requests)) == (0, 20)
        assert "3 were judged before" in again.out
        # the same labels from the replies on the disk, without a request
        fresh_project.labels_db.unlink()
        from_disk = vlm(fresh_project, script)
    assert (from_disk.code, len(script.requests), answers(fresh_project)) == (0, 20, EXPECTED)
    assert "24 answers were on the disk" in from_disk.out


def test_a_whole_clip_is_one_question(fresh_project: Project) -> None:
    with scripted(sharper) as script:
        done = vlm(fresh_project, script, whole_clip=True)
    assert (done.code, len(script.requests)) == (0, 6), done.err
    assert answers(fresh_project) == ["p0=a", "p1=b", "p2=tie"]


def test_more_than_two_unreadable_answers_in_a_hundred_fail_the_run(fresh_project: Project) -> None:
    def once_wrong(request: Json, number: int) -> Reply:
        return chat("Yes, but no.") if number == 1 else sharper(request, number)

    with scripted(once_wrong) as script:
        done = vlm(fresh_project, script, concurrency=1, pairs_at_once=1)
        assert done.code == 2
        assert "1 of 12 answers" in done.err
        assert "2 %" in done.err
        assert answers(fresh_project) == EXPECTED[1:]  # what was read stays; nothing stands in for the rest
        listed = next(fresh_project.root.glob("judges/*/failures.jsonl")).read_text().splitlines()
        assert [(json.loads(row)["pair_id"], json.loads(row)["kind"]) for row in listed] == [("p0", "malformed")]
        again = vlm(fresh_project, script)
    assert (again.code, sorted(answers(fresh_project))) == (0, EXPECTED)
    assert len(script.requests) == 21


def test_without_an_endpoint_or_a_key_it_says_what_to_set(
    fresh_project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    none = vlm(fresh_project, None)
    assert (none.code, "--set base_url=" in none.err) == (2, True)
    no_model = vlm(fresh_project, None, base_url="http://127.0.0.1:9/v1", model="")
    assert (no_model.code, "--set model=" in no_model.err) == (2, True)
    no_key = vlm(fresh_project, None, base_url="http://127.0.0.1:9/v1", key_env="OPENAI_API_KEY")
    assert (no_key.code, "OPENAI_API_KEY is not set" in no_key.err) == (2, True)
    secret = vlm(fresh_project, None, base_url="http://me:hunter2@127.0.0.1:9/v1")
    assert (secret.code, "hunter2" in secret.err) == (2, False)
    assert not fresh_project.labels_db.exists()


def test_without_its_extra_it_prints_the_line_that_installs_it(
    fresh_project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("densedpo.judge.vlm")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openai", None)
    done = vlm(fresh_project, None, base_url="http://127.0.0.1:9/v1")
    assert (done.code, done.err) == (2, "densedpo: this needs openai; pip install 'densedpo[vlm]'\n")


def test_f82_a_spent_limit_is_75_and_the_next_run_goes_on(fresh_project: Project) -> None:
    with scripted(sharper) as script:
        cut = vlm(fresh_project, script, max_requests=10, concurrency=1, pairs_at_once=1)
        assert (cut.code, len(script.requests)) == (75, 10)
        assert "max_requests = 10 is reached" in cut.err
        assert answers(fresh_project) == EXPECTED[:4]  # the pair that was whole
        done = vlm(fresh_project, script)
    assert (done.code, len(script.requests), answers(fresh_project)) == (0, 20, EXPECTED)


def test_f81_a_run_that_is_killed_goes_on_where_it_was(fresh_project: Project) -> None:
    """Killed with replies on the disk: the second run asks only for the rest, and ends with the same answers."""

    def stops(request: Json, number: int) -> Reply:
        reply = sharper(request, number)
        reply.delay_s = 0 if number <= 13 or is_killed else 60
        return reply

    is_killed = False
    with scripted(stops) as script:
        values = {"model": "scripted", "key_env": "", "min_side": 16, "base_url": script.url, "concurrency": 1}
        command = [
            sys.executable, "-c", "from densedpo.cli.main import run; run()",
            "judge", "vlm", "demo", "--project", str(fresh_project.root), *settings(**values),
        ]  # fmt: skip
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(script.requests) < 14 and run.poll() is None:
            time.sleep(0.02)
        os.kill(run.pid, signal.SIGKILL)
        run.wait(timeout=30)
        is_killed = True
        done = vlm(fresh_project, script, concurrency=1)
        assert done.code == 0, done.err
    assert len(script.requests) == 20 + 1  # the one under way is asked again
    assert answers(fresh_project) == EXPECTED


MINE = """
from densedpo.judge.protocol import SegmentAnswer

class Louder:
    annotator = "louder"
    instructions = "louder 1"
    def __init__(self, *, bias=0.0, count=None, answer="a", score=None):
        self.bias, self.count, self.answer = bias, count, answer
        self.score = None if score is None else float(score)
    def check(self, pair):
        pass
    def judge(self, clips, segments):
        answers = [
            SegmentAnswer(answer=self.answer, confidence=self.bias or None, score_a=self.score) for _ in segments
        ]
        return tuple(answers[: self.count])

class NoJudge:
    annotator = "nobody"

number = 3
"""


def custom(project: Project, path: str, *more: str) -> Done:
    return densedpo("judge", "custom", path, "demo", "--project", project.root, *more)


@pytest.fixture
def my_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder, under a name that no other test imports."""
    name = f"my_judges_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return name


def test_a_judge_from_outside_is_taken_by_its_import_path(fresh_project: Project, my_judges: str) -> None:
    done = custom(fresh_project, f"{my_judges}:Louder", "--set", "options.bias=0.75")
    assert done.code == 0, done.err
    assert "louder judged 3 of 3 pairs" in done.out
    assert {row.partition("=")[2] for row in answers(fresh_project)} == {"a"}


@pytest.mark.parametrize(
    ("path", "more", "said"),
    [
        ("Louder", (), "module:Class"),
        ("no_such_module_here:Judge", (), "no module 'no_such_module_here'"),
        ("MINE:Quieter", (), "holds no 'Quieter'"),
        ("MINE:number", (), "not a class"),
        ("MINE:NoJudge", (), "lacks check, instructions, judge"),
        ("MINE:Louder", ("--set", "options.volume=1"), "volume"),
        ("MINE:Louder", ("--set", "options.count=1"), "1 answers for the 4 segments"),
        ("MINE:Louder", ("--set", "options.bias=7"), "in [0, 1]"),
        ("MINE:Louder", ("--set", "options.answer=first"), "one of a, b, tie, skip"),
        ("MINE:Louder", ("--set", "options.score=nan"), "a score is a finite number"),
    ],
)
def test_a_judge_that_is_wrong_is_refused_in_one_line(
    path: str, more: tuple[str, ...], said: str, fresh_project: Project, my_judges: str
) -> None:
    done = custom(fresh_project, path.replace("MINE", my_judges), *more)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1


def test_ties_alone_are_not_stored_before_it_is_known_that_the_judge_can_tell(fresh_project: Project) -> None:
    """Twelve questions are too few to call a judge uninformative: they are stored when the run ends."""
    with scripted(chat(TIE)) as script:
        done = vlm(fresh_project, script)
    assert done.code == 0, done.err
    assert len(answers(fresh_project)) == 12
