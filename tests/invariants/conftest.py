"""A toy model on disk and a project of pairs with a planted preference."""

from __future__ import annotations

from pathlib import Path

import pytest

from densedpo.adapters import load
from densedpo.core.workspace import Project, init_project
from toy import add_toy_clips
from toy_pairs import add_toy_pairs


@pytest.fixture(scope="session")
def planted(toy_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with pairs and preferences called `toy`; runs go into it under names of their own."""
    project = init_project(tmp_path_factory.mktemp("planted") / "project")
    model = load(toy_model_dir)
    add_toy_clips(project.root, model, 4)
    add_toy_pairs(project, model)
    return project
