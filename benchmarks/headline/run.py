"""Runs a study: trains every arm with every seed and measures it against the base on the same prompts and noise.

    python benchmarks/headline/run.py benchmarks/headline/headline.toml --plan
    python benchmarks/headline/run.py benchmarks/headline/headline.toml --out build/headline
    python benchmarks/headline/run.py benchmarks/headline/ablations/eta.toml --out build/headline
    python benchmarks/headline/run.py benchmarks/headline/headline.toml --out build/quick --quick

Two runs at a time share the cores (--processes), which is faster than one after the other with all of them.
Everything is kept in a project under --out and resumes where it was cut. Studies that extend another share its --out:
what they have in common is made once. Results are written anew after every round of seeds, to a folder of
`benchmarks/headline/results/` named after the study and after what was left out of it; with --quick, which checks the
machinery in a few minutes, under --out.
"""

from __future__ import annotations

import argparse
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from command import at_once, open_project, run_command
from plan import plan
from reduction import Reduction, reduced
from study import load_study

from densedpo.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from command import Run
    from study import Study

    from densedpo.core.workspace import Project

RESULTS = Path(__file__).resolve().parent / "results"


def run_study(
    project: Project,
    study: Study,
    *,
    only: list[str] | None,
    after_round: Callable[[list[Run], dict[str, str]], None],
    processes: int = 1,
) -> None:
    """Makes what is missing, round by round.

    Args:
        only: names of arms; None is all.
        after_round: called with the runs that are finished by then, also those of earlier calls, and the annotators of
            the labels after every round of seeds.
        processes: so many runs at once, which share the cores.
    """
    from making import is_measured, label, make_pairs, measure_base

    make_pairs(project, study)
    annotators = label(project, study)
    with at_once(processes) as pool:
        base = pool.submit(measure_base, project, study)
        rounds = [
            [pool.submit(train_and_measure, project, study, run) for run in runs if only is None or run.arm in only]
            for _, runs in groupby(study.runs(), key=lambda run: run.seed)
        ]
        base.result()
        for each in rounds:
            for future in each:
                future.result()
            after_round([run for run in study.runs() if is_measured(project, study, run)], annotators)


def train_and_measure(project: Project, study: Study, run: Run) -> None:
    """One run, in a process of its own."""
    from making import measure_run, train

    train(project, study, run)
    measure_run(project, study, run)


def results_folder(study_file: Path, by: Reduction, *, out: Path) -> Path:
    """Where results go: those of the machinery only never stand beside real ones."""
    name = "-".join(part for part in (study_file.stem, by.label) if part)
    return (out / "results" if by.quick else RESULTS) / name


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the project; studies that extend another share it")
    parser.add_argument("--only", nargs="*", help="names of arms")
    parser.add_argument("--plan", action="store_true", help="say what would be made and how long it takes, and stop")
    parser.add_argument("--seeds", type=int, help="the first so many training seeds")
    parser.add_argument("--prompts", type=int, help="so many held-out prompts")
    parser.add_argument("--pairs", type=float, default=1.0, help="share of the pairs and labels")
    parser.add_argument("--steps", type=int, help="training steps")
    parser.add_argument("--processes", type=int, default=2, help="so many runs at once, which share the cores")
    parser.add_argument("--quick", action="store_true", help="a few minutes: checks the machinery, not the numbers")
    return parser.parse_args()


def main() -> None:
    """Runs what is left of the study."""
    arguments = parse()
    by = Reduction(
        seeds=arguments.seeds,
        prompts=arguments.prompts,
        pairs=arguments.pairs,
        steps=arguments.steps,
        quick=arguments.quick,
    )
    study = reduced(load_study(arguments.study), by)
    print(plan(study), flush=True)
    if by.quick:
        print("quick: this checks the machinery; its numbers say nothing about the methods", flush=True)
    if arguments.plan:
        return
    if arguments.out is None:
        raise BadInput("name a folder with --out")
    from results import collect_results, declared_late, write_results
    from table import table

    project = open_project(arguments.out)
    folder, name = results_folder(arguments.study, by, out=arguments.out), arguments.study.stem
    declared_late(project, study, name=name)

    def after_round(finished: list[Run], annotators: dict[str, str]) -> None:
        report = collect_results(project, study, finished, name=name, by=by, annotators=annotators)
        write_results(report, study, folder)
        print(table(report), flush=True)

    run_study(project, study, only=arguments.only, after_round=after_round, processes=arguments.processes)
    print(f"results are in {folder}")


if __name__ == "__main__":
    run_command(main)
