"""Fixtures that several stages share."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import pytest

from densedpo.core.records import Judgement
from toy import SHIPPED, SMALL, build_toy_model
from turns import turn


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Where several processes run the tests (pytest-xdist), one marked `alone` waits until no other runs."""
    cache = getattr(item.config, "cache", None)  # none with -p no:cacheprovider
    if cache is None or "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    with turn(cache.mkdir("turns"), alone=item.get_closest_marker("alone") is not None):
        return (yield)


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


@pytest.fixture(scope="session")
def new_judgement() -> Callable[..., Judgement]:
    """The answer `a` of one annotator about the first second of pair p0; keywords replace what a test is about."""
    judgement = Judgement(
        id="j0", pair_id="p0", annotator="ann", segment=0, start_frame=0, stop_frame=8, answer="a", instructions="v1",
        tool_version="test", created_at="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    return lambda **changes: replace(judgement, **changes)
