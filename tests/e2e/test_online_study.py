"""The study of online runs at the smallest size: from the world's clips to its table, and again without making anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from study_modules import study_modules

# the shipped reward tells the clips of a random model apart, which the oracle finds alike
STUDY = """
model = "{model}"
seeds = [0, 1]
metrics = ["visual_quality", "object_motion", "flicker"]
contrasts = [["online", "offline"]]
claims = [{{ arm = "online", against = "offline", metric = "flicker", goal = "lower" }}]
data = {{ num_clips = 24, num_held_out = 2 }}
measure = {{ num_prompts = 2, num_steps = 2 }}

[online]
num_rounds = 2
prompts_per_round = 1
rollouts = 2
sampler_steps = 2
steps_per_round = 1
refresh_every = 1
margin = 0.0
max_empty_rounds = 9
rewards = [{{ judge = "reward" }}]
learn = {{ objective = "dpo", batch_pairs = 1 }}
guard = {{ every = 2, num_prompts = 1, judge = {{ judge = "oracle" }} }}

[arms.online]

[arms.offline]
num_rounds = 1
prompts_per_round = 2
steps_per_round = 2
refresh_every = 0
guard = {{ every = 1 }}
"""


@pytest.mark.slow
def test_every_arm_runs_to_the_table_and_nothing_is_made_twice(tmp_path: Path, toy_model_dir_64: Path) -> None:
    file, out = tmp_path / "study.toml", tmp_path / "project"
    file.write_text(STUDY.format(model=toy_model_dir_64))
    command = ["--study", str(file), "--out", str(out), "--processes", "1", "--seeds", "0"]
    with study_modules("online") as modules:
        modules["run"].main(command)
        first = json.loads((out / "results" / "results.json").read_text())
        made = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
        modules["run"].main(command)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == made

    report = json.loads((out / "results" / "results.json").read_text())
    assert {**report, "made": None} == {**first, "made": None}
    assert report["seeds"] == [0]
    assert [(row["arm"], [look["round"] for look in row["looks"]]) for row in report["runs"]] == [
        ("online", [0, 2]),
        ("offline", [0, 1]),
    ]
    for row in (report["base"], *report["against_base"].values(), report["contrasts"][0]["metrics"]):
        assert set(row) == {"visual_quality", "object_motion", "flicker"}
    assert set(report["against_base"]["online"]["flicker"]["by_seed"]) == {"0"}
    assert [row["judged_clips"] for row in report["rounds"]] == [4, 4]
    assert [(row["rounds"], row["steps"]) for row in report["rounds"]] == [(2, 2), (1, 2)]
    assert [row["sampling_passes"] for row in report["rounds"]] == [16, 16]  # 4 clips, 2 steps, guidance
    goes = report["contrasts"][0]["metrics"]["flicker"]["goes"]
    assert [row["answer"] for row in report["claims"]] == [{"down": "holds", "up": "does not hold"}.get(goes, goes)]
    assert report["study"]["claims"][0]["metric"] == "flicker"
    text = (out / "results" / "table.md").read_text()
    assert "| online less offline |" in text
    assert "| online has lower flicker than offline |" in text
