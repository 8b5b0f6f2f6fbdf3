"""Judges from outside the project, by import path: `my_package.judges:MyJudge`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, JsonValue

from densedpo.core.config import Config
from densedpo.core.errors import BadInput
from densedpo.judge.protocol import Judge


class CustomConfig(Config):
    """Options of `judge custom`."""

    segment_seconds: float = Field(default=1.0, gt=0, description="length of a segment")
    options: dict[str, JsonValue] = Field(
        default={}, description="keyword arguments of the judge, such as options.margin=0.1"
    )


def load_judge(path: str, options: Mapping[str, JsonValue]) -> Judge:
    """Calls what `module:name` names with the options, which must give a `densedpo.judge.protocol.Judge`.

    Modules are looked up as Python does, and in the current folder.

    Raises:
        BadInput: there is no such module or name, it does not take these options, or gives no judge.
    """
    make = find(path)
    if not callable(make):
        raise BadInput(f"{path} is a {type(make).__name__}, not a class or function that makes a judge")
    try:
        judge = make(**options)
    except TypeError as error:
        raise BadInput(f"{path} does not take these options ({error}); set them by --set options.NAME=VALUE") from error
    if not isinstance(judge, Judge):
        missing = sorted({"annotator", "instructions", "check", "judge"} - set(dir(judge)))
        raise BadInput(f"{path} makes no judge: it lacks {', '.join(missing)} (densedpo.judge.protocol.Judge)")
    for what, value in (("annotator", judge.annotator), ("instructions", judge.instructions)):
        if not isinstance(value, str) or not value.strip():
            raise BadInput(f"{path}: {what} must be a text that is not empty, not {value!r}")
    return judge


def find(path: str) -> object:
    """What `module:name` names, of a module as Python finds it or in the current folder.

    Raises:
        BadInput: the path has another form, or there is no such module or name.
    """
    module_name, colon, name = path.partition(":")
    if not colon or not module_name or not name:
        raise BadInput(f"a judge is named as module:Class, such as my_judges:Sharpest, not {path!r}")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise BadInput(f"no module {error.name!r}, which {path} names, here or among what is installed") from None
        raise BadInput(f"{path} needs {error.name}, which is not installed; pip install it") from error
    except ValueError:
        raise BadInput(f"a judge is named as module:Class, such as my_judges:Sharpest, not {path!r}") from None
    finally:
        if added:
            sys.path.remove(here)
    if name not in vars(module):
        raise BadInput(f"{module_name} holds no {name!r}")
    return vars(module)[name]
