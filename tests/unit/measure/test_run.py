"""`measure run` without a model: rendered clips stand in for generated ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from densedpo.core.errors import BadInput
from densedpo.core.workspace import Project, stale_inputs
from densedpo.measure.records import read_measured
from densedpo.measure.run import ClipTask, MadeClip, measure
from densedpo.measure.score import METRICS
from measure_example import make_project, plan_for, rendered

SOURCE = rendered(blur=0.3, waver=0.0, salt=0)


@pytest.fixture
def small(tmp_path: Path) -> Project:
    return make_project(tmp_path / "project", num_prompts=3)


def test_report_has_n_interval_method_and_seed_for_every_number(small: Project) -> None:
    report = measure(plan_for(small, "base", seeds=2), SOURCE)
    assert set(report.estimates) == {metric.key for metric in METRICS}
    for estimate in report.estimates.values():
        assert estimate is not None
        assert (estimate.n, estimate.num_values, estimate.num_excluded, estimate.seed) == (3, 6, 0, 0)
        assert estimate.low is not None and estimate.high is not None and estimate.method
    row = json.loads((small.report("base") / "report.json").read_text())
    assert row["estimates"]["visual_quality"]["n"] == 3
    assert row["made"]["python"]
    assert stale_inputs(small.report("base"), small) == []


def test_reading_back_gives_the_scores_and_videos(small: Project) -> None:
    report = measure(plan_for(small, "base"), SOURCE)
    measured = read_measured(small, "base")
    assert measured.report == report
    assert {score.key for score in measured.scores} == {("w0000", 0), ("w0001", 0), ("w0002", 0)}
    assert all((measured.folder / score.video).is_file() for score in measured.scores)


def test_without_a_scene_the_oracle_is_not_computed_and_motion_is(small: Project) -> None:
    plan = plan_for(small, "base")
    unknown = {prompt.id: replace(prompt, scene=None) for prompt in plan.prompts}

    def source(tasks: Sequence[ClipTask]) -> Iterator[MadeClip]:
        known = [ClipTask(prompt=p, number=0) for p in plan.prompts]
        for clip in SOURCE(known):
            yield replace(clip, task=ClipTask(prompt=unknown[clip.task.prompt.id], number=0))

    report = measure(replace(plan, prompts=tuple(unknown.values())), source)
    assert report.estimates["visual_quality"] is None
    motion = report.estimates["object_motion"]
    assert motion is not None and motion.value > 0


def test_a_cut_measurement_goes_on_and_ends_alike(small: Project) -> None:
    asked: list[int] = []

    class Cut(Exception):
        pass

    def dies_after_two(tasks: Sequence[ClipTask]) -> Iterator[MadeClip]:
        for i, clip in enumerate(SOURCE(tasks)):
            if i == 2:
                raise Cut
            yield clip

    def counts(tasks: Sequence[ClipTask]) -> Iterator[MadeClip]:
        asked.append(len(tasks))
        return SOURCE(tasks)

    with pytest.raises(Cut):
        measure(plan_for(small, "cut"), dies_after_two)
    with (small.report("cut") / "scores.jsonl").open("a") as file:
        file.write('{"prompt_id": "w00')  # as kill -9 in mid-write leaves it
    resumed = measure(plan_for(small, "cut"), counts)
    whole = measure(plan_for(small, "whole"), SOURCE)
    assert asked == [1]
    assert resumed.estimates == whole.estimates


def test_another_seed_under_the_same_name_is_refused(small: Project) -> None:
    measure(plan_for(small, "base"), SOURCE)
    with pytest.raises(BadInput, match="measured with another seed; use another name"):
        measure(plan_for(small, "base", seed=1), SOURCE)


def test_reports_that_are_missing_or_torn_are_refused_by_name(small: Project) -> None:
    with pytest.raises(BadInput, match=r"no report at reports/base/report\.json"):
        read_measured(small, "base")
    measure(plan_for(small, "base"), SOURCE)
    scores = small.report("base") / "scores.jsonl"
    scores.write_text("".join(scores.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(BadInput, match="holds 2 clips and its report counts 3"):
        read_measured(small, "base")


def test_the_same_clips_in_another_order_give_the_same_bytes(tmp_path: Path) -> None:
    def backwards(tasks: Sequence[ClipTask]) -> Iterator[MadeClip]:
        return iter(list(SOURCE(tasks))[::-1])

    written = []
    for name, source in (("one", SOURCE), ("two", backwards)):
        project = make_project(tmp_path / name, num_prompts=3)
        measure(plan_for(project, "base"), source)
        written.append((project.report("base") / "report.json").read_bytes())
    assert written[0] == written[1]


def test_the_report_says_what_made_and_scored_its_clips(small: Project) -> None:
    row = json.loads((_measured(small) / "report.json").read_text())
    manifest = row["manifest"]
    assert manifest["decoder"].startswith("PyAV ") and "libavcodec" in manifest["decoder"]
    assert (manifest["dtype"], manifest["device"], manifest["gpu"]) == ("float32", "cpu", None)
    assert {"torch", "numpy", "opencv-python-headless"} <= manifest["packages"].keys()
    assert {"densedpo", "code"} <= manifest.keys()
    assert (row["settings"]["fps"], row["settings"]["height"], row["settings"]["pixel_scale"]) == (8.0, 64, 2)
    assert row["subject"]["model"] and row["coverage"]["num_scored"] == 3


def test_a_report_without_a_manifest_is_refused(small: Project) -> None:
    path = _measured(small) / "report.json"
    row = json.loads(path.read_text())
    del row["manifest"]
    path.write_text(json.dumps(row))
    with pytest.raises(BadInput, match="written by an older densedpo, without a manifest"):
        read_measured(small, "base")


def _measured(project: Project) -> Path:
    measure(plan_for(project, "base"), SOURCE)
    return project.report("base")
