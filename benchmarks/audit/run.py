"""Does the audit find wrong labels? A fifth of the winners is flipped, and the flips are counted at the top.

    python benchmarks/audit/run.py guided --out build/audit
    python benchmarks/audit/run.py edited --out build/audit
    python benchmarks/audit/run.py guided --out build/audit-quick --quick    # the machinery only, a few minutes

Pairs of the procedural world by the shipped model: `guided`, with the oracle's labels, or `edited`, of a real clip and
a reversed, shuffled, noised or blurred copy of it, whose labels are known. Flips are stored as the answers of an
annotator called `planted`; then one run for each part left out, and `judge audit`. Everything is kept in a project
under --out and resumes where it was cut. Prints how many times more flips are among the first 5, 10 and 20 % of the
ranked winners than by chance, with a 95 % interval (bootstrap over pairs), and writes them to
benchmarks/audit/results/, with --quick under --out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))
from of_headline import made, open_project, run_command

from densedpo.adapters import catalogue
from densedpo.core.config import load_config
from densedpo.core.records import Preference, to_row
from densedpo.core.seeds import generator
from densedpo.core.workspace import Project, write_atomic
from densedpo.data.config import DataConfig
from densedpo.data.latents import encode_clips
from densedpo.data.world import add_world
from densedpo.generate.config import GuidedConfig
from densedpo.generate.corrupted.config import CorruptedConfig
from densedpo.generate.corrupted.plan import plan_corrupted
from densedpo.generate.corrupted.run import generate_corrupted
from densedpo.generate.pairs import generate_pairs
from densedpo.generate.plan import plan_guided
from densedpo.judge.exchange import import_labels
from densedpo.judge.known import RealJudge
from densedpo.judge.oracle import OracleConfig, OracleJudge
from densedpo.judge.pairset import PairSet
from densedpo.judge.preferences import collect, write_preferences
from densedpo.judge.protocol import Judge
from densedpo.judge.run import judge_pairs
from densedpo.judge.store import LabelStore
from densedpo.learn.audit.rank import Ranking, planted_lift
from densedpo.learn.audit.runs import audit_labels
from densedpo.learn.config import LearnConfig
from densedpo.learn.run import learn_offline

HERE = Path(__file__).resolve().parent
PAIRS, NAME = "pairs", "planted"
SEGMENT_S = 1.0
SHARES = (0.05, 0.1, 0.2)
Flips = frozenset[tuple[str, int]]


def make_pairs(project: Project, *, kind: str, model: str, num_pairs: int) -> None:
    """Clips of the world, their latents, and pairs."""
    num_clips = num_pairs + num_pairs // 4
    add_world(project, geometry=catalogue.geometry(model), config=DataConfig(world={"num_clips": num_clips}))
    encode_clips(project, catalogue.load(model))
    if kind == "edited":
        edited = CorruptedConfig(num_pairs=num_pairs)
        generate_corrupted(plan_corrupted(project, PAIRS, model=model, config=edited))
    else:
        guided = GuidedConfig(num_pairs=num_pairs, num_steps=11, pairs_per_batch=8)
        generate_pairs(plan_guided(project, PAIRS, model=model, config=guided))


def plant(project: Project, *, judge: Judge, share: float, seed: int) -> Flips:
    """Preferences of a judge's answers with a share of the winners flipped; returns which."""
    pairs = PairSet.read(project.pairs(PAIRS))
    with LabelStore.open(project.labels_db) as store:
        done = judge_pairs(judge, pairs, store, segment_seconds=SEGMENT_S)
        true = collect(pairs, store, segment_seconds=SEGMENT_S, only_annotators=[done.annotator])
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
        import_labels(file, pairs, store, segment_seconds=SEGMENT_S, annotator=NAME)
        planted = collect(pairs, store, segment_seconds=SEGMENT_S, only_annotators=[NAME])
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


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("guided", "edited"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--pairs", type=int, help="384 if not given, 48 with --quick")
    parser.add_argument("--folds", type=int, help="3 if not given, 2 with --quick")
    parser.add_argument("--margin", type=float, default=OracleConfig().margin, help="of the oracle: less is a tie")
    parser.add_argument("--share", type=float, default=0.2, help="of the winners that are flipped")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--config", type=Path, default=HERE / "recipe.toml", help="TOML file of the runs' settings")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--quick", action="store_true", help="10 steps of few pairs: checks the machinery")
    given = parser.parse_args()
    given.pairs = given.pairs or (48 if given.quick else 384)
    given.folds = given.folds or (2 if given.quick else 3)
    return given


def main() -> None:
    """Makes what is missing, audits, prints."""
    arguments = parse()
    few = ["num_steps=10", "batch_pairs=8", "warmup_steps=2"] if arguments.quick else []
    config = load_config(LearnConfig, arguments.config, [*few, *arguments.set])
    project = open_project(arguments.out / arguments.kind)
    make_pairs(project, kind=arguments.kind, model=arguments.model, num_pairs=arguments.pairs)
    judge = RealJudge() if arguments.kind == "edited" else OracleJudge(OracleConfig(margin=arguments.margin))
    flips = plant(project, judge=judge, share=arguments.share, seed=arguments.seed)
    runs = [f"part-{index}-of-{arguments.folds}" for index in range(arguments.folds)]
    for index, name in enumerate(runs):
        settings = LearnConfig.model_validate({**config.model_dump(), "fold": (index, arguments.folds)})
        learn_offline(project, name, pairs=PAIRS, preferences=NAME, model=arguments.model, config=settings)
    ranking = audit_labels(project, NAME, runs).ranking
    # only winners were flipped: to put them before ties would look like finding flips
    decided = replace(ranking, suspects=tuple(suspect for suspect in ranking.suspects if suspect.label != 0))
    results = {
        "kind": arguments.kind,
        "quick": arguments.quick,
        "model": catalogue.fingerprint(arguments.model),
        "made": made(),
        "pairs": arguments.pairs,
        "folds": arguments.folds,
        "seed": arguments.seed,
        "judge": judge.annotator,
        "segments": len(ranking.suspects),
        "decided": len(decided.suspects),
        "flipped": sum((suspect.pair_id, suspect.segment) in flips for suspect in decided.suspects),
        "accuracy_on_the_labels": ranking.accuracy,
        "accuracy_error": ranking.error,
        "tells": ranking.tells,
        "config": config.model_dump(mode="json"),
        "lift": lifts(decided, flips, seed=arguments.seed),
    }
    folder = arguments.out / "results" if arguments.quick else HERE / "results"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / f"{arguments.kind}.json", json.dumps(results, indent=1) + "\n")
    print(said(results))


def said(results: Mapping[str, Any]) -> str:
    """What was found, in a few lines."""
    lines = [f"{results['flipped']} of {results['decided']} training segments with a winner are flipped"]
    if results["accuracy_on_the_labels"] is not None:
        accuracy = f"{results['accuracy_on_the_labels']:.3f} +- {results['accuracy_error']:.3f}"
        lines += [f"the runs side with {accuracy} of the winners as labelled"]
    lines += [
        f"first {float(share):.0%} ({row['n']} segments): {row['lift']:.2f} times chance "
        f"({row['low']:.2f} to {row['high']:.2f})"
        for share, row in results["lift"].items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(main)
