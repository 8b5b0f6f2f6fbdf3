"""Clips that cannot be scored are listed with the reason, counted, and on request refused; none is skipped silently."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from densedpo.core.errors import BadInput
from densedpo.core.media import write_mp4
from densedpo.core.workspace import Project
from densedpo.measure.plan import MeasurePlan, RealClip
from densedpo.measure.records import read_measured
from densedpo.measure.run import measure
from densedpo.measure.sample import clip_source
from densedpo.world.render import render
from measure_example import make_project, plan_for, rendered, scene_of

Spoil = Callable[[Path], None]


def clip(num_frames: int = 33, side: int = 64) -> np.ndarray:
    return np.full((num_frames, side, side, 3), 90, np.uint8)


def _cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _picture(path: Path) -> None:
    _, png = cv2.imencode(".png", clip()[0])
    path.write_bytes(png.tobytes())


def _rewrite(num_frames: int, side: int, fps: float) -> Spoil:
    return lambda path: write_mp4(path, clip(num_frames, side), fps=fps, pixel_scale=2)


# what is wrong with a video -> how to make it so, and what the report says
BROKEN: dict[str, tuple[Spoil, str]] = {
    "missing": (Path.unlink, "no video at clips/videos/"),
    "empty": (lambda path: path.write_bytes(b"") and None, "clips/videos/"),
    "text": (lambda path: path.write_text("hello") and None, "clips/videos/"),
    "a web page": (lambda path: path.write_text("<!doctype html><title>404</title>") and None, "clips/videos/"),
    "noise": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)) and None, "clips/videos/"),
    "half a file": (lambda path: _cut(path, 0.5), ""),
    "a header": (lambda path: _cut(path, 0.05), "clips/videos/"),
    "a folder": (_folder, "clips/videos/"),
    "a picture": (_picture, "clips/videos/"),
    "too short": (_rewrite(9, 64, 8.0), "9 frames of 64x64 instead of 33 of 64x64"),
    "too small": (_rewrite(33, 32, 8.0), "33 frames of 32x32 instead of 33 of 64x64"),
    "too fast": (_rewrite(33, 64, 16.0), "16 frames per second instead of 8"),
}


@pytest.fixture
def spoilt(tmp_path: Path) -> tuple[Project, MeasurePlan]:
    """The truth of thirteen prompts, of which the last clip alone is whole."""
    project = make_project(tmp_path / "p", num_prompts=len(BROKEN) + 1)
    plan = plan_for(project, "truth", source="truth")
    folder = project.clips / "videos"
    folder.mkdir()
    clips = {}
    for prompt in plan.prompts:
        video = folder / f"{prompt.id}.mp4"
        write_mp4(video, render(scene_of(prompt)), fps=8.0, pixel_scale=2)
        clips[prompt.id] = RealClip(latents=video, video=video, pixel_scale=2)
    for prompt, (spoil, _) in zip(plan.prompts, BROKEN.values(), strict=False):
        spoil(clips[prompt.id].video)
    return project, replace(plan, clips=clips, dtype=None)


def test_every_broken_video_is_listed_with_what_is_wrong(spoilt: tuple[Project, MeasurePlan]) -> None:
    project, plan = spoilt
    report = measure(plan, clip_source(plan))
    coverage = report.coverage
    assert (coverage.num_clips, coverage.num_scored) == (len(BROKEN) + 1, 1)
    assert coverage.share == pytest.approx(1 / 13)
    said = {clip.prompt_id: clip.fault for clip in coverage.excluded}
    for prompt, (name, (_, words)) in zip(plan.prompts, BROKEN.items(), strict=False):
        assert words in said[prompt.id] and said[prompt.id], name
        assert str(project.root) not in said[prompt.id]
    motion = report.estimates["object_motion"]
    assert motion is not None and (motion.n, motion.num_excluded) == (1, len(BROKEN))
    measured = read_measured(project, "truth")
    assert sum(score.video is None for score in measured.scores) == len(BROKEN)
    assert json.loads((project.report("truth") / "report.json").read_text())["coverage"]["num_scored"] == 1


def test_strict_refuses_after_the_report_is_written(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p", num_prompts=2)
    source = rendered(blur=0.3, waver=0.0, salt=0)

    def loses_frames(tasks):
        for made in source(tasks):
            yield replace(made, frames=made.frames[:20]) if made.task.prompt.id == "w0001" else made

    plan = replace(plan_for(project, "base"), strict=True)
    with pytest.raises(BadInput, match=r"strict: 1 of 2 clips were not scored, such as prompt 'w0001': 20 frames of"):
        measure(plan, loses_frames)
    assert read_measured(project, "base").report.coverage.num_scored == 1
    with pytest.raises(BadInput, match="strict"):  # and says so again, without measuring again
        measure(plan, lambda tasks: iter(()))


def test_a_report_is_not_finished_by_other_machinery(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p", num_prompts=1)
    source = rendered(blur=0.3, waver=0.0, salt=0)
    measure(plan_for(project, "base"), source)
    path = project.report("base") / "plan.json"
    begun = json.loads(path.read_text())
    path.write_text(json.dumps({**begun, "manifest": {**begun["manifest"], "dtype": "bfloat16"}}))
    with pytest.raises(BadInput, match="was measured with another dtype"):
        measure(plan_for(project, "base"), source)


def test_a_later_commit_may_finish_a_report_which_then_names_both(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project = make_project(tmp_path / "p", num_prompts=1)
    source = rendered(blur=0.3, waver=0.0, salt=0)
    now = measure(plan_for(project, "base"), source).manifest.code or "installed"
    path = project.report("base") / "plan.json"
    begun = json.loads(path.read_text())
    path.write_text(json.dumps({**begun, "manifest": {**begun["manifest"], "code": "a" * 40}}))
    assert measure(plan_for(project, "base"), source).manifest.code == f"{'a' * 40} and {now}"
    assert "the report names both" in caplog.text
