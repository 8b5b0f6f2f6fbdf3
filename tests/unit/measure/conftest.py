"""One measured example project for all tests of this folder; tests that change it work on a copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from densedpo.core.workspace import Project
from densedpo.measure.run import measure
from measure_example import add_pairs, add_run, make_project, plan_for, rendered

NUM_PROMPTS = 10


@pytest.fixture(scope="session")
def measured_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a base, a run that is clearly better, a control that is not, and the ceiling."""
    root = tmp_path_factory.mktemp("measured") / "project"
    project = make_project(root, num_prompts=NUM_PROMPTS)
    add_pairs(project, num_pairs=3)
    add_run(project, "dense", skill=0.35, seed=1)
    add_run(project, "shuffled", skill=0.02, seed=2)
    measure(plan_for(project, "base"), rendered(blur=1.6, waver=0.03, salt=0))
    measure(plan_for(project, "dense", run="dense"), rendered(blur=0.5, waver=0.01, salt=1))
    measure(plan_for(project, "shuffled", run="shuffled"), rendered(blur=1.6, waver=0.03, salt=0))
    measure(plan_for(project, "autoencoder", source="autoencoder"), rendered(blur=0.2, waver=0.0, salt=4))
    return root


@pytest.fixture
def measured_project(measured_root: Path, tmp_path: Path) -> Project:
    """A copy of the measured project, free to be spoilt."""
    root = tmp_path / "project"
    shutil.copytree(measured_root, root)
    return Project(root=root)
