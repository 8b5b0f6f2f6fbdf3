"""Runs a study: trains every arm with every seed and measures it against the base on the same prompts and seeds.

    python benchmarks/headline/run.py benchmarks/headline/recipe.toml --out build/recipe

Everything is kept in a project under --out and resumes where it was cut; `results.json` is written anew after every
run, and `table.py` prints it.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from dataclasses import replace
from pathlib import Path

from study import GuidedPairs, Run, Study
from table import print_table, results

from densedpo.adapters import catalogue
from densedpo.core.workspace import PROJECT_FILE, Project, find_project, init_project
from densedpo.data.latents import encode_clips
from densedpo.data.world import add_world
from densedpo.generate.pairs import generate_pairs
from densedpo.generate.plan import plan_guided, plan_independent
from densedpo.judge.oracle import OracleJudge
from densedpo.judge.pairset import PairSet
from densedpo.judge.preferences import Preferences, collect, write_preferences
from densedpo.judge.run import judge_pairs
from densedpo.judge.store import LabelStore
from densedpo.learn.run import learn_offline
from densedpo.measure.plan import plan_measurement
from densedpo.measure.run import measure
from densedpo.measure.sample import clip_source


def make_pairs(project: Project, study: Study) -> None:
    """Clips, latents, and every set of pairs."""
    add_world(project, geometry=catalogue.geometry(study.model), config=study.data)
    encode_clips(project, catalogue.load(study.model), batch=study.data.latent_batch)
    for name, config in study.pairs.items():
        plan = plan_guided if isinstance(config, GuidedPairs) else plan_independent
        generate_pairs(plan(project, name, model=study.model, config=config))


def label(project: Project, study: Study) -> None:
    """Every set of preferences."""
    for name, labels in study.labels.items():
        pairs, seconds = PairSet.read(project.pairs(labels.pairs)), labels.judge.segment_seconds
        with LabelStore.open(project.labels_db) as store:
            done = judge_pairs(OracleJudge(labels.judge), pairs, store, segment_seconds=seconds)
            preferences = collect(pairs, store, segment_seconds=seconds, only_annotators=[done.annotator])
        if labels.num_pairs is not None:
            preferences = first_pairs(preferences, labels.num_pairs)
        if not project.preferences(name).exists():
            write_preferences(preferences, project, name)


def first_pairs(preferences: Preferences, count: int) -> Preferences:
    """The preferences of the first so many training pairs, and of all others."""
    train = {row.pair_id for row in [r for r in preferences.rows if r.split == "train"][:count]}
    rows = tuple(row for row in preferences.rows if row.split != "train" or row.pair_id in train)
    return replace(preferences, rows=rows)


def measure_one(project: Project, study: Study, name: str, *, run: str | None, source: str = "model") -> None:
    """One report; the ceiling needs no sampler."""
    config = study.measure.model_copy(update={"source": source})
    if source != "model":
        config = config.model_copy(update={"num_steps": None, "guidance_scale": None, "seeds_per_prompt": 1})
    plan = plan_measurement(project, name, model=study.model, run=run, config=config)
    measure(plan, clip_source(plan))


def train(project: Project, study: Study, run: Run) -> None:
    """One run of one arm; one that is finished stays."""
    arm = study.arms[run.arm]
    learn_offline(
        project,
        run.name,
        pairs=study.labels[arm.labels].pairs,
        preferences=arm.labels,
        model=study.model,
        config=study.config_of(arm, seed=run.seed),
    )


def main() -> None:
    """Runs what is left of the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", help="names of arms")
    arguments = parser.parse_args()
    study = Study.model_validate(tomllib.loads(arguments.study.read_text(encoding="utf-8")))
    known = (arguments.out / PROJECT_FILE).is_file()
    project = find_project(arguments.out) if known else init_project(arguments.out)
    make_pairs(project, study)
    label(project, study)
    measure_one(project, study, "base", run=None)
    if study.ceiling:
        measure_one(project, study, "ceiling", run=None, source="autoencoder")
    finished: list[Run] = []
    for run in study.runs():
        if arguments.only and run.arm not in arguments.only:
            continue
        train(project, study, run)
        measure_one(project, study, run.name, run=run.name)
        finished.append(run)
        report = results(project, finished)
        (arguments.out / "results.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print_table(report)


if __name__ == "__main__":
    main()
