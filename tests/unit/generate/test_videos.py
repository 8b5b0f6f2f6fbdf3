"""Videos by a process beside the denoiser: the same bytes, clear errors, no process left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from command_line import densedpo, settings
from densedpo.adapters import load
from densedpo.core.errors import BadInput
from densedpo.core.records import Pair, read_jsonl, to_row
from densedpo.core.workspace import Project
from densedpo.generate.config import IndependentConfig
from densedpo.generate.pairs import generate_pairs
from densedpo.generate.plan import PairPlan, plan_independent
from densedpo.generate.videos import Beside, VideoProcess, beside_of
from toy import add_toy_clips


@pytest.fixture(scope="module")
def root(toy_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with pairs/here: three pairs, decoded in turns with the denoiser."""
    root = tmp_path_factory.mktemp("videos") / "p"
    assert densedpo("init", root).code == 0
    add_toy_clips(root, load(toy_model_dir), 2)
    generate_pairs(planned(root, toy_model_dir, "here", "here"))
    return root


def planned(root: Path, model: Path, name: str, decode: str) -> PairPlan:
    config = IndependentConfig(num_pairs=3, num_steps=2, pairs_per_batch=1, decode=decode)
    return plan_independent(Project(root=root), name, model=model, config=config)


def files(folder: Path) -> dict[str, bytes]:
    """What a folder of pairs holds, but for the lock and the stamp, which says when."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name not in (".lock", "stamp.json")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_process_beside_writes_the_same_bytes(root: Path, toy_model_dir: Path) -> None:
    plan = planned(root, toy_model_dir, "apart", "apart")
    assert generate_pairs(plan) == 3
    assert files(plan.folder) == files(root / "pairs" / "here")
    assert len(files(plan.folder)) == 3 * 2 + 2


def test_what_is_wrong_there_is_said_here(root: Path, toy_model_dir: Path, tmp_path: Path) -> None:
    """A damaged file is refused by name, and the process goes on; a killed one ends the command with a line."""
    folder = Path(shutil.copytree(root / "pairs" / "here", tmp_path / "here"))
    first, second, _ = read_jsonl(folder / "pairs.jsonl", Pair)
    (folder / first.latents).write_bytes(b"half")
    (folder / second.video).unlink()
    process = VideoProcess(Beside(model=toy_model_dir, device="cpu"), folder)
    try:
        with pytest.raises(BadInput, match=f"{Path(first.latents).name} does not hold the latents"):
            process.write(first)
        process.write(second)
        assert (folder / second.video).read_bytes() == (root / "pairs" / "here" / second.video).read_bytes()
        process.kill()
        with pytest.raises(BadInput, match=r"was killed, as a machine does that runs out of memory; .* run it again"):
            process.write(second)
    finally:
        process.close()


def test_it_ends_with_the_process_that_asked(root: Path, toy_model_dir: Path) -> None:
    """A signal for all does not end it, a closed input does, as when the other was killed; a broken start is told."""
    given = {"model": str(toy_model_dir), "device": "cpu", "folder": str(root / "pairs" / "here"), "threads": 1}
    command = [sys.executable, "-m", "densedpo.generate.videos", json.dumps(given)]
    pair = read_jsonl(root / "pairs" / "here" / "pairs.jsonl", Pair)[0]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(to_row(pair)) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"refused": None}
        os.kill(process.pid, signal.SIGINT)
        os.kill(process.pid, signal.SIGTERM)
        process.stdin.close()
        assert process.wait(timeout=600) == 0


def test_a_process_is_started_where_it_pays(root: Path, toy_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, for many pairs, with processors for the threads of both; on a GPU for more than one."""
    plan = planned(root, toy_model_dir, "auto", "auto")
    monkeypatch.setattr("densedpo.generate.videos._num_processors", lambda: 2 * torch.get_num_threads())
    assert beside_of(plan, 100) == Beside(model=plan.model, device="cpu")
    assert beside_of(plan, 3) is None
    assert beside_of(replace(plan, decode="apart"), 3) is not None
    assert beside_of(replace(plan, device="cuda:0"), 2) is not None
    assert beside_of(replace(plan, device="cuda:0"), 1) is None
    monkeypatch.setattr("densedpo.generate.videos._num_processors", lambda: 2 * torch.get_num_threads() - 1)
    assert beside_of(plan, 100) is None
    assert beside_of(replace(plan, device="cuda:0", decode="here"), 100) is None


def test_a_set_that_was_begun_one_way_goes_on_the_other(root: Path, toy_model_dir: Path) -> None:
    more = settings(num_pairs=4, num_steps=2, pairs_per_batch=1)
    shutil.copytree(root / "pairs" / "here", root / "pairs" / "mixed")
    done = densedpo("generate", "independent", "mixed", "--model", toy_model_dir, "--project", root, *more, "--set",
                    "decode=apart")  # fmt: skip
    assert done.code == 0, done.err
    assert "1 pairs made, 4 in pairs/mixed" in done.out
