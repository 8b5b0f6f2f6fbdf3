"""HuViDPO's two stages on a small model that continues a first frame, measured against the model of its first stage.

    python benchmarks/huvidpo/run.py --plan                     # what would be made, and about how long it takes
    python benchmarks/huvidpo/run.py --out build/huvidpo        # everything that is missing; goes on where it was cut
    python benchmarks/huvidpo/run.py --out build/quick --quick  # next to nothing of everything: checks the machinery

All settings are in huvidpo.toml (--quick: quick.toml). Results are written anew after every round of training seeds:
results.json, study.toml and table.md in benchmarks/huvidpo/results, with another --study or --quick under --out.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).resolve().parents[1]))
from of_headline import at_once, open_project, run_command
from settings import Study, plan_text

from densedpo.core.config import load_config

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from of_headline import Run

    from densedpo.core.workspace import Project

HERE = Path(__file__).resolve().parent
STUDY = HERE / "huvidpo.toml"
QUICK = HERE / "quick.toml"


def run_study(project: Project, study: Study, *, processes: int, after_round: Callable[[Sequence[Run]], None]) -> None:
    """Makes what is missing: what all share, then round by round of training seeds.

    Args:
        processes: so many runs at once, which share the cores.
        after_round: called with the runs that are measured by then.
    """
    import steps

    steps.prepare(project, study)
    all_done([partial(steps.measure_level, project, study, name) for name in steps.LEVELS], processes=processes)
    for _, round_ in groupby(study.runs(), key=lambda run: run.seed):
        all_done([partial(steps.train_and_measure, project, study, run) for run in round_], processes=processes)
        after_round([run for run in study.runs() if steps.is_measured(project, run)])


def all_done(tasks: Sequence[Callable[[], None]], *, processes: int) -> None:
    """Does all tasks, so many at once; one at a time in this very process."""
    if processes == 1:
        for task in tasks:
            task()
        return
    with at_once(processes) as pool:
        for future in [pool.submit(task) for task in tasks]:
            future.result()


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder of the project")
    parser.add_argument("--study", type=Path, help="another file of settings than huvidpo.toml")
    parser.add_argument("--quick", action="store_true", help="next to nothing: checks the machinery, not the numbers")
    parser.add_argument("--plan", action="store_true", help="say what would be made and how long it takes, and stop")
    parser.add_argument("--processes", type=int, default=2, help="so many runs at once, which share the cores")
    options = parser.parse_args(arguments)
    if options.quick and options.study is not None:
        parser.error("--quick has settings of its own: leave out --study")
    if options.out is None and not options.plan:
        parser.error("--out is needed, but for --plan")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    options = parse(arguments)
    file = QUICK if options.quick else options.study or STUDY
    study = load_config(Study, file, [])
    print(plan_text(study), flush=True)
    if options.quick:
        print("quick: this checks the machinery; its numbers say nothing about the method", flush=True)
    if options.plan:
        return
    from found import collect, table, write

    out = options.out
    project = open_project(out)
    folder = HERE / "results" if file == STUDY else out / "results"

    def after_round(measured: Sequence[Run]) -> None:
        report = collect(project, study, measured, quick=options.quick)
        write(report, study, folder)
        print(table(report), flush=True)

    run_study(project, study, processes=options.processes, after_round=after_round)
    print(f"results are in {folder}")


if __name__ == "__main__":
    run_command(main)
