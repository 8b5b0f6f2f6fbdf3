"""`measure compare`: reports on the same prompts and seeds against each other, difference by difference."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from pydantic import ConfigDict, JsonValue

from densedpo.core.errors import BadInput
from densedpo.core.provenance import provenance
from densedpo.core.records import to_row
from densedpo.core.workspace import Project, require_fresh
from densedpo.measure.config import CompareConfig
from densedpo.measure.differences import Difference, differences_between
from densedpo.measure.findings import Finding, further_findings, headline
from densedpo.measure.goodhart import goodhart
from densedpo.measure.manifest import ENTRIES, Manifest, different_entries
from densedpo.measure.records import Coverage, Measured, Settings, Subject, read_measured
from densedpo.measure.score import METRICS
from densedpo.measure.wins import Wins, wins_between
from densedpo.metrics.alarms import Alarm
from densedpo.metrics.power import ALPHA, POWER
from densedpo.metrics.statistics import LEVEL, Estimate, check_same_keys, cluster_mean

Role = Literal["base", "tuned", "control", "ceiling"]

# what may differ between a model's clips and real ones
_SAMPLING: Final = frozenset({"seeds_per_prompt", "seed", "num_steps", "guidance_scale"})
_MACHINE: Final = frozenset({"dtype", "device", "gpu"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One of the compared reports. Only `ceiling`, which has no seeds, takes part in no difference."""

    name: str
    role: Role
    subject: Subject
    settings: Settings
    manifest: Manifest
    coverage: Coverage
    num_clips: int
    command: str
    estimates: dict[str, Estimate | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Declared:
    """What was settled before anything was computed, by metric where it says so.

    `allowed` names what differs between the reports and was let pass, with the values.
    """

    claims: tuple[str, ...]
    margins: dict[str, float]
    win_margins: dict[str, float]
    level: float
    alpha: float
    power: float
    num_draws: int
    seed: int
    allowed: tuple[str, ...]


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
    wins: tuple[Wins, ...]
    alarms: tuple[Alarm, ...]
    declared: Declared
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
        BadInput: a report is missing, stale or named twice, or was not measured on the same prompts and seeds and by
            the same machinery; or a setting names no metric.
    """
    _check_metrics(config)
    if name in names:
        raise BadInput(f"the comparison {name!r} cannot be named like a report that it compares; choose another name")
    if len(set(names)) != len(names):
        raise BadInput(f"each report is named once, not {', '.join(names)}")
    measured = tuple(_read(project, each, allow_stale=allow_stale) for each in names)
    roles = _roles(measured)
    allowed: list[str] = []
    for other, role in zip(measured[1:], roles[1:], strict=True):
        allowed += _check_comparable(measured[0], other, config, is_ceiling=role == "ceiling")
    members = tuple(_member(m, role, config) for m, role in zip(measured, roles, strict=True))
    models = [m for m, role in zip(measured, roles, strict=True) if role != "ceiling"]
    matched = _matched(models, config)
    differences = [d for before, after in matched for d in differences_between(before, after, config)]
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
            wins=tuple(wins for before, after in matched for wins in wins_between(before, after, config)),
            alarms=goodhart(project, models[0], models[1:], differences),
            declared=Declared(
                claims=tuple(dict.fromkeys(config.claims)),
                margins=dict(config.margins),
                win_margins=dict(config.win_margins),
                level=LEVEL,
                alpha=ALPHA,
                power=POWER,
                num_draws=config.num_draws,
                seed=config.seed,
                allowed=tuple(allowed),
            ),
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


def _check_metrics(config: CompareConfig) -> None:
    goals = {metric.key: metric.goal for metric in METRICS}
    for setting, names in (("claims", config.claims), ("margins", config.margins), ("win_margins", config.win_margins)):
        for name in names:
            if name not in goals:
                raise BadInput(f"{setting} names {name!r}, which is no metric; the metrics are {', '.join(goals)}")
            if setting == "win_margins" and goals[name] == "keep":
                raise BadInput(f"win_margins names {name!r}, of which more is not better: nobody wins by it")
    unknown = sorted(set(config.allow_different) - set(ENTRIES))
    if unknown:
        raise BadInput(
            f"allow_different names {unknown[0]!r}, which is no entry of the manifest; they are {', '.join(ENTRIES)}"
        )


def _check_comparable(base: Measured, other: Measured, config: CompareConfig, *, is_ceiling: bool) -> list[str]:
    """Refuses reports that were not made alike, and names what differs.

    Returns:
        What differs in their manifests and is allowed to, one phrase each.
    """
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
    for measured in (base, other):
        left_out = measured.report.coverage.excluded
        if config.strict and left_out:
            raise BadInput(
                f"strict: report {measured.name!r} left out {len(left_out)} clips, such as prompt "
                f"{left_out[0].prompt_id!r}: {left_out[0].fault}"
            )
    return _check_manifests(base, other, config, is_ceiling=is_ceiling)


def _check_manifests(base: Measured, other: Measured, config: CompareConfig, *, is_ceiling: bool) -> list[str]:
    allowed = []
    for name, values in different_entries(base.report.manifest, other.report.manifest).items():
        if is_ceiling and name in _MACHINE:
            continue
        shown = " and ".join(value or "none" for value in values)
        if name not in config.allow_different:
            raise BadInput(
                f"reports {base.name!r} and {other.name!r} were measured with different {name} ({shown}); measure both "
                f"alike, or accept it with --set 'allow_different=[\"{name}\"]', which the page will say"
            )
        allowed.append(f"{name} of {base.name} and {other.name}: {shown}")
    return allowed


def _matched(models: Sequence[Measured], config: CompareConfig) -> list[tuple[Measured, Measured]]:
    """Every other model against the base, and the tuned one against each control, or every two of the others."""
    base, tuned, *controls = models
    others = [(control, tuned) for control in controls]
    if config.each_other:
        others += itertools.combinations(controls, 2)
    return [(base, other) for other in models[1:]] + others


def _member(measured: Measured, role: Role, config: CompareConfig) -> Member:
    return Member(
        name=measured.name,
        role=role,
        subject=measured.report.subject,
        settings=measured.report.settings,
        manifest=measured.report.manifest,
        coverage=measured.report.coverage,
        num_clips=len(measured.scores),
        command=measured.report.command,
        estimates={
            metric.key: cluster_mean(measured.values(metric.key), seed=config.seed, num_draws=config.num_draws)
            for metric in METRICS
        },
    )
