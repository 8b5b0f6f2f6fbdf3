"""HuViDPO's two stages by one file: chosen weights learn from real clips, then a LoRA on top learns preferences."""

from __future__ import annotations

import json
from importlib.resources import as_file, files
from pathlib import Path

import pytest
import torch

from command_line import densedpo, settings
from densedpo.adapters import VideoModel, load
from densedpo.adapters.trained import fingerprint_with, load_trained, trained_file
from densedpo.core.config import load_config
from densedpo.core.errors import BadInput
from densedpo.core.media import write_mp4
from densedpo.core.records import Clip, Pair, Preference, read_jsonl, write_jsonl
from densedpo.core.workspace import Project, init_project
from densedpo.learn.config import LearnConfig
from densedpo.learn.feed.batch import Draws, Source
from densedpo.learn.feed.inputs import read_clips
from densedpo.learn.feed.order import TimeDensity, Visit
from densedpo.learn.full import train_all
from densedpo.learn.reference import adapters_off
from densedpo.learn.release.formats import release
from densedpo.learn.run import learn_offline
from densedpo.learn.stages import StagesConfig
from densedpo.learn.task.sft import SftTask
from toy import add_toy_clips, toy_frames, toy_scene
from toy_families import ANIMATEDIFF
from toy_pairs import read_only

CHOSEN = ("*motion_modules*", "*.attentions.*attn1.to_q*")
STAGES = """
[first]
objective = "sft"
train = "full"
trainable = ["*motion_modules*", "*.attentions.*attn1.to_q*"]
eval_every = 0
num_steps = 2
batch_pairs = 1
learning_rate = 1e-2
warmup_steps = 0
checkpoint_every = 1

[second]
objective = "dpo"
beta = 50.0
eval_every = 0
num_steps = 2
batch_pairs = 1
lora_rank = 2
learning_rate = 1e-2
warmup_steps = 0
"""


def run(*words: str | Path) -> str:
    done = densedpo(*words)
    assert done.code == 0, done.err
    return done.out


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Project]:
    """Both stages as a user runs them: the first, pairs of its model with labels, and the same command again."""
    root = tmp_path_factory.mktemp("stages")
    model = ANIMATEDIFF.save(root / "model")
    (model / "densedpo.json").write_text(json.dumps({**ANIMATEDIFF.settings, "first_frame": True}), encoding="utf-8")
    project = init_project(root / "project")
    add_toy_clips(project.root, load(model), 3, splits=("train", "train", "held_out"))
    (project.clips / "videos").mkdir()
    for clip in read_jsonl(project.clips / "clips.jsonl", Clip):
        frames = toy_frames(toy_scene(int(clip.id[-4:])))
        write_mp4(project.clips / clip.video, frames, fps=clip.fps, pixel_scale=clip.pixel_scale)
    (root / "stages.toml").write_text(STAGES, encoding="utf-8")
    where = ("--model", model, "--project", project.root)
    command = ("learn", "stages", "h", *where, "--config", root / "stages.toml")
    assert "start_from=h-1" in run(*command)
    few = settings(num_pairs=2, num_steps=2, splits="['train']")
    run("generate", "independent", "p", *where, *few, "--set", "start_from=h-1")
    pairs = read_jsonl(project.pairs("p") / "pairs.jsonl", Pair)
    write_jsonl(
        project.preferences("q"),
        [
            Preference(pair_id=pair.id, split=pair.split, ranges=((0, 9),), labels=(1,), clip_label=1, num_judgements=1)
            for pair in pairs
        ],
    )
    assert "runs/h-2" in run(*command, "--pairs", "p", "--preferences", "q")
    return model, project


def weights(model: VideoModel) -> dict[str, torch.Tensor]:
    return {name.replace(".base_layer.", "."): each for name, each in model.denoiser.state_dict().items()}


def with_run(folder: Path, project: Project, run: str) -> VideoModel:
    model = load(folder)
    load_trained(model, trained_file(project.run(run)))
    return model


