"""`measure compare`: reports on the same prompts and seeds against each other, difference by difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from pydantic import ConfigDict, JsonValue

from densedpo.core.errors import BadInput
from densedpo.core.provenance import provenance
from densedpo.core.records import to_row
from densedpo.core.workspace import Project, require_fresh
from densedpo.measure.config import CompareConfig
from densedpo.measure.findings import Difference, Finding, further_findings, headline, verdict_of
from densedpo.measure.records import Measured, Settings, Subject, read_measured
from densedpo.measure.score import METRICS
from densedpo.metrics.statistics import Estimate, check_same_keys, cluster_mean, paired_difference

Role = Literal["base", "tuned", "control", "ceiling"]

# what may differ between a model's clips and real ones
_SAMPLING: Final = frozenset({"seeds_per_prompt", "seed", "num_steps", "guidance_scale"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One of the compared reports. Only `ceiling`, which has no seeds, takes part in no difference."""

    name: str
    role: Role
    subject: Subject
    settings: Settings
    num_clips: int
    command: str
    estimates: dict[str, Estimate | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonReport:
    """The report of `measure compare`, as report.json holds it."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    kind: Literal["comparison"]
    name: str
    command: str
    headline: Finding
    findings: tuple[Finding, ...]
    members: tuple[Member, ...]
    differences: tuple[Difference, ...]
    made: dict[str, JsonValue]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A comparison with the scores that it was computed from, in the order of `report.members`."""

    report: ComparisonReport
    measured: tuple[Measured, ...]

    @property
    def base(self) -> Measured:
        """What the others are compared with."""
        return self.measured[0]

    @property
    def tuned(self) -> Measured:
        """What the page is about: the first of the others that is a model."""
        return self.of_role("tuned")[0]

    def of_role(self, role: Role) -> list[Measured]:
        """The reports in a role."""
        return [m for m, member in zip(self.measured, self.report.members, strict=True) if member.role == role]


def compare(
    project: Project,
    name: str,
    names: Sequence[str],
    *,
    command: str,
    config: CompareConfig,
    allow_stale: bool = False,
) -> Comparison:
    """Compares reports: the first is the base, the second what it is about, the rest are controls.

    Raises:
        BadInput: a report is missing, stale or named twice, or was not measured on the same prompts and seeds.
    """
    if name in names:
        raise BadInput(f"the comparison {name!r} cannot be named like a report that it compares; choose another name")
    if len(set(names)) != len(names):
        raise BadInput(f"each report is named once, not {', '.join(names)}")
    measured = tuple(_read(project, each, allow_stale=allow_stale) for each in names)
    roles = _roles(measured)
    for other, role in zip(measured[1:], roles[1:], strict=True):
        _check_comparable(measured[0], other, is_ceiling=role == "ceiling")
    members = tuple(_member(m, role, config) for m, role in zip(measured, roles, strict=True))
    models = [m for m, role in zip(measured, roles, strict=True) if role != "ceiling"]
    differences = _differences(models, config)
    base, tuned, *controls = (m.name for m in models)
    return Comparison(
        report=ComparisonReport(
            kind="comparison",
            name=name,
            command=command,
            headline=headline(differences, base=base, tuned=tuned),
            findings=tuple(further_findings(differences, base=base, tuned=tuned, controls=controls)),
            members=members,
            differences=tuple(differences),
            made=provenance(),
        ),
        measured=measured,
    )


def _read(project: Project, name: str, *, allow_stale: bool) -> Measured:
    measured = read_measured(project, name)
    require_fresh(measured.folder, project, allow_stale=allow_stale)
    return measured


def _roles(measured: Sequence[Measured]) -> list[Role]:
    roles: list[Role] = []
    for m in measured:
        if m.report.subject.source != "model":
            roles.append("ceiling")
        else:
            roles.append("base" if not roles else "control" if "tuned" in roles else "tuned")
    if roles[0] != "base":
        raise BadInput(
            f"the base of a comparison is a model, and report {measured[0].name!r} is of real clips; name it last"
        )
    if "tuned" not in roles:
        raise BadInput("a comparison needs a base and at least one more report of a model")
    return roles


def _check_comparable(base: Measured, other: Measured, *, is_ceiling: bool) -> None:
    """Refuses reports that were not made alike; names what differs."""
    here, there = to_row(base.report.settings), to_row(other.report.settings)
    for key, value in here.items():
        if there[key] != value and not (is_ceiling and key in _SAMPLING):
            shown = "" if key == "prompts" else f" ({value} and {there[key]})"
            raise BadInput(
                f"reports {base.name!r} and {other.name!r} were measured with different {key}{shown}; measure both "
                "alike"
            )
    if not is_ceiling:
        check_same_keys(base.values(""), other.values(""))


def _member(measured: Measured, role: Role, config: CompareConfig) -> Member:
    return Member(
        name=measured.name,
        role=role,
        subject=measured.report.subject,
        settings=measured.report.settings,
        num_clips=len(measured.scores),
        command=measured.report.command,
        estimates={
            metric.key: cluster_mean(measured.values(metric.key), seed=config.seed, num_draws=config.num_draws)
            for metric in METRICS
        },
    )


def _differences(models: Sequence[Measured], config: CompareConfig) -> list[Difference]:
    """Every other model against the base, and the tuned one against each control."""
    base, tuned, *controls = models
    matched = [(base, other) for other in models[1:]] + [(control, tuned) for control in controls]
    differences = []
    for before, after in matched:
        for metric in METRICS:
            estimate = paired_difference(
                before.values(metric.key), after.values(metric.key), seed=config.seed, num_draws=config.num_draws
            )
            verdict = verdict_of(estimate, metric.goal)
            differences.append(
                Difference(base=before.name, other=after.name, metric=metric.key, estimate=estimate, verdict=verdict)
            )
    return differences
