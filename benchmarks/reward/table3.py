"""DenseDPO's table 3 at small scale: does a judge of segments, by majority, beat itself on whole clips?

    python benchmarks/reward/table3.py --project PROJECT --pairs PAIRS

The shipped reward judges the pairs of a project twice: by segment, where the clip's answer is the majority of its
segments, and on whole clips. Both are held against the oracle's answers (or another annotator's, `--truth`), which have
to be stored. Accuracy is over questions that the truth does not tie; a tie of the judge is half. Intervals are 95 %,
bootstrap over prompts, which n counts; the difference is paired. Answers are stored in the project; a second run judges
nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from densedpo.core.provenance import provenance
from densedpo.core.workspace import Project, find_project
from densedpo.judge.credentials import labels_at
from densedpo.judge.pairset import PairSet
from densedpo.judge.probe.answers import Answers, accuracies, read_answers
from densedpo.judge.probe.run import estimate_text
from densedpo.judge.reward.judge import RewardConfig, RewardJudge
from densedpo.judge.run import judge_pairs
from densedpo.judge.store import LabelStore
from densedpo.metrics.statistics import Estimate, Key, paired_difference

SEED = 0  # of the bootstrap
NUM_DRAWS = 2000


def clip_points(judged: Answers, truth: Answers, prompts: dict[str, str]) -> dict[Key, float | None]:
    """For each pair that the truth decides: 1 for its answer, 1/2 for a tie, 0 for the other."""
    shared = [pair for pair in sorted(truth.clips) if truth.clips[pair] and pair in judged.clips]
    return {(prompts[p], i): (1 + judged.clips[p] * truth.clips[p]) / 2 for i, p in enumerate(shared)}


def table(
    project: Project, pairs: PairSet, by: dict[str, RewardJudge], *, truth: str, seconds: float
) -> dict[str, Estimate | None]:
    """The accuracies of each way of judging by segment and by clip, and their paired difference by clip."""
    with LabelStore.open(labels_at(project.labels_db), create=False) as store:
        true = read_answers(pairs, store, truth, segment_seconds=seconds)
        found = {}
        for name, judge in by.items():
            judge_pairs(judge, pairs, store, segment_seconds=seconds)
            found[name] = read_answers(pairs, store, judge.annotator, segment_seconds=seconds)
    rows: dict[str, Estimate | None] = {}
    for name, answers in found.items():
        for accuracy in accuracies(answers, true, pairs, seed=SEED, num_draws=NUM_DRAWS):
            rows[f"{name}: accuracy by {accuracy.unit}"] = accuracy.chosen
    prompts = {pair.id: pair.prompt_id for pair in pairs}
    dense, whole = (clip_points(found[name], true, prompts) for name in ("segments", "whole clip"))
    rows["by clip: segments less whole clip"] = paired_difference(whole, dense, seed=SEED)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Judges the pairs both ways and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--truth", default="oracle")
    parser.add_argument("--segment-seconds", type=float, default=1.0)
    parser.add_argument("--margin", type=float, help="of the reward; the calibrated one if not given")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    project = find_project(given.project)
    pairs = PairSet.read(project.pairs(given.pairs))
    seconds = given.segment_seconds
    by = {
        name: RewardJudge(RewardConfig(segment_seconds=seconds, margin=given.margin, whole_clip=name == "whole clip"))
        for name in ("segments", "whole clip")
    }
    rows = table(project, pairs, by, truth=given.truth, seconds=seconds)
    for name, estimate in rows.items():
        print(f"{name:<40} {estimate_text(estimate)}, n = {0 if estimate is None else estimate.n} prompts")
    if given.out is not None:
        kept = {
            name: None if each is None else {"value": each.value, "low": each.low, "high": each.high, "n": each.n}
            for name, each in rows.items()
        }
        row = {
            "table": kept, "truth": given.truth, "num_pairs": len(pairs), "model": next(iter(pairs)).model,
            "seed": SEED, "judges": [judge.instructions for judge in by.values()], "made": provenance(),
        }  # fmt: skip
        given.out.write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