def test_the_first_stage_changes_the_chosen_weights_and_no_others(made: tuple[Path, Project]) -> None:
    folder, project = made
    before, after = weights(load(folder)), weights(with_run(folder, project, "h-1"))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all("motion_modules" in name or "attn1.to_q" in name for name in moved)
    # each group moved; positions in time are no weights, and what is behind a zero has no gradient at first
    assert any("motion_modules" in name for name in moved)
    assert any("motion_modules" not in name for name in moved)


def test_the_second_stage_leaves_them_and_its_reference_is_the_first_stage(made: tuple[Path, Project]) -> None:
    folder, project = made
    first, second = with_run(folder, project, "h-1"), with_run(folder, project, "h-2")
    ours, theirs = weights(first), weights(second)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    rows = [json.loads(line) for line in (project.run("h-2") / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] == pytest.approx(0.6931, abs=1e-4)

    clips = read_clips(project.clips, first.vae_fingerprint)
    draws = Draws(noise_seed=0, count="fresh", density=TimeDensity.of(LearnConfig()))
    batch = Source(first).clips(clips, [Visit(index=0, draw=0)], draws)
    with torch.no_grad():
        of_first, of_second = (model.predict(batch.latents, batch.t, batch.text) for model in (first, second))
        with adapters_off(second.denoiser):
            reference = second.predict(batch.latents, batch.t, batch.text)
    assert torch.equal(reference, of_first)
    assert not torch.equal(of_second, of_first)


def test_the_first_stage_learns_nothing_from_given_frames(made: tuple[Path, Project]) -> None:
    """The loss is the same whatever the clip's own first frame is: it is held by another, and left out."""
    folder, project = made
    model = load(folder)
    clips = read_clips(project.clips, model.vae_fingerprint)
    draws = Draws(noise_seed=0, count="fresh", density=TimeDensity.of(LearnConfig()))
    config = LearnConfig(objective="sft", eval_every=0, batch_pairs=1)
    losses = []
    for shift in (0.0, 5.0):
        source = Source(model)
        latents = source._read(clips[0].latents, ("latents",), model.geometry.latent_shape)["latents"]
        latents[:, 0] += shift
        with torch.no_grad():
            losses.append(SftTask(model, source, clips, draws, config).outcome([Visit(index=0, draw=0)]).loss)
    assert torch.equal(losses[0], losses[1])


def test_the_second_run_is_known_by_both_and_is_measured_compared_and_released(made: tuple[Path, Project]) -> None:
    folder, project = made
    where = ("--model", folder, "--project", project.root)
    (pair, *_) = read_jsonl(project.pairs("p") / "pairs.jsonl", Pair)
    assert pair.model == fingerprint_with(load(folder).fingerprint, trained_file(project.run("h-1")))
    run("measure", "run", "m", "--run", "h-2", *where, *settings(num_prompts=1, seeds_per_prompt=1, num_steps=2))
    run("generate", "arena", "h-1", "h-2", *where, *settings(num_pairs=1, num_steps=2))
    with pytest.raises(BadInput, match=r"for the weights of run 'h-1' and would not fit"):
        release(project, "h-2", "diffusers")
    card = (release(project, "h-1", "merged") / "README.md").read_text(encoding="utf-8")
    assert "The weights `*motion_modules*`, `*.attentions.*attn1.to_q*` of the denoiser" in card


def test_a_cut_first_stage_goes_on_to_the_same_bits(made: tuple[Path, Project], stop_before) -> None:
    folder, project = made
    given = {"pairs": None, "preferences": None, "model": folder}
    config = LearnConfig(
        objective="sft", train="full", trainable=CHOSEN, eval_every=0, num_steps=2, batch_pairs=1, learning_rate=1e-2,
        warmup_steps=0, checkpoint_every=1,
    )  # fmt: skip
    with stop_before(2):
        learn_offline(project, "cut", **given, config=config)
    learn_offline(project, "cut", **given, config=config)
    assert (project.run("cut") / "chosen.safetensors").read_bytes() == (
        project.run("h-1") / "chosen.safetensors"
    ).read_bytes()


def test_a_start_that_changed_or_is_an_adapter_or_the_run_itself_is_refused(made: tuple[Path, Project]) -> None:
    folder, project = made
    given = {"pairs": "p", "preferences": "q", "model": folder}
    for start, message in (("h-2", "has left an adapter"), ("x", "cannot start from itself"), ("no", "does not exist")):
        with pytest.raises(BadInput, match=message):
            learn_offline(project, "x", **given, config=LearnConfig(start_from=start, eval_every=0))
    base = project.run("h-2") / "base.json"
    row = json.loads(base.read_text())
    base.write_text(json.dumps({**row, "sha256": "0" * 64}))
    try:
        with pytest.raises(BadInput, match="started from run 'h-1', which has changed since"):
            with_run(folder, project, "h-2")
    finally:
        base.write_text(json.dumps(row, indent=2) + "\n")


def test_a_pattern_without_a_weight_and_patterns_for_a_lora_are_refused(toy_model_dir: Path) -> None:
    with pytest.raises(BadInput, match=r"no weight of the denoiser matches '\*motion_modules\*'"):
        train_all(load(toy_model_dir), LearnConfig(train="full", trainable=("*motion_modules*",)))
    with pytest.raises(ValueError, match="trainable has no effect with train = 'lora'"):
        LearnConfig(trainable=("*",))


def test_pairs_can_be_left_out_by_sft_without_evaluations_only(made: tuple[Path, Project]) -> None:
    folder, project = made
    for config in (LearnConfig(), LearnConfig(objective="sft")):
        with pytest.raises(BadInput, match="name --pairs and --preferences"):
            learn_offline(project, "x", pairs=None, preferences=None, model=folder, config=config)


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("h", ("--pairs", "p"), "name both or none"),
        ("h", ("--pairs", "p", "--preferences", "gone"), "gone.jsonl"),
        ("new", ("--pairs", "p", "--preferences", "q"), "runs/new-1 is not finished, so pairs/p cannot be its own"),
    ],
)
def test_a_second_stage_that_cannot_run_is_refused_before_the_first(
    made: tuple[Path, Project], name: str, more: tuple[str, ...], message: str
) -> None:
    folder, project = made
    before = read_only(project.root)
    given = ("--model", folder, "--project", project.root, "--config", project.root.parent / "stages.toml")
    done = densedpo("learn", "stages", name, *given, *more)
    assert (done.code, message in done.err) == (2, True), done.err
    assert read_only(project.root) == before


