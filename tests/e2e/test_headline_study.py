"""A whole study at the smallest size: from the world's clips to the files of results, and again without making anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from study_modules import study_modules

STUDY = """
model = "{model}"
seeds = [0]
learn = {{ num_steps = 2, warmup_steps = 1, batch_pairs = 2, eval_every = 0, min_non_tie_share = 0.0 }}
measure = {{ num_prompts = 2, num_steps = 2 }}
diversity = {{ num_prompts = 1, num_steps = 2, seeds_per_prompt = 2 }}
matching = {{ arm = "vanilla_dpo" }}
contrasts = [["dense_dpo", "vanilla_dpo"]]
claims = [{{ arm = "dense_dpo", metric = "visual_quality", expect = "matches", over = "vanilla_dpo" }}]

[data.world]
num_clips = 12
num_held_out = 2

[pairs.guided]
kind = "guided"
num_pairs = 8
num_steps = 4
eta_min = 0.3
eta_max = 0.4

[pairs.independent]
kind = "independent"
num_pairs = 8
num_steps = 2

# the oracle finds all clips of a random model alike: nothing would be left to train on
[labels.segments]
pairs = "guided"
num_pairs = 4
judge = {{ kind = "reference", margin = 0.0 }}

[labels.clips]
pairs = "independent"
judge = {{ kind = "reward", margin = 0.0, segment_seconds = 4.125 }}

[arms.vanilla_dpo]
labels = "clips"
learn = {{ objective = "dpo" }}

[arms.dense_dpo]
labels = "segments"
"""


@pytest.mark.slow
def test_a_study_runs_to_its_results_and_makes_nothing_twice(tmp_path: Path, toy_model_dir_64: Path):
    file = tmp_path / "study.toml"
    file.write_text(STUDY.format(model=toy_model_dir_64))
    reports: list[dict] = []
    with study_modules("headline") as modules:
        study, by = modules["study"].load_study(file), modules["reduction"].Reduction()
        project = modules["command"].open_project(tmp_path / "project")
        collect, write = modules["results"].collect_results, modules["results"].write_results

        def after_round(finished, annotators):
            reports.append(collect(project, study, finished, name="study", by=by, annotators=annotators))
            write(reports[-1], study, tmp_path / "results")

        modules["run"].run_study(project, study, only=None, after_round=after_round)
        made = {path: path.stat().st_mtime_ns for path in project.root.rglob("*.safetensors")}
        modules["run"].run_study(project, study, only=None, after_round=after_round)
    assert {path: path.stat().st_mtime_ns for path in project.root.rglob("*.safetensors")} == made
    report, written = reports[1], json.loads((tmp_path / "results" / "results.json").read_text())
    assert report == written
    assert {**reports[0], "made": None} == {**report, "made": None}
    assert set(report["against_base"]) == set(study.arms)
    assert report["against_base"]["dense_dpo"]["diversity"]["value"] is not None
    assert [run["arm"] for run in report["runs"]] == list(study.arms)
    assert {(row["name"], row["of"]) for row in report["motion_bias"]} == {
        *((name, label) for name in ("MB1", "MB2") for label in study.labels),
        ("MB7", "guided against independent"),
    }
    assert 4 <= report["labels"]["segments"]["num_pairs"] < 8
    assert report["claims"][0]["answer"] in ("holds", "does not hold", "not shown", "cannot be tested")
