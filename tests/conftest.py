"""Fixtures that several stages share."""

from __future__ import annotations

from pathlib import Path

import pytest

from toy import SHIPPED, SMALL, build_toy_model


@pytest.fixture(scope="session")
def toy_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random `WanPipeline` directory for clips of 9 frames, 32x32: the quick one."""
    return build_toy_model(tmp_path_factory.mktemp("toy-model"), SMALL)


@pytest.fixture(scope="session")
def toy_model_dir_64(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for the world's clips of 33 frames, 64x64."""
    return build_toy_model(tmp_path_factory.mktemp("toy-model-64"), SHIPPED)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The root of an initialised, empty project."""
    from densedpo.core.workspace import init_project

    root = tmp_path / "project"
    init_project(root)
    return root
