"""A toy model on disk and a fresh project of labelled pairs for each test that changes one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from densedpo.adapters import VideoModel, load
from densedpo.core.errors import Interrupted
from densedpo.core.workspace import Project, init_project
from densedpo.learn import loop
from toy import add_toy_clips
from toy_pairs import add_toy_pairs


@pytest.fixture(scope="session")
def toy_model(toy_model_dir: Path) -> VideoModel:
    """The toy model without an adapter: tests that attach one load their own."""
    return load(toy_model_dir)


@pytest.fixture(scope="session")
def _made(toy_model: VideoModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = init_project(tmp_path_factory.mktemp("labelled") / "project")
    add_toy_clips(project.root, toy_model, 6)
    add_toy_pairs(project, toy_model)
    return project.root


@pytest.fixture
def labelled(_made: Path, tmp_path: Path) -> Project:
    """A copy of its own of the project with 12 training and 6 validation pairs called `toy`."""
    shutil.copytree(_made, tmp_path / "labelled")
    return Project(root=tmp_path / "labelled")


@pytest.fixture
def stop_before(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """Gives a block in which a run is told to stop before a step, and does."""
    take_step = loop.take_step

    @contextmanager
    def block(last: int) -> Iterator[None]:
        def stopped(*args, step: int, **kwargs):
            if step == last:
                raise Interrupted("stopped")
            return take_step(*args, step=step, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(loop, "take_step", stopped)
            with pytest.raises(Interrupted):
                yield

    return block
