"""Better video diffusion models from dense preferences, measured honestly.

Stages: videos -> data -> generate -> judge -> learn -> measure -> an adapter and a report.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from densedpo.adapters.base import VideoModel
    from densedpo.core.workspace import Project

__all__ = ["__version__", "load_model", "new_project", "open_project"]

__version__ = "0.1.0"


def new_project(folder: Path | str) -> Project:
    """Makes a folder a project.

    Raises:
        BadInput: it is one already, or is a file.
    """
    from pathlib import Path

    from densedpo.core.workspace import init_project

    return init_project(Path(folder))


def open_project(folder: Path | str | None = None) -> Project:
    """The project that a folder (default: the current one) is or lies in.

    Raises:
        BadInput: neither the folder nor a parent is a project.
    """
    from pathlib import Path

    from densedpo.core.workspace import find_project

    return find_project(Path(folder) if folder is not None else None)


def load_model(name: Path | str = "tiny") -> VideoModel:
    """A video model from a folder or by name; `tiny` is the one that this package ships. Imports torch.

    Raises:
        BadInput: there is no such model here, or it is of a family that is not supported.
    """
    from densedpo.adapters import load

    return load(name)
