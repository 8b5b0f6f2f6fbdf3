"""What `measure judge` writes. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict, JsonValue

from densedpo.judge.probe.answers import Accuracy
from densedpo.judge.probe.verdict import ProbeVerdict
from densedpo.measure.manifest import Manifest
from densedpo.metrics.motion_bias import BiasCheck


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """How many pairs an annotator has answered, and the hash of the answers."""

    annotator: str
    num_pairs: int
    num_segments: int
    num_ties: int
    labels_sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatorBias:
    """Whether an annotator's answers follow motion."""

    annotator: str
    checks: tuple[BiasCheck, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExcludedPair:
    """A pair whose motion is not known, and why."""

    pairs: str
    pair_id: str
    fault: str


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgesReport:
    """The report of `measure judge`, as report.json holds it.

    `alignment` (MB7) is None where no set of independent pairs was named; `bias` is empty where motion was not asked.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    kind: Literal["judges"]
    name: str
    command: str
    pairs: str
    num_pairs: int
    annotator: str
    against: str
    segment_seconds: float
    judged: tuple[Judged, ...]
    accuracies: tuple[Accuracy, ...]
    motion_threshold: float
    bias: tuple[AnnotatorBias, ...]
    alignment: BiasCheck | None
    excluded: tuple[ExcludedPair, ...]
    manifest: Manifest
    made: dict[str, JsonValue]
    probes: tuple[ProbeVerdict, ...] = ()  # on those of the two that were probed, the newest for these answers
