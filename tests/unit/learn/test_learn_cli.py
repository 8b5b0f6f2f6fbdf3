"""`densedpo learn offline` as a user meets it: what it writes, what it refuses, and with which exit code."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from densedpo.adapters import VideoModel, catalogue
from densedpo.cli.main import run as densedpo
from densedpo.core.workspace import Project, write_stamp
from toy_pairs import read_only

FEW = ["num_steps=2", "batch_pairs=2", "eval_every=2", "eval_pairs=2", "eval_draws=2", "lora_rank=2"]


def offline(
    project: Project,
    model: Path,
    *settings: str,
    name: str = "first",
    preferences: str = "toy",
    more: tuple[str, ...] = (),
) -> int:
    chosen = [part for setting in (*FEW, *settings) for part in ("--set", setting)]
    inputs = ["--pairs", "toy", "--preferences", preferences, "--model", str(model)]
    with pytest.raises(SystemExit) as leaving:
        densedpo(["learn", "offline", name, *inputs, "--project", str(project.root), *chosen, *more])
    return int(leaving.value.code)


def test_a_run_leaves_everything_that_it_should(labelled: Project, toy_model_dir: Path):
    assert offline(labelled, toy_model_dir) == 0
    folder = labelled.run("first")
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "adapter.safetensors", "checkpoints", "config.toml", "metrics.jsonl", "run.json", "stamp.json", "summary.json",
        "tensorboard", "where.jsonl",
    }  # fmt: skip
    made = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert made["strategy"] == "single process cpu"
    assert made["seeds"] == {"seed": 0, "noise_seed": 0}
    assert set(made["identity"]["inputs"]) == {"pairs/toy", "preferences/toy.jsonl"}
    assert len(made["train_pairs"]) == 12
    assert made["made"]["packages"]["torch"]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["step"], row["split"]) for row in rows] == [
        (0, "validation"), (1, "train"), (2, "train"), (2, "validation")
    ]  # fmt: skip
    for row in rows:
        assert {"loss", "accuracy", "margin", "win_gap", "lose_gap", "loser_dominant", "by_t"} <= set(row)


def test_the_same_command_again_does_nothing(labelled: Project, toy_model_dir: Path):
    offline(labelled, toy_model_dir)
    before = read_only(labelled.run("first"))
    assert offline(labelled, toy_model_dir) == 0
    assert read_only(labelled.run("first")) == before


def test_f37_a_folder_of_another_run_is_refused_by_what_differs(labelled: Project, toy_model_dir: Path, capsys):
    offline(labelled, toy_model_dir)
    before = read_only(labelled.run("first"))
    path = labelled.preferences("toy")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[1:]), encoding="utf-8")
    capsys.readouterr()
    assert offline(labelled, toy_model_dir, "beta=250.0") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "config.beta was 500.0, is 250.0" in error
    assert "inputs.preferences/toy.jsonl was" in error
    assert read_only(labelled.run("first")) == before


def test_f30_a_run_that_was_cut_does_not_go_on_with_other_data(labelled: Project, toy_model_dir: Path, capsys):
    """As if it had been cut after its last checkpoint; then a row of the preferences is gone, or a pair has moved."""
    offline(labelled, toy_model_dir)
    for name in ("stamp.json", "summary.json", "adapter.safetensors"):
        (labelled.run("first") / name).unlink()
    before = read_only(labelled.run("first"))
    for path, named in (
        (labelled.preferences("toy"), "inputs.preferences/toy.jsonl was"),
        (labelled.pairs("toy") / "pairs.jsonl", "inputs.pairs/toy was"),
    ):
        whole = path.read_text(encoding="utf-8")
        lines = whole.splitlines(keepends=True)
        path.write_text("".join([*lines[1:], *(lines[:1] if path.name == "pairs.jsonl" else [])]), encoding="utf-8")
        capsys.readouterr()
        assert offline(labelled, toy_model_dir) == 2
        assert named in capsys.readouterr().err
        assert read_only(labelled.run("first")) == before
        path.write_text(whole, encoding="utf-8")
    assert offline(labelled, toy_model_dir) == 0


def test_stale_preferences_are_refused_until_told_otherwise(labelled: Project, toy_model_dir: Path, capsys):
    write_stamp(labelled.preferences("toy"), [labelled.pairs("toy")], labelled)
    path = labelled.pairs("toy") / "pairs.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert offline(labelled, toy_model_dir) == 2
    assert "pairs/toy changed" in capsys.readouterr().err
    assert not labelled.run("first").exists()
    assert offline(labelled, toy_model_dir, more=("--allow-stale",)) == 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("Beta=1", "unknown key"),
        ("no_such=1", "unknown key; the keys are objective"),
        ("num_steps=0", "num_steps"),
        ('lora_targets=["nothing"]', "no layer of the denoiser is called nothing"),
    ],
)
def test_bad_settings_are_one_line(labelled: Project, toy_model_dir: Path, capsys, setting: str, message: str):
    assert offline(labelled, toy_model_dir, setting) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error


def test_missing_preferences_are_named(labelled: Project, toy_model_dir: Path, capsys):
    assert offline(labelled, toy_model_dir, preferences="absent") == 2
    assert "preferences/absent.jsonl does not exist" in capsys.readouterr().err


def test_latents_that_are_no_safetensors_are_refused(labelled: Project, toy_model_dir: Path, capsys):
    (labelled.pairs("toy") / "latents" / "pair-000.safetensors").write_bytes(b"\x80\x04K\x01.")  # a pickle of 1
    assert offline(labelled, toy_model_dir) == 2
    assert "pair-000.safetensors is not a readable safetensors file" in capsys.readouterr().err


def test_a_dry_run_says_what_it_will_take_and_writes_nothing(labelled: Project, toy_model_dir: Path, capsys):
    before = read_only(labelled.root)
    arguments = ["--pairs", "toy", "--preferences", "toy", "--model", str(toy_model_dir), "--dry-run"]
    with pytest.raises(SystemExit) as leaving:
        densedpo(["learn", "offline", "dry", *arguments, "--project", str(labelled.root), "--set", "batch_pairs=2"])
    assert leaving.value.code == 0
    said = capsys.readouterr().out
    assert "12 training and 6 validation pairs" in said
    assert "s a step" in said
    assert read_only(labelled.root) == before


def test_f12_two_clips_that_are_the_same_are_warned_of(labelled: Project, toy_model_dir: Path, caplog):
    from safetensors.torch import load_file, save_file

    path = labelled.pairs("toy") / "latents" / "pair-000.safetensors"
    clip = load_file(path)["a"]
    save_file({"a": clip, "b": clip.clone()}, path)
    assert offline(labelled, toy_model_dir) == 0
    assert "pair-000.safetensors: both clips are the same" in caplog.text


def test_sft_trains_on_the_real_clips(labelled: Project, toy_model_dir: Path):
    assert offline(labelled, toy_model_dir, "objective=sft", name="sft") == 0
    rows = [
        json.loads(line) for line in (labelled.run("sft") / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    train = [row for row in rows if row["split"] == "train"]
    assert [row["num_items"] for row in train] == [4, 4]  # twice as many clips as pairs
    assert "accuracy" not in train[0]
    assert rows[-1]["frame_accuracy"] != 0.5
    made = json.loads((labelled.run("sft") / "run.json").read_text(encoding="utf-8"))
    assert "clips" in made["identity"]["inputs"]


def test_f03_a_run_that_diverges_stops_and_says_so(labelled: Project, toy_model_dir: Path, capsys):
    settings = ("learning_rate=1e30", "num_steps=30", "eval_every=0", "max_skipped_steps=3", "warmup_steps=0")
    assert offline(labelled, toy_model_dir, *settings) == 2
    assert "not finite in 3 steps in a row" in capsys.readouterr().err
    quarantined = (labelled.run("first") / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(quarantined) == 3
    assert all(len(json.loads(line)["ids"]) == 2 for line in quarantined)
    assert offline(labelled, toy_model_dir, *settings) == 2  # again from the start: the same three, and no others
    again = (labelled.run("first") / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    assert again == quarantined


def test_early_stopping_keeps_the_best(labelled: Project, toy_model_dir: Path):
    """A learning rate that only does harm: the best adapter is the fresh one, and patience ends the run."""
    settings = ("learning_rate=3.0", "num_steps=40", "eval_every=1", "patience=3", "select=best_validation")
    assert offline(labelled, toy_model_dir, *settings, "beta=1e6", name="early") == 0
    summary = json.loads((labelled.run("early") / "summary.json").read_text(encoding="utf-8"))
    assert summary["steps"] < 40
    assert summary["steps"] - summary["selected_step"] == 3


def test_another_models_pairs_are_refused_before_torch_is_imported(
    labelled: Project, toy_model_dir: Path, tmp_path: Path
):
    import shutil

    other = tmp_path / "other"
    shutil.copytree(toy_model_dir, other)
    config = other / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    code = (
        "import sys; from densedpo.cli.main import run\n"
        "try: run(sys.argv[1:])\n"
        "except SystemExit as leaving: assert leaving.code == 2, leaving.code\n"
        "assert 'torch' not in sys.modules"
    )
    arguments = ["learn", "offline", "r", "--pairs", "toy", "--preferences", "toy", "--model", str(other)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--project", str(labelled.root)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "made by another model" in done.stderr


def test_f36_two_writers_cannot_share_a_run(labelled: Project, toy_model_dir: Path, capsys, toy_model: VideoModel):
    from densedpo.core.workspace import writing

    with writing(labelled.run("first")):
        assert offline(labelled, toy_model_dir) == 2
    assert "is being written by another process" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (['lora_targets=["to_q","nothing"]'], "no layer of the denoiser is called nothing"),
        (["train=full", 'trainable=["blocks.0.*","motion.*"]'], "no weight of the denoiser matches 'motion.*'"),
    ],
)
def test_f14_layers_that_the_model_lacks_are_refused_before_it_is_loaded(
    labelled: Project, toy_model_dir: Path, capsys, monkeypatch: pytest.MonkeyPatch, settings: list[str], message: str
):
    def never(*args, **kwargs):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(catalogue, "load", never)
    whole = [setting for setting in FEW if not setting.startswith("lora_rank")] if "train=full" in settings else FEW
    monkeypatch.setattr(sys.modules[__name__], "FEW", whole)
    assert offline(labelled, toy_model_dir, *settings) == 2
    assert message in capsys.readouterr().err
    assert not labelled.run("first").exists()


def test_f28_a_folder_that_cannot_be_written_is_refused_before_the_model_is_loaded(
    labelled: Project, toy_model_dir: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    """Root may write anywhere, so the disk is played; the model is made one that fails to load."""
    (labelled.root / "runs").mkdir(exist_ok=True)
    make = Path.mkdir

    def refused(path: Path, *args, **kwargs) -> None:
        if path == labelled.run("first"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        make(path, *args, **kwargs)

    def never(*args, **kwargs):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(Path, "mkdir", refused)
    monkeypatch.setattr(catalogue, "load", never)
    assert offline(labelled, toy_model_dir) == 2
    assert "not allowed to write" in capsys.readouterr().err
