"""What makes a run this run: settings of the machine do not, and new settings at their default do not either."""

from __future__ import annotations

from pathlib import Path

import pytest

from densedpo.core.errors import BadInput
from densedpo.core.workspace import Project
from densedpo.learn.config import LearnConfig
from densedpo.learn.course import require_same_run, write_record
from densedpo.learn.run import read_inputs


def identity(project: Project, model: Path, **settings: object) -> dict[str, object]:
    config = LearnConfig.model_validate({"eval_pairs": 2} | settings)
    inputs = read_inputs(
        project, "first", pairs="toy", preferences="toy", model=model, config=config, allow_stale=False
    )
    if not inputs.folder.exists():
        write_record(inputs, inputs.identity(), strategy="single process cpu")
    return inputs.identity()


def test_a_run_goes_on_with_another_number_of_processes(labelled: Project, toy_model_dir: Path):
    first = identity(labelled, toy_model_dir)
    of_the_machine = {"strategy": "data_parallel", "process_timeout_min": 5.0, "damaged_checkpoint": "stop"}
    assert identity(labelled, toy_model_dir, **of_the_machine) == first


def test_a_run_of_an_earlier_version_goes_on_and_a_changed_setting_is_named(labelled: Project, toy_model_dir: Path):
    first = identity(labelled, toy_model_dir)
    assert not {"memory", "level_weights"} & set(first["config"])
    assert first["config"]["beta"] == 500.0
    require_same_run(labelled.run("first"), first)
    with pytest.raises(BadInput, match=r'config.memory was null, is "apart"'):
        require_same_run(labelled.run("first"), identity(labelled, toy_model_dir, memory="apart"))
