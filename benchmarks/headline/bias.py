"""Whether labels pay for stillness by themselves (MB1, MB2), and whether guided pairs leave them nothing to pay for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from study import GuidedPairs, IndependentPairs

from densedpo.core.records import to_row
from densedpo.generate.resume import PAIRS_FILE
from densedpo.judge.pairset import PairSet
from densedpo.judge.probe.answers import read_answers
from densedpo.judge.probe.motion import alignment, label_bias, measure_pairs
from densedpo.judge.store import LabelStore
from densedpo.measure.config import JudgeConfig
from densedpo.metrics.statistics import NUM_DRAWS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue
    from study import Study

    from densedpo.core.workspace import Project
    from densedpo.metrics.motion_bias import BiasCheck

BiasRow = dict[str, "JsonValue"]
SEGMENT_S: Final = 1.0


def motion_bias(project: Project, study: Study, annotators: Mapping[str, str]) -> list[BiasRow]:
    """MB1 and MB2 of every set of labels, and MB7 of every set of guided pairs against every independent one.

    An ablation uses no independent pairs: those that the main study made in the same project serve it.
    """
    folder = project.root / "motion"
    folder.mkdir(exist_ok=True)
    threshold = JudgeConfig().motion_threshold
    rows = []
    for name, labels in study.used_labels().items():
        pairs, seconds = PairSet.read(project.pairs(labels.pairs)), labels.judge.segment_seconds
        with LabelStore.open(project.labels_db) as store:
            answers = read_answers(pairs, store, annotators[name], segment_seconds=seconds)
        # by segments also where whole clips were judged: a row has the whole clip's motion as well
        moved = measure_pairs(pairs, folder, segment_seconds=SEGMENT_S)
        checks = label_bias(answers, moved, pairs, threshold=threshold, seed=0, num_draws=NUM_DRAWS)
        rows += [bias_row(check, of=name, kind=study.pairs[labels.pairs].kind) for check in checks]
    sets = study.used_pairs()
    independent = [
        name
        for name, config in study.pairs.items()
        if isinstance(config, IndependentPairs) and (name in sets or (project.pairs(name) / PAIRS_FILE).is_file())
    ]
    for one in [name for name, config in sets.items() if isinstance(config, GuidedPairs)]:
        for other in independent:
            both = [PairSet.read(project.pairs(name)) for name in (one, other)]
            moved, apart = (measure_pairs(each, folder, segment_seconds=SEGMENT_S) for each in both)
            check = alignment(moved, both[0], apart, both[1], seed=0, num_draws=NUM_DRAWS)
            rows.append(bias_row(check, of=f"{one} against {other}", kind="guided"))
    return rows


def bias_row(check: BiasCheck, *, of: str, kind: str) -> BiasRow:
    """A check as it stands in results.json, with what it is about."""
    return {"of": of, "pairs": kind, **to_row(check)}
