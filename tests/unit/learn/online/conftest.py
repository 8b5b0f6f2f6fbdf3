"""A project with real clips of the toy's size, and one finished online run that several tests look at."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from densedpo.adapters import load
from densedpo.core.workspace import Project, init_project
from online_runs import online_config, train_online
from toy import add_toy_clips


@pytest.fixture(scope="session")
def _prompted(toy_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = init_project(tmp_path_factory.mktemp("online") / "project")
    add_toy_clips(project.root, load(toy_model_dir), 9, splits=("train", "train", "validation"))
    return project.root


@pytest.fixture
def prompted(_prompted: Path, tmp_path: Path) -> Project:
    """A copy of its own of a project with 6 training and 3 validation prompts."""
    shutil.copytree(_prompted, tmp_path / "prompted")
    return Project(root=tmp_path / "prompted")


@pytest.fixture(scope="session")
def done(_prompted: Path, toy_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same project with the finished run `small`; not to be changed."""
    root = tmp_path_factory.mktemp("online-done") / "project"
    shutil.copytree(_prompted, root)
    project = Project(root=root)
    train_online(project, "small", toy_model_dir, online_config())
    return project
