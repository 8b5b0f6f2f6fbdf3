"""`judge probe`: answers of a judge and of a truth about the same pairs in, the judge's card out."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

from densedpo.core.errors import BadInput
from densedpo.core.provenance import provenance, sha256_json
from densedpo.core.records import from_row, to_row
from densedpo.core.workspace import Project, content_hash, write_atomic, writing
from densedpo.judge.aggregate import latest
from densedpo.judge.pairset import PairSet
from densedpo.judge.probe.answers import Accuracy, Answers, accuracies, read_answers, tie_margin
from densedpo.judge.probe.asking import CANARY, ORDERS, SWAP, ask
from densedpo.judge.probe.config import ProbeConfig
from densedpo.judge.probe.motion import label_bias, measure_pairs
from densedpo.judge.probe.rebuild import Rebuilt, has_margin, rebuild
from densedpo.judge.probe.records import ProbeCard
from densedpo.judge.probe.verdict import CARD_FILE, instructions_sha256
from densedpo.judge.run import now
from densedpo.judge.store import LabelStore
from densedpo.metrics.motion_bias import BiasCheck
from densedpo.metrics.statistics import Estimate

ACCURACY: Final = "accuracy"
COVERAGE: Final = "coverage"
DECIDING: Final = (ACCURACY, COVERAGE, SWAP, CANARY, ORDERS, "MB2", "MB3", "MB4", "MB5")


def probe_judge(
    project: Project, pairs: PairSet, store: LabelStore, *, annotator: str, truth: str, config: ProbeConfig
) -> tuple[ProbeCard, Path]:
    """Holds a judge against a truth, asks it what can be asked, and writes its card.

    Returns:
        The card and the file that holds it.

    Raises:
        BadInput: one of the two has not judged these pairs, they are one and the same, or a video cannot be read.
    """
    if annotator == truth:
        raise BadInput(f"{annotator!r} always agrees with itself; name another annotator after --truth")
    both = [read_answers(pairs, store, each, segment_seconds=config.segment_seconds) for each in (annotator, truth)]
    votes = latest(store.judgements(pairs.hashes, annotators=[annotator]))
    folder = card_folder(project, annotator, pairs.name)
    under = tuple(sorted({vote.instructions for vote in votes}))
    with writing(folder), ExitStack() as stack:
        rebuilt = rebuild(project, annotator, under, settings=config.judge, stack=stack)
        found = accuracies(both[0], both[1], pairs, seed=config.seed, num_draws=config.num_draws)
        checks = (
            accuracy_check(found[0], config),
            coverage_check(found[0], config),
            *_motion_checks(folder, pairs, both, config),
            *_asked(rebuilt, pairs, both[0], config),
        )
        reasons = failures(checks)
        margin, num_ties = tie_margin(votes, both[1]) if has_margin(under) else (None, 0)
        card = ProbeCard(
            kind="probe card",
            version=1,
            annotator=annotator,
            instructions_sha256=instructions_sha256(votes),
            truth=truth,
            pairs=pairs.name,
            num_pairs=len(both[0].clips.keys() & both[1].clips.keys()),
            num_segments=found[0].confusion.num_units,
            labels_sha256=both[0].labels_sha256,
            truth_sha256=both[1].labels_sha256,
            passed=not reasons,
            reasons=reasons,
            checks=checks,
            deciding=DECIDING,
            accuracies=found,
            asked=rebuilt.judge is not None,
            not_asked=rebuilt.reason,
            settings=config.model_dump(mode="json"),
            inputs={project.relative(pairs.folder): content_hash(pairs.folder, project)},
            made=provenance(),
            made_at=now(),
            tie_margin=margin,
            num_truth_ties=num_ties,
        )
        path = folder / CARD_FILE
        write_atomic(path, json.dumps(to_row(card), indent=2) + "\n")
    return card, path


def read_card(path: Path) -> ProbeCard:
    """A card as it was written.

    Raises:
        BadInput: missing, or not a card.
    """
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist; write it with `densedpo judge probe`") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not JSON: {error}") from None
    return from_row(ProbeCard, row, str(path))


def card_folder(project: Project, annotator: str, pairs: str) -> Path:
    """Where the card of an annotator on a set of pairs lies; a name that can be no folder's gets a hash."""
    plain = re.sub(r"[^a-z0-9._-]", "-", annotator.lower()).strip("._-") or "annotator"
    name = plain if plain == annotator else f"{plain}-{sha256_json(annotator)[:8]}"
    return project.root / "probes" / f"{name}--{pairs}"


def accuracy_check(accuracy: Accuracy, config: ProbeConfig) -> BiasCheck:
    """Whether a judge's answers by segment are good enough, and surely better than guesses.

    Its ties are no label, so they are left out; `coverage_check` sees to it that they are not too many. A judge that
    only ties has no accuracy and fails.
    """
    estimate = accuracy.decided
    poor = estimate is not None and (
        estimate.value < config.min_accuracy or estimate.low is None or estimate.low <= 0.5
    )
    return BiasCheck(
        name=ACCURACY,
        meaning="share of segments answered as the truth does, of those that neither calls a tie",
        estimate=estimate,
        against=config.min_accuracy,
        alarm=poor or estimate is None,
        reason="" if estimate is not None else "no segment is answered by both without a tie",
    )


def coverage_check(accuracy: Accuracy, config: ProbeConfig) -> BiasCheck:
    """Whether a judge names a winner often enough where there is one."""
    estimate = accuracy.coverage
    return BiasCheck(
        name=COVERAGE,
        meaning="share of the segments that the truth decides in which the judge names a winner",
        estimate=estimate,
        against=config.min_coverage,
        alarm=estimate is None or estimate.value < config.min_coverage,
        reason="" if estimate is not None else "the truth decides no segment that the judge has answered",
    )


def failures(checks: tuple[BiasCheck, ...]) -> tuple[str, ...]:
    """Why a judge fails, one phrase for each deciding check with an alarm; none if it passes."""
    found = []
    for check in checks:
        if check.alarm and check.name in DECIDING:
            asked = f"{check.against:g}{' and an interval above 0.5' if check.name == ACCURACY else ''}"
            found.append(f"{check.name}: {check.meaning} is {estimate_text(check.estimate)}, against {asked}")
    return tuple(found)


def estimate_text(estimate: Estimate | None) -> str:
    """A value with its interval to three places, or that there is none."""
    if estimate is None:
        return "not known"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f} (no interval)"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _asked(rebuilt: Rebuilt, pairs: PairSet, answers: Answers, config: ProbeConfig) -> tuple[BiasCheck, ...]:
    if rebuilt.judge is None:
        return ()
    return ask(rebuilt.judge, pairs, answers, config, reads_captions=rebuilt.reads_captions)


def _motion_checks(folder: Path, pairs: PairSet, both: list[Answers], config: ProbeConfig) -> tuple[BiasCheck, ...]:
    """MB1 and MB2; where the truth favours low motion on these pairs too, the judge is not blamed for it."""
    if not config.motion:
        return ()
    motion = measure_pairs(pairs, folder, segment_seconds=config.segment_seconds)
    own, true = (
        label_bias(
            answers, motion, pairs, threshold=config.motion_threshold, seed=config.seed, num_draws=config.num_draws
        )
        for answers in both
    )
    excused = "the truth shows the same on these pairs"
    return tuple(
        replace(mine, alarm=False, reason=excused) if mine.alarm and its.alarm else mine
        for mine, its in zip(own, true, strict=True)
    )
