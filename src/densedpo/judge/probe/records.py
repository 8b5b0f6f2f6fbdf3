"""What `judge probe` writes, and what becomes of it in the header of preferences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict, JsonValue

from densedpo.judge.probe.answers import Accuracy
from densedpo.judge.probe.verdict import ProbeVerdict
from densedpo.metrics.motion_bias import BiasCheck

__all__ = ["ProbeCard", "ProbeVerdict"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeCard:
    """How a judge did on a slice whose answers are known.

    A check with an alarm fails the judge if its name is in `deciding`; the others are there to be looked at. `asked` is
    False where the judge itself could not be asked anything, and `not_asked` says why: then only its stored answers
    were looked at. `inputs` has the hashes of what was read, by path relative to the project. `tie_margin` is of judges
    that score, from `num_truth_ties` segments: see `densedpo.judge.probe.answers.tie_margin`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    kind: Literal["probe card"]
    version: Literal[1]
    annotator: str
    instructions_sha256: tuple[str, ...]
    truth: str
    pairs: str
    num_pairs: int
    num_segments: int
    labels_sha256: str
    truth_sha256: str
    passed: bool
    reasons: tuple[str, ...]
    checks: tuple[BiasCheck, ...]
    deciding: tuple[str, ...]
    accuracies: tuple[Accuracy, ...]
    asked: bool
    not_asked: str
    settings: dict[str, JsonValue]
    inputs: dict[str, str]
    made: dict[str, JsonValue]
    made_at: str
    tie_margin: float | None = None
    num_truth_ties: int = 0
