"""Settings: defaults, file and overrides; what is wrong is named."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from densedpo.core.config import Config, dump_toml, load_config
from densedpo.core.errors import BadInput


class Inner(Config):
    beta: float = Field(500.0, gt=0)
    kind: Literal["dense", "whole"] = "dense"


class Outer(Config):
    num_steps: int = Field(100, ge=1)
    splits: tuple[str, ...] = ("train",)
    limit: int | None = None
    objective: Inner = Inner()


def test_overrides_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("num_steps = 7\n[objective]\nbeta = 2\n")
    config = load_config(Outer, path, ["objective.kind=whole", "num_steps=8", "splits=['a', 'b']"])
    assert config == Outer(num_steps=8, splits=("a", "b"), objective=Inner(beta=2.0, kind="whole"))


def test_a_shipped_recipe_is_found_by_its_name_and_a_file_here_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=r"huvidpo\.toml: 'first': unknown key"):
        load_config(Outer, Path("huvidpo.toml"), [])
    with pytest.raises(BadInput, match=r"recipes/huvidpo\.toml: no such file"):
        load_config(Outer, Path("recipes/huvidpo.toml"), [])
    Path("huvidpo.toml").write_text("num_steps = 7\n")
    assert load_config(Outer, Path("huvidpo.toml"), []).num_steps == 7


def test_settings_come_back_from_toml(tmp_path: Path) -> None:
    config = load_config(Outer, None, ["objective.beta=0.25", "splits=[]"])
    path = tmp_path / "config.toml"
    path.write_text(dump_toml(config))
    assert load_config(Outer, path, []) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "nmu_steps=3",
            "--set nmu_steps=3: 'nmu_steps': unknown key; the keys are num_steps, splits, limit, objective",
        ),
        ("objective.bta=3", "'objective.bta': unknown key; the keys are .*objective.beta"),
        ("nothing.at.all=3", "--set nothing.at.all=3: 'nothing': unknown key"),
        ("num_steps=many", "--set num_steps=many: 'num_steps': .*'many'"),
        ("num_steps='8'", "'num_steps'"),
        ("num_steps=0", "'num_steps': .*greater than or equal to 1"),
        ("objective.beta=nan", "'objective.beta'"),
        ("objective.kind=sparse", "'objective.kind': .*'dense' or 'whole'"),
        ("num_steps", "write it as key=value"),
        ("=3", "write it as key=value"),
        ("a..b=3", "write it as key=value"),
    ],
)
def test_a_bad_override_is_named(override: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        load_config(Outer, None, [override])
    assert "\n" not in str(caught.value)


def test_an_override_cannot_reach_into_a_value() -> None:
    with pytest.raises(BadInput, match="'num_steps' is a value, not a table"):
        load_config(Outer, None, ["num_steps=3", "num_steps.x=1"])


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[objective]\nbtea = 3\n")
    with pytest.raises(BadInput, match=r"run.toml: 'objective.btea': unknown key"):
        load_config(Outer, path, [])
    path.write_text("num_steps = \n")
    with pytest.raises(BadInput, match=r"run.toml: not a TOML file"):
        load_config(Outer, path, [])
    with pytest.raises(BadInput, match="no such file"):
        load_config(Outer, tmp_path / "missing.toml", [])
