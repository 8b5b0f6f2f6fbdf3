"""`measure run` with a real model at toy size: what is sampled, and what is refused before."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from densedpo import adapters
from densedpo.core.errors import BadInput
from densedpo.core.media import read_mp4, write_mp4
from densedpo.core.records import Pair, Prompt, read_jsonl, to_row, write_jsonl
from densedpo.core.workspace import Project, append_jsonl, write_stamp
from densedpo.measure.config import MeasureConfig
from densedpo.measure.plan import MeasurePlan, plan_measurement
from densedpo.measure.records import RunReport, read_measured
from densedpo.measure.run import measure
from densedpo.measure.sample import clip_source
from toy import add_lora, add_toy_clips, toy_frames, toy_scene

NUM_CLIPS = 3
STEPS = 2


@pytest.fixture
def filled(project: Path, toy_model_dir: Path) -> Project:
    """A project with three clips, all of the validation split."""
    add_toy_clips(project, adapters.load(toy_model_dir), NUM_CLIPS, splits=("validation",))
    return Project(root=project)


def plan(project: Project, name: str, model: Path, run: str | None = None, **settings: object) -> MeasurePlan:
    given = {"split": "validation", "num_prompts": NUM_CLIPS, **settings}
    if given.get("source", "model") == "model":
        given.setdefault("num_steps", STEPS)
    return plan_measurement(project, name, model=model, run=run, config=MeasureConfig.model_validate(given))


def measured(project: Project, name: str, model: Path, run: str | None = None, **settings: object) -> RunReport:
    made = plan(project, name, model, run, **settings)
    return measure(made, clip_source(made))


def frames_of(project: Project, name: str) -> dict[tuple[str, int], np.ndarray]:
    report = read_measured(project, name)
    scale = report.report.settings.pixel_scale
    return {s.key: read_mp4(report.folder / s.video, pixel_scale=scale)[0] for s in report.scores}


def mean_difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def add_run(project: Project, model_dir: Path, name: str, pairs: list[Pair]) -> None:
    """A run whose adapter differs from nothing, trained on pairs."""
    folder, of_pairs = project.run(name), project.pairs("p")
    folder.mkdir(parents=True)
    of_pairs.mkdir(parents=True, exist_ok=True)
    write_jsonl(of_pairs / "pairs.jsonl", pairs)
    model = adapters.load(model_dir)
    add_lora(model)
    model.save_adapter(folder / "adapter.safetensors")
    (folder / "config.toml").write_text("")
    write_stamp(folder, [of_pairs], project)


def pair_of(prompt: Prompt, split: str) -> Pair:
    return Pair(
        id=f"pair-{prompt.id}", kind="guided", prompt_id=prompt.id, clip_id=prompt.clip_id, caption=prompt.caption,
        split=split, eta=0.7, noise_key_a="a", noise_key_b="b", seed=0, num_steps=STEPS, guidance_scale=1.0, model="m",
        num_frames=9, fps=8.0, height=32, width=32, pixel_scale=2, video="v", latents="l",
    )  # fmt: skip


def test_batches_do_not_change_the_clips(filled: Project, toy_model_dir: Path) -> None:
    one = measured(filled, "together", toy_model_dir, batch_clips=3)
    other = measured(filled, "alone", toy_model_dir, batch_clips=1)
    # a level of 255 may fall to the other side of a rounding, which the flow of such noise is not smooth in
    for key in ("saturation", "contrast", "flicker"):
        estimate, again = one.estimates[key], other.estimates[key]
        assert estimate is not None and again is not None
        assert again.value == pytest.approx(estimate.value, rel=1e-3)
    together, alone = frames_of(filled, "together"), frames_of(filled, "alone")
    keys = list(together)
    assert keys == list(alone)
    for key in keys:
        assert mean_difference(together[key], alone[key]) < 0.5  # levels of 255; the videos are compressed
    assert mean_difference(together[keys[0]], together[keys[1]]) > 5


def test_a_clip_of_another_size_than_the_oracle_reads_is_not_computed(filled: Project, toy_model_dir: Path) -> None:
    report = measured(filled, "base", toy_model_dir)
    assert report.estimates["text_alignment"] is None
    assert report.estimates["object_motion"] is not None


def test_the_adapter_of_a_run_changes_the_clips_and_is_named(filled: Project, toy_model_dir: Path) -> None:
    add_run(filled, toy_model_dir, "dense", [])
    measured(filled, "base", toy_model_dir)
    report = measured(filled, "tuned", toy_model_dir, "dense")
    assert report.subject.run == "dense"
    assert report.subject.adapter
    assert "--run dense" in report.command
    base, tuned = frames_of(filled, "base"), frames_of(filled, "tuned")
    assert base.keys() == tuned.keys()
    assert any((base[key] != tuned[key]).any() for key in base)


def test_seeds_of_a_prompt_are_different_clips(filled: Project, toy_model_dir: Path) -> None:
    measured(filled, "base", toy_model_dir, num_prompts=1, seeds_per_prompt=2)
    first, second = frames_of(filled, "base").values()
    assert (first != second).any()


def test_the_ceiling_is_the_cached_latents_decoded(filled: Project, toy_model_dir: Path) -> None:
    report = measured(filled, "ceiling", toy_model_dir, source="autoencoder")
    assert report.subject.source == "autoencoder"
    assert report.settings.num_steps is None


def test_damaged_latents_are_listed_and_the_rest_of_the_batch_is_measured(filled: Project, toy_model_dir: Path) -> None:
    made = plan(filled, "ceiling", toy_model_dir, source="autoencoder")
    spoilt = made.prompts[1].id
    made.clips[spoilt].latents.write_bytes(b"no tensors")
    report = measure(made, clip_source(made))
    assert [(clip.prompt_id, clip.fault[:27]) for clip in report.coverage.excluded] == [
        (spoilt, "its latents cannot be read ")
    ]
    assert report.coverage.num_scored == NUM_CLIPS - 1


def test_truth_is_the_videos_themselves(filled: Project, toy_model_dir: Path) -> None:
    (filled.clips / "videos").mkdir()
    truth = [toy_frames(toy_scene(i)) for i in range(NUM_CLIPS)]
    for i, frames in enumerate(truth):
        write_mp4(filled.clips / "videos" / f"clip-{i:04d}.mp4", frames, fps=8.0, pixel_scale=2)
    measured(filled, "truth", toy_model_dir, source="truth")
    found = frames_of(filled, "truth")
    for i, frames in enumerate(truth):
        assert mean_difference(found[(f"prompt-{i:04d}", 0)], frames) < 2


def test_prompts_that_the_run_was_trained_on_are_refused(filled: Project, toy_model_dir: Path) -> None:
    prompts = read_jsonl(filled.clips / "prompts.jsonl", Prompt)
    add_run(filled, toy_model_dir, "fine", [pair_of(prompts[0], "validation")])
    plan(filled, "tuned", toy_model_dir, "fine")
    append_jsonl(filled.pairs("p") / "pairs.jsonl", to_row(pair_of(prompts[1], "train")))
    write_stamp(filled.run("fine"), [filled.pairs("p")], filled)
    with pytest.raises(BadInput, match=rf"1 of the prompts to measure, such as {prompts[1].id!r}, are in pairs/p"):
        plan(filled, "tuned", toy_model_dir, "fine")


def test_what_cannot_be_measured_is_refused(filled: Project, toy_model_dir: Path) -> None:
    with pytest.raises(BadInput, match="runs/none does not exist"):
        plan(filled, "x", toy_model_dir, "none")
    with pytest.raises(BadInput, match="no prompts in held_out"):
        plan(filled, "x", toy_model_dir, split="held_out")
    with pytest.raises(BadInput, match="cannot name an artefact"):
        plan(filled, "../x", toy_model_dir)
    with pytest.raises(BadInput, match="measures no adapter"):
        plan(filled, "x", toy_model_dir, "none", source="autoencoder")
    with pytest.raises(ValueError, match="num_steps has no effect"):
        MeasureConfig(source="truth", num_steps=4)
    filled.run("cut").mkdir(parents=True)
    with pytest.raises(BadInput, match=r"run 'cut' has no adapter\.safetensors: it is unfinished"):
        plan(filled, "x", toy_model_dir, "cut")


def test_captions_that_are_kept_need_no_text_encoder(
    filled: Project, toy_model_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="densedpo")

    def loads(name: str, **settings: object) -> list[str]:
        caplog.clear()
        measured(filled, name, toy_model_dir, **settings)
        return sorted(record.args[0] for record in caplog.records if record.msg == "loading %s")

    assert loads("first") == ["text_encoder", "transformer", "vae"]
    assert loads("second", seed=1) == ["transformer", "vae"]
