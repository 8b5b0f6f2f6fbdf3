"""`measure judge`: answers of two annotators about the same pairs in, the report over them and its page out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from densedpo.core.errors import BadInput
from densedpo.core.provenance import provenance
from densedpo.core.records import to_row
from densedpo.core.workspace import Project, require_fresh, write_atomic, write_stamp, writing
from densedpo.judge.aggregate import latest
from densedpo.judge.pairset import PairSet
from densedpo.judge.probe.answers import Answers, accuracies, read_answers
from densedpo.judge.probe.motion import PairMotion, alignment, label_bias, measure_pairs
from densedpo.judge.probe.verdict import read_verdicts, verdicts_on
from densedpo.judge.store import LabelStore
from densedpo.measure.config import JudgeConfig
from densedpo.measure.judges.page import PAGE_FILE, render
from densedpo.measure.judges.records import AnnotatorBias, ExcludedPair, Judged, JudgesReport
from densedpo.measure.manifest import manifest
from densedpo.measure.records import REPORT_FILE, require_free
from densedpo.metrics.motion_bias import BiasCheck


@dataclass(frozen=True, kw_only=True, slots=True)
class _Motion:
    bias: tuple[AnnotatorBias, ...]
    alignment: BiasCheck | None
    excluded: tuple[ExcludedPair, ...]


def compare_judges(
    project: Project,
    name: str,
    *,
    pairs: str,
    annotator: str,
    against: str,
    command: str,
    config: JudgeConfig,
    allow_stale: bool = False,
) -> JudgesReport:
    """Compares the answers of two annotators about the same pairs, and writes report.json and index.html.

    Raises:
        BadInput: there are no such pairs, one of the two has not judged them, the name is another report's, another
            process is writing there, or videos could not be read and that was to be refused (the report is written).
    """
    if annotator == against:
        raise BadInput(f"{annotator!r} always agrees with itself; name another annotator after --against")
    sets = [_pair_set(project, each, allow_stale=allow_stale) for each in (pairs, config.independent) if each]
    with LabelStore.open(project.labels_db, create=False) as store:
        both = tuple(
            read_answers(sets[0], store, each, segment_seconds=config.segment_seconds) for each in (annotator, against)
        )
        votes = latest(store.judgements(sets[0].hashes, annotators=[annotator, against]))
    folder = project.report(name)
    require_free(project, folder, "judges")
    with writing(folder):
        motion = _motion(folder, sets, both, config)
        report = JudgesReport(
            kind="judges",
            name=name,
            command=command,
            pairs=pairs,
            num_pairs=len(sets[0]),
            annotator=annotator,
            against=against,
            segment_seconds=config.segment_seconds,
            judged=tuple(_judged(answers) for answers in both),
            accuracies=accuracies(both[0], both[1], sets[0], seed=config.seed, num_draws=config.num_draws),
            motion_threshold=config.motion_threshold,
            bias=motion.bias,
            alignment=motion.alignment,
            excluded=motion.excluded,
            manifest=manifest(dtype=None, device=None),
            made=provenance(),
            probes=verdicts_on(read_verdicts(project.root), votes),
        )
        _write(project, folder, report, [each.folder for each in sets])
    if config.strict and report.excluded:
        first = report.excluded[0]
        raise BadInput(
            f"strict: the motion of {len(report.excluded)} pairs is not known, such as {first.pair_id!r}: {first.fault}"
        )
    return report


def _pair_set(project: Project, name: str, *, allow_stale: bool) -> PairSet:
    found = PairSet.read(project.pairs(name))
    require_fresh(found.folder, project, allow_stale=allow_stale)
    return found


def _judged(answers: Answers) -> Judged:
    return Judged(
        annotator=answers.annotator,
        num_pairs=len(answers.clips),
        num_segments=len(answers.segments),
        num_ties=sum(label == 0 for label in answers.segments.values()),
        labels_sha256=answers.labels_sha256,
    )


def _motion(folder: Path, sets: list[PairSet], both: tuple[Answers, ...], config: JudgeConfig) -> _Motion:
    if not config.motion:
        return _Motion(bias=(), alignment=None, excluded=())
    measured = [measure_pairs(each, folder, segment_seconds=config.segment_seconds) for each in sets]
    bias = tuple(
        AnnotatorBias(
            annotator=answers.annotator,
            checks=label_bias(
                answers,
                measured[0],
                sets[0],
                threshold=config.motion_threshold,
                seed=config.seed,
                num_draws=config.num_draws,
            ),
        )
        for answers in both
    )
    aligned = None
    if len(sets) == 2:
        aligned = alignment(measured[0], sets[0], measured[1], sets[1], seed=config.seed, num_draws=config.num_draws)
    return _Motion(
        bias=bias, alignment=aligned, excluded=tuple(_excluded(row) for rows in measured for row in rows if row.fault)
    )


def _excluded(row: PairMotion) -> ExcludedPair:
    return ExcludedPair(pairs=row.pairs, pair_id=row.pair_id, fault=row.fault or "")


def _write(project: Project, folder: Path, report: JudgesReport, inputs: list[Path]) -> None:
    write_atomic(folder / REPORT_FILE, json.dumps(to_row(report), indent=2) + "\n")
    write_atomic(folder / PAGE_FILE, render(report))
    write_stamp(folder, inputs, project)
