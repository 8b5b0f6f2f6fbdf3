"""The study of HuViDPO at the smallest size: from the world's clips to its table, and again without making anew."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from densedpo.adapters import catalogue
from densedpo.adapters.layouts.wan import has_token_timesteps
from densedpo.core.config import load_config
from densedpo.core.errors import BadInput
from densedpo.core.records import Pair, Prompt, read_jsonl
from densedpo.core.workspace import Project
from densedpo.generate.first_frames import FrameFile
from densedpo.world.render import render
from densedpo.world.scene import draw_scene
from study_modules import BENCHMARKS, study_modules

FOLDER = BENCHMARKS / "huvidpo"
# the oracle finds all clips of a random model alike: that half of the scores are off is what makes pairs here
STUDY = """
model = "{model}"
seeds = [0]
contrasts = [["all", "shuffled"]]
person = {{ error_rate = 0.5 }}
measure = {{ num_prompts = 2, num_steps = 2 }}
scored = {{ num_prompts = 3, clips_per_prompt = 4, clips = {{ num_steps = 2 }} }}

[data.world]
num_clips = 8
num_held_out = 2

[stages.first]
objective = "sft"
train = "full"
num_steps = 2
batch_pairs = 1
eval_every = 0

[stages.second]
objective = "dpo"
num_steps = 2
batch_pairs = 2
eval_every = 0
min_non_tie_share = 0.0

[arms.all]
choose = "all"

[arms.best_worst]
choose = "best_worst"

[arms.shuffled]
choose = "all"
learn = {{ shuffle_labels = true }}
"""


@pytest.fixture
def modules() -> Iterator[dict[str, ModuleType]]:
    with study_modules("huvidpo") as found:
        yield found


@pytest.mark.slow
def test_both_stages_run_to_a_table_and_nothing_is_made_twice(
    modules: dict[str, ModuleType], tmp_path: Path, toy_model_dir_64: Path
) -> None:
    file, out = tmp_path / "study.toml", tmp_path / "project"
    file.write_text(STUDY.format(model=toy_model_dir_64))
    command = ["--study", str(file), "--out", str(out), "--processes", "1"]
    modules["run"].main(command)
    project, first = Project(root=out), json.loads((out / "results" / "results.json").read_text())
    made = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    modules["run"].main(command)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == made
    again = json.loads((out / "results" / "results.json").read_text())
    assert {**again, "made": None} == {**first, "made": None}

    scored = list(read_jsonl(project.pairs("scored") / "pairs.jsonl", Pair))
    assert [pair.num_given_frames for pair in scored] == [1] * 6
    assert {sum(pair.prompt_id == other.prompt_id for other in scored) for pair in scored} == {2}
    assert sum(first["scores"].values()) == 12
    assert first["pairs"]["all"]["num_pairs"] == 18  # six pairs of four clips, of three prompts
    assert 1 <= first["pairs"]["best_worst"]["num_pairs"] <= 3
    assert set(first["against_base"]) == {"all", "best_worst", "shuffled"}
    assert [row["run"] for row in first["runs"]] == ["stage-1", "all-0", "best_worst-0", "shuffled-0"]
    assert json.loads((project.run("all-0") / "base.json").read_text())["run"] == "stage-1"
    for values in (first["levels"]["base"], first["against_base"]["all"]):
        assert {"error_near", "error_far", "join", "object_motion"} <= {key for key, row in values.items() if row}
    text = (out / "results" / "table.md").read_text()
    assert "| stage 1: the pre-trained model (level) |" in text
    assert "| all less shuffled |" in text


def test_the_files_of_settings_hold_and_their_plans_add_up(modules: dict[str, ModuleType]) -> None:
    settings = modules["settings"]
    for name in ("huvidpo.toml", "quick.toml"):
        study = load_config(settings.Study, FOLDER / name, [])
        assert "in all about" in settings.plan_text(study)
        assert study.config_of(study.arms["shuffled"], seed=1).start_from == "stage-1"
    assert len(load_config(settings.Study, FOLDER / "huvidpo.toml", []).runs()) == 9


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ('contrasts=[["all", "none"]]', "'none' is compared"),
        ("data.world.num_held_out=3", "at least measure.num_prompts"),
        ('scored.clips.start_from="x"', "set by the study itself"),
        ("person.shares=[0.2, 0.2, 0.4, 0.6]", "shares ascend"),
        ("arms.all.learn.bata=1", "bata"),
    ],
)
def test_settings_that_do_not_fit_are_refused(modules: dict[str, ModuleType], setting: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load_config(modules["settings"].Study, FOLDER / "quick.toml", [setting])


def test_the_person_gives_each_score_to_a_fifth_and_errs_by_one_point(modules: dict[str, ModuleType]) -> None:
    """Ten clips from 0.0 to 0.9: two for each score; where all are wrong, each is one point off, and 1 becomes 2."""
    overall = {f"p{index}/{side}": 0.1 * (2 * index + (side == "b")) for index in range(5) for side in "ab"}
    config = modules["settings"].PersonConfig
    right = modules["person"].Person(config(error_rate=0.0), overall)
    wrong = modules["person"].Person(config(error_rate=1.0), overall)
    truth = {key: right.score(*key.split("/")) for key in overall}
    assert sorted(truth.values()) == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert [truth[key] for key in sorted(overall, key=overall.__getitem__)] == sorted(truth.values())
    said = {key: wrong.score(*key.split("/")) for key in overall}
    assert {abs(said[key] - truth[key]) for key in overall} == {1}
    assert set(said.values()) <= {1, 2, 3, 4, 5}


def test_the_copy_takes_a_first_frame_and_one_that_was_cut_is_made_whole(
    modules: dict[str, ModuleType], project: Path, toy_model_dir_64: Path
) -> None:
    (project / "model" / "vae").mkdir(parents=True)
    found = Project(root=project)
    copy = modules["steps"].continuing_copy(found, str(toy_model_dir_64))
    assert catalogue.geometry(toy_model_dir_64).num_given_frames == 0
    assert catalogue.geometry(copy).num_given_frames == 1
    assert catalogue.vae_fingerprint(copy) == catalogue.vae_fingerprint(toy_model_dir_64)
    assert has_token_timesteps(copy)


def test_frames_are_drawn_of_the_captions_scene_elsewhere(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    """The words are the caption's, the place is not its clip's: another picture, the same each time."""
    scene = draw_scene(3, split="train")
    row = {name: getattr(scene, name) for name in scene.__dataclass_fields__}
    prompt = Prompt(id="p", caption=scene.caption, split="train", clip_id="c", scene=row)
    draw, geometry = modules["steps"]._draw, catalogue.geometry("tiny")
    one, same, other = (draw(prompt, seed, geometry=geometry, folder=tmp_path) for seed in (0, 0, 1))
    assert one == same
    assert one.content != other.content
    read = FrameFile(video=tmp_path / one.image).read()
    own = render(scene, num_frames=1)[0]
    assert read.shape == own.shape
    assert not np.array_equal(read, own)
    assert np.array_equal(np.median(read, axis=(0, 1)), np.median(own, axis=(0, 1)))  # the background


def test_continuity_is_the_difference_from_the_real_clip(modules: dict[str, ModuleType]) -> None:
    """Real: all 10. Made: 10 in frame 0, then 16, the last four 13: near 6, far 3, join 6."""
    real = np.full((9, 2, 2, 3), 10, np.uint8)
    made = real + np.array([0, 6, 6, 6, 6, 3, 3, 3, 3], np.uint8)[:, None, None, None]
    assert modules["continuity"].compared(made, real) == {"error_near": 6.0, "error_far": 3.0, "join": 6.0}
