"""What the study of online runs compares: online.toml, read."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from of_headline import Run

from densedpo.data.config import DataConfig
from densedpo.learn.online.config import OnlineConfig
from densedpo.measure.config import MeasureConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pydantic import JsonValue


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What was said before anything ran: one arm has more, or less, of a metric than another."""

    arm: str
    against: str
    metric: str
    goal: Literal["higher", "lower"]

    def answer(self, goes: str | None) -> str:
        """What became of it.

        Args:
            goes: the direction that was shown of the difference, as `claims.direction` of benchmarks/headline says it.
        """
        wanted, opposite = ("up", "down") if self.goal == "higher" else ("down", "up")
        return {wanted: "holds", opposite: "does not hold"}.get(goes or "", "not shown")

    def row(self) -> dict[str, JsonValue]:
        """As it stands in results.json."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """What is run: the settings of each arm, and what is compared."""

    model: str
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    contrasts: tuple[tuple[str, str], ...]
    claims: tuple[Claim, ...]
    data: DataConfig
    measure: MeasureConfig
    arms: Mapping[str, OnlineConfig]

    def rows(self) -> dict[str, JsonValue]:
        """Everything that was set before anything ran, as it stands in results.json."""
        return {
            "model": self.model,
            "seeds": list(self.seeds),
            "metrics": list(self.metrics),
            "contrasts": [list(pair) for pair in self.contrasts],
            "claims": [claim.row() for claim in self.claims],
            "data": self.data.model_dump(mode="json"),
            "measure": self.measure.model_dump(mode="json"),
            "arms": {name: arm.model_dump(mode="json") for name, arm in self.arms.items()},
        }

    def runs(self) -> list[Run]:
        """Every run, seed by seed, so that a cut study holds whole rounds."""
        return [Run(arm=arm, seed=seed) for seed in self.seeds for arm in self.arms]


def read_study(path: Path, *, quick: bool = False, seeds: Sequence[int] | None = None) -> Study:
    """The study of a TOML file; an arm's settings are the common ones with its own in their place.

    Args:
        quick: with those of the file's table `quick` in the place of what stands outside of it.
        seeds: in the place of the file's.
    """
    row: Mapping[str, object] = tomllib.loads(path.read_text(encoding="utf-8"))
    if quick:
        row = merged(row, table_of(row, "quick"))
    arms = table_of(row, "arms")
    return Study(
        model=str(row.get("model", "tiny")),
        seeds=tuple(row["seeds"] if seeds is None else seeds),
        metrics=tuple(row["metrics"]),
        contrasts=tuple((one, other) for one, other in row["contrasts"]),
        claims=tuple(Claim(**claim) for claim in row["claims"]),
        data=DataConfig.model_validate({"world": row["data"]}),
        measure=MeasureConfig.model_validate(row["measure"]),
        arms={
            name: OnlineConfig.model_validate(merged(table_of(row, "online"), table_of(arms, name))) for name in arms
        },
    )


def table_of(row: Mapping[str, object], name: str) -> Mapping[str, object]:
    """A table of a TOML file."""
    found = row[name]
    if not isinstance(found, dict):
        raise SystemExit(f"{name} is a table in a study")
    return found


def merged(common: Mapping[str, object], own: Mapping[str, object]) -> dict[str, object]:
    """Settings with some replaced; tables are merged key by key."""
    found = dict(common)
    for name, value in own.items():
        before = found.get(name)
        found[name] = merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return found


def with_seed(config: OnlineConfig, seed: int) -> OnlineConfig:
    """An arm's settings for one training seed."""
    return config.model_copy(update={"learn": config.learn.model_copy(update={"seed": seed, "noise_seed": seed})})
