"""Does the audit find wrong labels? A fifth of the oracle's winners is flipped, and the flips are counted at the top.

    python benchmarks/audit/run.py --out build/audit
    python benchmarks/audit/run.py --out build/audit-quick --quick    # the machinery only, a few minutes

Guided pairs of the procedural world by the shipped model, oracle labels, flips stored as the answers of an annotator
called `planted`, one run for each part left out, `judge audit`. Everything is kept in a project under --out and resumes
where it was cut. Prints how many times more flips are among the first 5, 10 and 20 % of the ranking than by chance,
with a 95 % interval (bootstrap over pairs), and writes results.json.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from densedpo.adapters import catalogue
from densedpo.core.config import load_config
from densedpo.core.records import Preference, to_row
from densedpo.core.seeds import generator
from densedpo.core.workspace import PROJECT_FILE, Project, find_project, init_project
from densedpo.data.config import DataConfig
from densedpo.data.latents import encode_clips
from densedpo.data.world import add_world
from densedpo.generate.config import GuidedConfig
from densedpo.generate.pairs import generate_pairs
from densedpo.generate.plan import plan_guided
from densedpo.judge.exchange import import_labels
from densedpo.judge.oracle import OracleConfig, OracleJudge
from densedpo.judge.pairset import PairSet
from densedpo.judge.preferences import collect, write_preferences
from densedpo.judge.run import judge_pairs
from densedpo.judge.store import LabelStore
from densedpo.learn.audit.rank import Ranking, planted_lift
from densedpo.learn.audit.runs import audit_labels
from densedpo.learn.config import LearnConfig
from densedpo.learn.run import learn_offline

PAIRS, NAME = "guided", "planted"
SHARES = (0.05, 0.1, 0.2)
Flips = frozenset[tuple[str, int]]


def make_pairs(project: Project, *, model: str, num_pairs: int) -> None:
    """Clips of the world, their latents, and guided pairs."""
    num_clips = num_pairs + num_pairs // 4
    add_world(project, geometry=catalogue.geometry(model), config=DataConfig(world={"num_clips": num_clips}))
    encode_clips(project, catalogue.load(model))
    generate_pairs(plan_guided(project, PAIRS, model=model, config=GuidedConfig(num_pairs=num_pairs)))


def plant(project: Project, *, oracle: OracleConfig, share: float, seed: int) -> Flips:
    """Preferences of the oracle's answers with a share of the winners flipped; returns which."""
    pairs = PairSet.read(project.pairs(PAIRS))
    with LabelStore.open(project.labels_db) as store:
        done = judge_pairs(OracleJudge(oracle), pairs, store, segment_seconds=oracle.segment_seconds)
        true = collect(pairs, store, segment_seconds=oracle.segment_seconds, only_annotators=[done.annotator])
        flips, rows = [], []
        for row in true.rows:
            wrong = [
                label != 0 and generator(seed, "flip", row.pair_id, segment).random() < share
                for segment, label in enumerate(row.labels)
            ]
            flips += [(row.pair_id, segment) for segment, is_wrong in enumerate(wrong) if is_wrong]
            rows.append(flipped(row, wrong))
        file = project.root / "planted.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        import_labels(file, pairs, store, segment_seconds=oracle.segment_seconds, annotator=NAME)
        planted = collect(pairs, store, segment_seconds=oracle.segment_seconds, only_annotators=[NAME])
    if not project.preferences(NAME).exists():
        write_preferences(planted, project, NAME)
    return frozenset(flips)


def flipped(row: Preference, wrong: list[bool]) -> dict[str, object]:
    """The labels of a pair as another annotator would have given them."""
    labels = [-label if is_wrong else label for label, is_wrong in zip(row.labels, wrong, strict=True)]
    return {"pair_id": row.pair_id, "labels": labels, "ranges": to_row(row)["ranges"]}


def lifts(ranking: Ranking, flips: Flips, *, seed: int) -> dict[str, dict[str, float]]:
    """The lift at each share, with its interval over resampled pairs."""
    by_pair: dict[str, list[int]] = {}
    for place, suspect in enumerate(ranking.suspects):
        by_pair.setdefault(suspect.pair_id, []).append(place)
    rng, ids = generator(seed, "lift"), sorted(by_pair)
    found: dict[str, list[float]] = {f"{share:g}": [] for share in SHARES}
    for _ in range(1000):
        places = sorted(place for index in rng.integers(0, len(ids), len(ids)) for place in by_pair[ids[index]])
        again = replace(ranking, suspects=tuple(ranking.suspects[place] for place in places))
        for share in SHARES:
            found[f"{share:g}"].append(planted_lift(again, flips, share=share))
    intervals = {name: np.quantile(values, (0.025, 0.975)) for name, values in found.items()}
    return {
        f"{share:g}": {
            "lift": planted_lift(ranking, flips, share=share),
            "low": float(intervals[f"{share:g}"][0]),
            "high": float(intervals[f"{share:g}"][1]),
            "n": round(share * len(ranking.suspects)),
        }
        for share in SHARES
    }


def main() -> None:
    """Makes what is missing, audits, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--margin", type=float, default=OracleConfig().margin, help="of the oracle: less is a tie")
    parser.add_argument("--share", type=float, default=0.2, help="of the winners that are flipped")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--config", type=Path, help="TOML file of the runs' settings")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--quick", action="store_true", help="48 pairs, 2 parts, 10 steps: checks the machinery")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.pairs, arguments.folds = 48, 2
        arguments.set = ["num_steps=10", "batch_pairs=8", "warmup_steps=2", "eval_every=10", *arguments.set]
    config = load_config(LearnConfig, arguments.config, arguments.set)
    is_new = not (arguments.out / PROJECT_FILE).is_file()
    project = init_project(arguments.out) if is_new else find_project(arguments.out)
    make_pairs(project, model=arguments.model, num_pairs=arguments.pairs)
    oracle = OracleConfig(margin=arguments.margin)
    flips = plant(project, oracle=oracle, share=arguments.share, seed=arguments.seed)
    runs = [f"part-{index}-of-{arguments.folds}" for index in range(arguments.folds)]
    for index, name in enumerate(runs):
        settings = LearnConfig.model_validate({**config.model_dump(), "fold": (index, arguments.folds)})
        learn_offline(project, name, pairs=PAIRS, preferences=NAME, model=arguments.model, config=settings)
    ranking = audit_labels(project, NAME, runs).ranking
    num_flipped = sum((suspect.pair_id, suspect.segment) in flips for suspect in ranking.suspects)
    table = lifts(ranking, flips, seed=arguments.seed)
    results = {
        "pairs": arguments.pairs,
        "folds": arguments.folds,
        "seed": arguments.seed,
        "oracle": oracle.model_dump(mode="json"),
        "segments": len(ranking.suspects),
        "flipped": num_flipped,
        "accuracy_on_the_labels": ranking.accuracy,
        "accuracy_error": ranking.error,
        "config": config.model_dump(mode="json"),
        "lift": table,
    }
    (project.root / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"{num_flipped} of {len(ranking.suspects)} training segments are flipped")
    if ranking.accuracy is not None and ranking.error is not None:
        print(f"the runs side with {ranking.accuracy:.3f} +- {ranking.error:.3f} of the winners as labelled")
    for share, row in table.items():
        interval = f"{row['low']:.2f} to {row['high']:.2f}"
        print(f"first {float(share):.0%} ({row['n']} segments): {row['lift']:.2f} times chance ({interval})")


if __name__ == "__main__":
    main()