def test_the_recipe_has_the_released_values_and_runs_dry_on_toy_weights(made: tuple[Path, Project]) -> None:
    folder, project = made
    with as_file(files("densedpo.recipes") / "huvidpo.toml") as path:
        config = load_config(StagesConfig, path, [])
        before = read_only(project.root)
        out = run(
            "learn", "stages", "h", "--pairs", "p", "--preferences", "q", "--model", folder, "--project", project.root,
            "--config", path, "--dry-run",
        )  # fmt: skip
    assert (config.first.learning_rate, config.first.num_steps, config.first.seed) == (3e-5, 25000, 33)
    second = config.second
    assert (second.beta, second.lora_rank, second.lora_alpha, second.learning_rate) == (50.0, 16, 32.0, 1e-4)
    assert (second.weight_decay, second.adam_eps, second.clip_norm) == (1e-4, 1e-3, 1.0)
    assert [line.split(":")[0] for line in out.splitlines()] == ["h-1", "h-2"]
    assert read_only(project.root) == before


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("first.train=lora", "first trains weights on real clips"),
        ("second.objective=sft", "its objective cannot be 'sft'"),
        ("second.start_from=x", "leave out its start_from"),
    ],
)
def test_stages_that_do_not_fit_are_refused(setting: str, message: str) -> None:
    given = {"first.objective": "sft", "first.train": "full", "first.eval_every": "0", "second.eval_every": "0"}
    name, _, value = setting.partition("=")
    with pytest.raises(BadInput, match=message):
        load_config(StagesConfig, None, [f"{key}={value}" for key, value in (given | {name: value}).items()])
