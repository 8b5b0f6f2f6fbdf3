"""Faults of a checkpoint's life: a kill at any moment of its write, a full disk, damage, pickles, signals.

Each test is named after its row in the table of faults, docs/training.md.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import signal
import threading
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
from densedpo.learn.stop import stop_on_signals
from densedpo.learn.task import preference
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


def power_cut_at(moment: int, folder: Path, step: int, *, names_survive: bool) -> int | None:
    """Saves in a child process whose machine loses power at its n-th fsync, rename or removal.

    The disk then has what an honest one promises and no more: a file that was not synced is empty, and a name that was
    given in a folder not synced since is the old one again, or survives, as the disk likes.

    Returns:
        None if it got to the end, 10 if the checkpoint had its name for good before the cut, else 9.
    """
    child = os.fork()
    if child == 0:
        calls, renames = 0, []
        synced = {path.stat().st_ino for path in folder.rglob("*")}
        fsync, rename = os.fsync, os.rename

        def cut() -> None:
            code = 10 if (folder / f"step-{step:06d}").exists() and not renames else 9
            for path in folder.rglob("*"):
                if path.is_file() and path.stat().st_ino not in synced:
                    os.truncate(path, 0)
            for _, source, target in [] if names_survive else reversed(renames):
                rename(target, source)
            os._exit(code)

        def counted(function):
            def call(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls == moment:
                    cut()
                return function(*args, **kwargs)

            return call

        def synced_now(descriptor: int) -> None:
            fsync(descriptor)
            inode = os.fstat(descriptor).st_ino
            synced.add(inode)
            renames[:] = [one for one in renames if one[0] != inode]

        def renamed(source, target, **kwargs) -> None:
            rename(source, target, **kwargs)
            renames.append((Path(target).parent.stat().st_ino, source, target))

        os.fsync = counted(synced_now)
        os.rename = os.replace = counted(renamed)
        os.unlink, os.rmdir = counted(os.unlink), counted(os.rmdir)
        save(folder, step)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or None


@pytest.mark.parametrize("names_survive", [True, False])
def test_f41_a_power_cut_at_any_moment_of_a_write_leaves_a_whole_checkpoint(tmp_path: Path, names_survive: bool):
    """As F24, on a disk that forgets what was not synced; once an old checkpoint is removed, the new one is safe."""
    save(tmp_path / "0", 1)
    save(tmp_path / "0", 2)
    moment, seen = 0, set()
    while True:
        moment += 1
        folder = shutil.copytree(tmp_path / "0", tmp_path / str(moment))
        code = power_cut_at(moment, folder, 3, names_survive=names_survive)
        if code is None:
            break
        found = load_latest(folder, identity="run")
        assert found is not None
        assert code == 9 or found.state.step == 3
        assert torch.equal(found.adapter["layer"], torch.full((4, 4), float(found.state.step)))
        seen.add((code, found.state.step))
    assert moment > 8
    assert {(9, 2), (10, 3)} <= seen


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


@pytest.fixture(scope="module")
def alone(_made: Path, toy_model_dir: Path, config: LearnConfig, tmp_path_factory) -> dict[str, torch.Tensor]:
    """The adapter of a run that nothing happened to."""
    project = Project(root=shutil.copytree(_made, tmp_path_factory.mktemp("alone") / "project"))
    return train(project, toy_model_dir, config, "alone")


def test_f17_a_run_whose_gpu_is_lost_says_so_and_goes_on_to_the_same_bits(
    labelled: Project, toy_model_dir: Path, config: LearnConfig, alone, monkeypatch: pytest.MonkeyPatch
):
    """The error of a lost device, in the forward of step 3, leaves the program: no tensor there can be saved."""
    take_step, forward = loop.take_step, preference.residuals

    def lost(*args: object) -> None:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    def step_on_a_device(*args, step: int, **kwargs):
        monkeypatch.setattr(preference, "residuals", lost if step == 3 else forward)
        return take_step(*args, step=step, **kwargs)

    monkeypatch.setattr(loop, "take_step", step_on_a_device)
    with pytest.raises(torch.AcceleratorError, match="unspecified launch failure"):
        train(labelled, toy_model_dir, config, "lost")
    monkeypatch.undo()
    assert max(path.name for path in (labelled.run("lost") / "checkpoints").iterdir()) == "step-000002"
    resumed = train(labelled, toy_model_dir, config, "lost")
    assert all(torch.equal(resumed[key], alone[key]) for key in alone)


def test_f40_a_save_that_fails_ends_the_run_before_its_next_step(
    labelled: Project, toy_model_dir: Path, config: LearnConfig, alone, monkeypatch: pytest.MonkeyPatch
):
    """Saves are made by the thread that trains, so none can fail unheard; the run goes on as if it had not."""
    take_step, steps, savers = loop.take_step, [], []

    def counted(*args, step: int, **kwargs):
        steps.append(step)
        return take_step(*args, step=step, **kwargs)

    def failing(*args, **kwargs):
        savers.append(threading.current_thread())
        if len(savers) == 2:
            raise RuntimeError("the save broke")
        return save_checkpoint(*args, **kwargs)

    monkeypatch.setattr(loop, "take_step", counted)
    monkeypatch.setattr(loop, "save_checkpoint", failing)
    with pytest.raises(RuntimeError, match="the save broke"):
        train(labelled, toy_model_dir, config, "broken")
    assert steps == [1, 2]
    assert set(savers) == {threading.current_thread()}
    monkeypatch.undo()
    resumed = train(labelled, toy_model_dir, config, "broken")
    assert all(torch.equal(resumed[key], alone[key]) for key in alone)


def test_f34_a_signal_in_any_phase_ends_the_run_so_that_it_goes_on(
    labelled: Project, toy_model_dir: Path, config: LearnConfig, alone, monkeypatch: pytest.MonkeyPatch
):
    """One SIGTERM as the phase first begins; where a save is under way it is finished first."""
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


def test_f34_what_a_scheduler_sends_ahead_ends_the_work_as_sigterm_does():
    before = signal.getsignal(signal.SIGUSR1)
    with stop_on_signals() as flag:
        flag.poll()
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(Interrupted, match="stopped by SIGUSR1") as stop:
            flag.poll()
    assert stop.value.exit_code == 75
    assert signal.getsignal(signal.SIGUSR1) == before


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
