"""Faults of a checkpoint's life: a kill at any moment of its write, a full disk, damage, pickles, signals.

Each test is named after its row in the table of faults, docs/training.md.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from densedpo.core.errors import BadInput, Interrupted
from densedpo.core.workspace import Project
from densedpo.learn import loop, run, session
from densedpo.learn.cache import CachedReference
from densedpo.learn.checkpoint import Checkpoint, TrainState, load_latest, save_checkpoint
from densedpo.learn.config import LearnConfig
from densedpo.learn.watch.evaluate import Evaluation

SETTINGS = {
    "num_steps": 4, "batch_pairs": 2, "eval_every": 2, "eval_pairs": 2, "eval_draws": 1, "lora_rank": 2,
    "checkpoint_every": 1, "draws": 2,
}  # fmt: skip


def checkpoint(step: int) -> Checkpoint:
    layer = {"layer": torch.full((4, 4), float(step))}
    return Checkpoint(state=TrainState(step=step), adapter=layer, optimizer=layer, best={})


def save(folder: Path, step: int, keep: int = 2) -> None:
    save_checkpoint(folder, checkpoint(step), identity="run", keep=keep)


def die_at(moment: int, folder: Path, step: int) -> bool:
    """Saves in a child process that ends without a word at its n-th fsync, rename or removal; whether it got there."""
    child = os.fork()
    if child == 0:
        calls = 0

        def counted(function):
            def call(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls == moment:
                    os._exit(9)
                return function(*args, **kwargs)

            return call

        os.fsync = counted(os.fsync)
        os.rename, os.replace = counted(os.rename), counted(os.replace)
        os.unlink, os.rmdir = counted(os.unlink), counted(os.rmdir)
        save(folder, step)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_f24_a_kill_at_any_moment_of_a_write_leaves_a_whole_checkpoint(tmp_path: Path):
    """Steps 1 and 2 are there; a child dies at each of its system calls while it writes 3 and removes 1."""
    moment, seen = 0, set()
    while True:
        moment += 1
        folder = tmp_path / str(moment)
        save(folder, 1)
        save(folder, 2)
        if not die_at(moment, folder, 3):
            break
        found = load_latest(folder, identity="run")
        assert found is not None
        seen.add(found.state.step)
        assert torch.equal(found.adapter["layer"], torch.full((4, 4), float(found.state.step)))
        assert not list(folder.glob(".tmp-*"))
        save(folder, 4)  # and the run goes on
        assert load_latest(folder, identity="run").state.step == 4
    assert moment > 8
    assert seen == {2, 3}


def test_f25_a_file_of_the_wrong_length_is_named_with_both_lengths(tmp_path: Path, caplog):
    save(tmp_path, 1)
    save(tmp_path, 2)
    path = tmp_path / "step-000002" / "state.safetensors"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-7])
    assert load_latest(tmp_path, identity="run").state.step == 1
    assert f"state.safetensors has {size - 7} bytes instead of {size}" in caplog.text


def test_f27_a_disk_that_fills_up_leaves_the_old_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(tmp_path, 1)
    save(tmp_path, 2)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadInput, match="disk full"):
        save(tmp_path, 3)
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000001", "step-000002"]
    assert load_latest(tmp_path, identity="run").state.step == 2


class Payload:
    """Unpickled, it would leave a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_processes_that_start_again_at_once_do_not_trip_over_each_others_tidying(tmp_path: Path):
    """Eight of them, and a few hundred folders that killed writes left: before, one found a folder gone."""
    save(tmp_path, 1)
    for number in range(300):
        (tmp_path / f".tmp-{number:06d}-0").mkdir()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: load_latest(tmp_path, identity="run"), range(8)))
    assert [each.state.step for each in found] == 8 * [1]
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def test_f38_a_pickle_in_a_checkpoint_is_never_opened(tmp_path: Path, caplog):
    folder = tmp_path / "checkpoints"
    save(folder, 1)
    save(folder, 2)
    payload = pickle.dumps(Payload(tmp_path / "run by the pickle"))
    newest = folder / "step-000002"
    for name in ("state.pt", "optimizer.bin", "state.safetensors"):
        (newest / name).write_bytes(payload)
    assert load_latest(folder, identity="run").state.step == 1
    manifest = json.loads((newest / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"] = {"state.pt": manifest["files"]["state.json"]}
    (newest / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert load_latest(folder, identity="run").state.step == 1
    assert not (tmp_path / "run by the pickle").exists()


def test_f39_the_newest_is_that_of_the_highest_step_not_of_the_name_or_the_clock(tmp_path: Path):
    """As text step-1000000 comes before step-999999."""
    save(tmp_path, 1_000_000)
    save(tmp_path, 999_999)
    os.utime(tmp_path / "step-999999", (0, 0))
    (tmp_path / "step-final").mkdir()
    assert load_latest(tmp_path, identity="run").state.step == 1_000_000
    save(tmp_path, 1_000_001)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"step-1000000", "step-1000001", "step-final"}


PHASES = {
    "load": (session, "load_model"),
    "fill": (CachedReference, "fill"),
    "step": (loop, "take_step"),
    "save": (loop, "save_checkpoint"),
    "evaluation": (Evaluation, "run"),
    "end": (session, "where_learned"),
}


@pytest.fixture(scope="module")
def config() -> LearnConfig:
    return LearnConfig.model_validate(SETTINGS)


def train(project: Project, model: Path, config: LearnConfig, name: str) -> dict[str, torch.Tensor]:
    folder = run.learn_offline(project, name, pairs="toy", preferences="toy", model=model, config=config)
    return load_file(folder / "adapter.safetensors")


def test_f34_a_signal_in_any_phase_ends_the_run_so_that_it_goes_on(
    labelled: Project, toy_model_dir: Path, config: LearnConfig, monkeypatch: pytest.MonkeyPatch
):
    """One SIGTERM as the phase first begins; where a save is under way it is finished first."""
    alone = train(labelled, toy_model_dir, config, "alone")
    for phase, (owner, name) in PHASES.items():
        function = getattr(owner, name)

        def signalled(*args, function=function, calls=[], **kwargs):  # noqa: B006 (one list for each phase)
            calls.append(True)
            if len(calls) == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return function(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, signalled)
            with pytest.raises(Interrupted, match="SIGTERM"):
                train(labelled, toy_model_dir, config, phase)
        assert not (labelled.run(phase) / "adapter.safetensors").exists(), phase
        resumed = train(labelled, toy_model_dir, config, phase)
        assert all(torch.equal(resumed[key], alone[key]) for key in alone), phase


def test_f35_the_second_ctrl_c_ends_at_once(labelled: Project, toy_model_dir: Path, config: LearnConfig, monkeypatch):
    """Also inside a save: what it had written is gone and the checkpoint before it is whole."""
    function = os.fsync
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background

    def twice(descriptor: int) -> None:
        if list(labelled.run("twice").glob("checkpoints/.tmp-000002*")):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        function(descriptor)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", twice)
            with pytest.raises(KeyboardInterrupt):
                train(labelled, toy_model_dir, config, "twice")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert [path.name for path in (labelled.run("twice") / "checkpoints").iterdir()] == ["step-000001"]
