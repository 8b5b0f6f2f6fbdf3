"""Settings of a stage: a frozen pydantic model, filled from a TOML file and from `--set a.b=c`."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError

from densedpo.core.errors import BadInput


class Config(BaseModel):
    """Base of every stage's settings: immutable, no unknown keys, no coercion of text to numbers."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


AnyConfig = TypeVar("AnyConfig", bound=Config)
_Toml = dict[str, object]


def load_config(cls: type[AnyConfig], path: Path | None, overrides: Sequence[str]) -> AnyConfig:
    """Settings from the defaults, then a TOML file, then overrides such as `a.b=3` (a value is TOML or plain text).

    A name without a folder that is no file here, such as `huvidpo.toml`, is that of a shipped recipe.

    Raises:
        BadInput: names the file or the override, the key and, where the key is unknown, the ones that exist.
    """
    values = _read_toml(path) if path is not None else {}
    origin = {key: str(path) for key in _leaves(values)}
    for override in overrides:
        key, value = _parse_override(override)
        _insert(values, key, value, override)
        origin |= dict.fromkeys([key, *_leaves(value, key)] if isinstance(value, dict) else [key], f"--set {override}")
    try:
        return cls.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = f"unknown key; the keys are {', '.join(_keys(cls))}"
        elif "input" in first and first["type"] != "missing":
            message += f" (got {first['input']!r})"
        # an error lies at the key that was set, inside its value, or at a table on the way to it
        near = (name for name in origin if f"{key}.".startswith(f"{name}.") or name.startswith(f"{key}."))
        where = next((origin[name] for name in near), path or "settings")
        raise BadInput(f"{where}: {f'{key!r}: ' if key else ''}{message}") from None


def dump_toml(config: Config) -> str:
    """The settings in full as TOML; what is None is left out, since TOML has no such value."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def _read_toml(path: Path) -> _Toml:
    try:
        return tomllib.loads(_text(path))
    except (FileNotFoundError, IsADirectoryError):
        raise BadInput(f"{path}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not a TOML file: {error}") from None


def _text(path: Path) -> str:
    recipe = files("densedpo.recipes").joinpath(path.name)
    is_recipe = path == Path(path.name) and not path.exists() and recipe.is_file()
    return (recipe if is_recipe else path).read_text(encoding="utf-8")


def _parse_override(override: str) -> tuple[str, object]:
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not key or not all(key.split(".")):
        raise BadInput(f"--set {override}: write it as key=value, such as num_steps=8 or a.b=0.5")
    try:
        parsed = tomllib.loads(f"value = {text.strip()}")
    except tomllib.TOMLDecodeError:
        return key, text.strip()
    # text that spans lines could smuggle in more keys than the one that is named
    return key, parsed["value"] if set(parsed) == {"value"} else text.strip()


def _insert(values: _Toml, key: str, value: object, override: str) -> None:
    *tables, last = key.split(".")
    for name in tables:
        inner = values.setdefault(name, {})
        if not isinstance(inner, dict):
            raise BadInput(f"--set {override}: {name!r} is a value, not a table")
        values = inner
    values[last] = value


def _leaves(values: object, prefix: str = "") -> list[str]:
    if not isinstance(values, dict):
        return [prefix]
    return [leaf for name, inner in values.items() for leaf in _leaves(inner, f"{prefix}.{name}" if prefix else name)]


def _keys(cls: type[BaseModel], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, field in cls.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += _keys(inner, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys
