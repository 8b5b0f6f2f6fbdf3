"""Diversity over the seeds of a prompt, from the videos of a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from densedpo.measure.diversity import fill_diversity
from densedpo.measure.records import SCORES_FILE, read_measured
from densedpo.measure.run import ClipSource, ClipTask, MadeClip, measure
from densedpo.measure.score import DIVERSITY
from densedpo.world.render import render
from measure_example import make_project, plan_for, scene_of


def placed(*, spread: float) -> ClipSource:
    """Clips of the first frames of a scene whose path is shifted more, the larger the number of the seed."""

    def make(tasks: Sequence[ClipTask]) -> Iterator[MadeClip]:
        for task in tasks:
            scene = scene_of(task.prompt)
            frames = render(replace(scene, offset_x=0.0, phase=(scene.phase + spread * task.number) % 1.0))
            yield MadeClip(task=task, frames=np.roll(frames, round(20 * spread * task.number), axis=2))

    return make


def test_the_report_has_the_diversity_of_several_seeds(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", num_prompts=2)
    found = {}
    for name, spread in (("same", 0.0), ("near", 0.2), ("far", 0.5)):
        estimate = measure(plan_for(project, name, seeds=3), placed(spread=spread)).estimates[DIVERSITY]
        assert estimate is not None
        assert (estimate.n, estimate.num_values, estimate.num_excluded) == (2, 6, 0)
        found[name] = estimate.value
    assert found["same"] == 0
    assert 0.5 < found["near"] < found["far"]


def test_one_seed_has_none_and_it_is_not_0(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", num_prompts=2)
    report = measure(plan_for(project, "base"), placed(spread=0.3))
    assert report.estimates[DIVERSITY] is None
    assert {score.values[DIVERSITY] for score in read_measured(project, "base").scores} == {None}


def test_a_clip_that_was_left_out_is_in_no_distance(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", num_prompts=1)

    def source(tasks: Sequence[ClipTask]) -> Iterator[MadeClip]:
        for clip in placed(spread=0.3)(tasks):
            yield replace(clip, frames=None, fault="torn") if clip.task.number == 1 else clip

    measure(plan_for(project, "base", seeds=3), source)
    values = {score.number: score.values[DIVERSITY] for score in read_measured(project, "base").scores}
    assert values[1] is None
    assert values[0] == pytest.approx(values[2])
    assert values[0] is not None and values[0] > 0


def test_filling_again_changes_nothing(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", num_prompts=1)
    measure(plan_for(project, "base", seeds=2), placed(spread=0.3))
    path = project.report("base") / SCORES_FILE
    before = path.read_bytes()
    fill_diversity(path, pixel_scale=2)
    assert path.read_bytes() == before
