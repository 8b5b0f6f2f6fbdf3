"""Online against offline at equal judged clips and equal steps, with intervals over training seeds and prompts.

    python benchmarks/online/run.py --plan                      # what would be run, and how long it takes here
    python benchmarks/online/run.py --out build/online          # everything that is missing; goes on where it was cut
    python benchmarks/online/run.py --out build/quick --quick   # next to nothing of each arm: checks the machinery

Every arm of online.toml is trained once for each seed and measured on the same held-out prompts. Results are written
anew after every round of training seeds: results.json, with the claims and whether their intervals hold them, and
table.md in benchmarks/online/results/study, with another --study, --seeds or --quick under --out.
"""

from __future__ import annotations

import argparse
import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).resolve().parents[1]))
from of_headline import at_once, open_project, run_command
from passes import learning_passes, sampled_clips, sampling_passes, seconds_of_arm, timed_costs
from settings import read_study, with_seed

from densedpo.adapters import catalogue
from densedpo.core.progress import duration_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from of_headline import Run
    from settings import Study

    from densedpo.core.workspace import Project

HERE = Path(__file__).resolve().parent
STUDY = HERE / "online.toml"
RESULTS = HERE / "results" / "study"
BASE = "base"


def run_study(project: Project, study: Study, *, processes: int, after_round: Callable[[list[Run]], None]) -> None:
    """Does what is left of the study.

    Args:
        after_round: called with the runs that are measured, after every round of training seeds.
    """
    from densedpo.data.latents import encode_clips
    from densedpo.data.world import add_world

    add_world(project, geometry=catalogue.geometry(study.model), config=study.data)
    encode_clips(project, catalogue.load(study.model), batch=study.data.latent_batch)
    measured: list[Run] = []
    with at_once(processes) as pool:
        base = pool.submit(measure, project, study, BASE, run=None)
        for _, round_ in groupby(study.runs(), key=lambda run: run.seed):
            runs = list(round_)
            for future in [base, *(pool.submit(train_and_measure, project, study, run) for run in runs)]:
                future.result()
            measured += runs
            after_round(measured)


def train_and_measure(project: Project, study: Study, run: Run) -> None:
    """One arm with one training seed."""
    from densedpo.learn.online.run import learn_online

    learn_online(project, run.name, model=study.model, config=with_seed(study.arms[run.arm], run.seed))
    measure(project, study, run.name, run=run.name)


def measure(project: Project, study: Study, name: str, *, run: str | None) -> None:
    """Measures a run, or the base, as `densedpo measure run` does."""
    from densedpo.measure.plan import plan_measurement
    from densedpo.measure.run import measure as measure_plan
    from densedpo.measure.sample import clip_source

    plan = plan_measurement(project, name, model=study.model, run=run, config=study.measure)
    measure_plan(plan, clip_source(plan))


def print_plan(study: Study) -> None:
    """What each arm makes for one seed, and how long the whole study takes on this machine, by timed pieces."""
    num_steps = catalogue.defaults(study.model).num_steps
    costs = timed_costs(study.model)
    measured = study.measure.num_prompts * study.measure.seeds_per_prompt
    total = 0.0
    for arm, config in study.arms.items():
        steps = config.sampler_steps or num_steps
        seconds_of_seed = seconds_of_arm(config, costs, num_steps=steps, measured_clips=measured)
        total += seconds_of_seed * len(study.seeds)
        print(
            f"{arm}: {sampled_clips(config)} judged clips ({sampling_passes(config, num_steps=steps):,} passes) and "
            f"{config.training.num_steps} steps ({learning_passes(config):,} passes): about "
            f"{duration_text(seconds_of_seed)} a seed"
        )
    print(
        f"{len(study.arms)} arms x {len(study.seeds)} seeds: about {duration_text(total)} of one core of this machine"
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the study's project; needed, but for --plan")
    parser.add_argument("--study", type=Path, default=STUDY)
    parser.add_argument("--seeds", type=int, nargs="+", help="some of the training seeds")
    parser.add_argument("--processes", type=int, default=2, help="so many runs at once, which share the cores")
    parser.add_argument("--quick", action="store_true", help="next to nothing: checks the machinery, not the numbers")
    parser.add_argument("--plan", action="store_true", help="say what would be run and how long it takes, and stop")
    options = parser.parse_args(arguments)
    if options.out is None and not options.plan:
        parser.error("--out is needed, but for --plan")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    options = parse(arguments)
    study = read_study(options.study, quick=options.quick, seeds=options.seeds)
    if options.plan:
        print_plan(study)
        return
    from found import collect, table, write

    whole = options.study == STUDY and not options.quick and options.seeds is None
    folder = RESULTS if whole else options.out / "results"
    project = open_project(options.out)

    def after_round(measured: list[Run]) -> None:
        report = collect(project, study, measured, quick=options.quick)
        write(report, study, folder)
        print(table(report, study), flush=True)

    run_study(project, study, processes=options.processes, after_round=after_round)
    print(f"results are in {folder}")


if __name__ == "__main__":
    run_command(main)
