"""Online against offline at equal judged clips and equal steps, with intervals over training seeds and prompts.

    python benchmarks/online/run.py --plan                        # what would be run, and how long it takes here
    python benchmarks/online/run.py --project FOLDER              # everything that is missing; goes on where it was cut
    python benchmarks/online/run.py --project FOLDER --seeds 0    # one training seed
    python benchmarks/online/run.py --project FOLDER --quick      # next to nothing of each arm: checks the machinery

Every arm of online.toml is trained once for each seed and measured on the same held-out prompts; results.json, with
the claims and whether their intervals hold them, and a table of contrasts lie in the project's folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from passes import learning_passes, sampled_clips, sampling_passes, seconds_of_arm, timed_costs

from densedpo.adapters import catalogue
from densedpo.core.files import write_atomic
from densedpo.core.progress import duration_text
from densedpo.core.provenance import provenance
from densedpo.core.workspace import PROJECT_FILE, Project, init_project
from densedpo.data.config import DataConfig
from densedpo.learn.online.config import OnlineConfig
from densedpo.learn.online.run import learn_online
from densedpo.measure.config import MeasureConfig
from densedpo.measure.records import read_measured
from densedpo.metrics.statistics import TwoWayDifference, two_way_difference

HERE = Path(__file__).parent
MODEL = "tiny"
BASE = "base"


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What was said before anything ran: one arm has more, or less, of a metric than another."""

    arm: str
    against: str
    metric: str
    goal: Literal["higher", "lower"]

    def holds(self, low: float | None, high: float | None) -> bool:
        """Whether the interval of the difference lies on the claimed side of 0."""
        return (low is not None and low > 0) if self.goal == "higher" else (high is not None and high < 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """What is run: the settings of each arm, and what is compared."""

    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    contrasts: tuple[tuple[str, str], ...]
    claims: tuple[Claim, ...]
    data: DataConfig
    measure: MeasureConfig
    arms: Mapping[str, OnlineConfig]


def read_study(path: Path, *, quick: bool = False) -> Study:
    """The study of a TOML file; an arm's settings are the common ones with its own in their place.

    Args:
        quick: with those of the file's table `quick` in the place of what stands outside of it.
    """
    row: Mapping[str, object] = tomllib.loads(path.read_text(encoding="utf-8"))
    if quick:
        row = merged(row, table_of(row, "quick"))
    arms = table_of(row, "arms")
    return Study(
        seeds=tuple(row["seeds"]),
        metrics=tuple(row["metrics"]),
        contrasts=tuple((one, other) for one, other in row["contrasts"]),
        claims=tuple(Claim(**claim) for claim in row["claims"]),
        data=DataConfig.model_validate({"world": row["data"]}),
        measure=MeasureConfig.model_validate(row["measure"]),
        arms={
            name: OnlineConfig.model_validate(merged(table_of(row, "online"), table_of(arms, name))) for name in arms
        },
    )


def table_of(row: Mapping[str, object], name: str) -> Mapping[str, object]:
    """A table of a TOML file."""
    found = row[name]
    if not isinstance(found, dict):
        raise SystemExit(f"{name} is a table in a study")
    return found


def merged(common: Mapping[str, object], own: Mapping[str, object]) -> dict[str, object]:
    """Settings with some replaced; tables are merged key by key."""
    found = dict(common)
    for name, value in own.items():
        before = found.get(name)
        found[name] = merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return found


def with_seed(config: OnlineConfig, seed: int) -> OnlineConfig:
    """An arm's settings for one training seed."""
    return config.model_copy(update={"learn": config.learn.model_copy(update={"seed": seed, "noise_seed": seed})})


def open_study(folder: Path, study: Study) -> Project:
    """The study's project, with its clips; made if it is missing."""
    from densedpo.data.latents import encode_clips
    from densedpo.data.world import add_world

    project = Project(root=folder) if (folder / PROJECT_FILE).is_file() else init_project(folder)
    add_world(project, geometry=catalogue.geometry(MODEL), config=study.data)
    encode_clips(project, catalogue.load(MODEL), batch=study.data.latent_batch)
    return project


def measure(project: Project, name: str, run: str | None, config: MeasureConfig) -> None:
    """Measures a run, or the base, as `densedpo measure run` does."""
    from densedpo.measure.plan import plan_measurement
    from densedpo.measure.run import measure as measure_plan
    from densedpo.measure.sample import clip_source

    plan = plan_measurement(project, name, model=MODEL, run=run, config=config)
    measure_plan(plan, clip_source(plan))


def values(project: Project, arm: str, metric: str, seeds: Sequence[int]) -> dict[tuple[int, str], float | None]:
    """One metric of an arm by training seed and prompt; of the base, which has one training, for every seed."""
    found: dict[tuple[int, str], float | None] = {}
    for seed in seeds:
        name = BASE if arm == BASE else f"{arm}-{seed}"
        clips = [(score.prompt_id, score.values.get(metric)) for score in read_measured(project, name).scores]
        found |= {(seed, prompt): value for prompt, value in means(clips).items()}
    return found


def means(clips: Sequence[tuple[str, float | None]]) -> dict[str, float | None]:
    """The mean of each prompt's clips, of those that have a value; None where none has."""
    by_prompt: dict[str, list[float]] = {prompt: [] for prompt, _ in clips}
    for prompt, value in clips:
        if value is not None:
            by_prompt[prompt].append(value)
    return {prompt: sum(own) / len(own) if own else None for prompt, own in by_prompt.items()}


def contrasts(project: Project, study: Study, seeds: Sequence[int]) -> list[dict[str, object]]:
    """Every contrast and each arm against the base, on every metric."""
    pairs = [*study.contrasts, *((arm, BASE) for arm in study.arms)]
    rows: list[dict[str, object]] = []
    for one, other in pairs:
        for metric in study.metrics:
            found: TwoWayDifference | None = two_way_difference(
                values(project, other, metric, seeds), values(project, one, metric, seeds), seed=0
            )
            rows.append({
                "arm": one, "against": other, "metric": metric,
                "difference": None if found is None else asdict(found.estimate),
            })  # fmt: skip
    return rows


def seconds(project: Project, study: Study, seeds: Sequence[int]) -> list[dict[str, object]]:
    """Where the time of each arm went, per round, in the mean over seeds."""
    rows = []
    for arm in study.arms:
        found = [json.loads((project.run(f"{arm}-{seed}") / "summary.json").read_text()) for seed in seeds]
        per_round = {
            phase: sum(row[f"{phase}_seconds"] / row["rounds"] for row in found) / len(found)
            for phase in ("sampling", "judging", "learning")
        }
        clips = sum(row["num_rollouts"] for row in found) / len(found)
        rows.append({"arm": arm, "judged_clips": clips, **{name: round(value, 2) for name, value in per_round.items()}})
    return rows


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """The contrasts as Markdown."""
    lines = ["| arm | against | metric | difference | 95 % interval |", "|---|---|---|---|---|"]
    for row in rows:
        estimate = row["difference"]
        text = ("not computed", "")
        if isinstance(estimate, dict):
            low, high = estimate["low"], estimate["high"]
            text = (f"{estimate['value']:+.4f}", "none" if low is None else f"[{low:+.4f}, {high:+.4f}]")
        lines.append(f"| {row['arm']} | {row['against']} | {row['metric']} | {text[0]} | {text[1]} |")
    return "\n".join(lines)


def verdicts(study: Study, rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Of each claim the difference that was found, and whether its interval holds it."""
    found = []
    for claim in study.claims:
        (row,) = (r for r in rows if (r["arm"], r["against"], r["metric"]) == (claim.arm, claim.against, claim.metric))
        estimate = row["difference"]
        holds = isinstance(estimate, dict) and claim.holds(estimate["low"], estimate["high"])
        found.append({**asdict(claim), "difference": estimate, "holds": holds})
    return found


def print_plan(study: Study, seeds: Sequence[int]) -> None:
    """What each arm makes for one seed, and how long the whole study takes on this machine, by timed pieces."""
    num_steps = catalogue.defaults(MODEL).num_steps
    costs = timed_costs(MODEL)
    measured = study.measure.num_prompts * study.measure.seeds_per_prompt
    total = 0.0
    for arm, config in study.arms.items():
        steps = config.sampler_steps or num_steps
        seconds_of_seed = seconds_of_arm(config, costs, num_steps=steps, measured_clips=measured)
        total += seconds_of_seed * len(seeds)
        print(
            f"{arm}: {sampled_clips(config)} judged clips ({sampling_passes(config, num_steps=steps):,} passes) and "
            f"{config.training.num_steps} steps ({learning_passes(config):,} passes): about "
            f"{duration_text(seconds_of_seed)} a seed"
        )
    print(f"{len(study.arms)} arms x {len(seeds)} seeds: about {duration_text(total)} of one core of this machine")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path)
    parser.add_argument("--study", type=Path, default=HERE / "online.toml")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--quick", action="store_true", help="next to nothing: checks the machinery, not the numbers")
    parser.add_argument("--plan", action="store_true", help="say what would be run and how long it takes, and stop")
    options = parser.parse_args(arguments)
    if options.project is None and not options.plan:
        parser.error("--project is needed, but for --plan")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    options = parse(arguments)
    study = read_study(options.study, quick=options.quick)
    seeds = options.seeds or study.seeds
    if options.plan:
        print_plan(study, seeds)
        return
    sys.path.append(str(HERE))  # where frame_reward lies
    project = open_study(options.project, study)
    measure(project, BASE, None, study.measure)
    for seed in seeds:
        for arm, config in study.arms.items():
            settings = with_seed(config, seed)
            learn_online(project, f"{arm}-{seed}", model=MODEL, config=settings)
            measure(project, f"{arm}-{seed}", f"{arm}-{seed}", study.measure)
    rows = contrasts(project, study, seeds)
    result = {
        "quick": options.quick, "seeds": list(seeds), "claims": verdicts(study, rows), "contrasts": rows,
        "seconds_per_round": seconds(project, study, seeds), "made": provenance(),
    }  # fmt: skip
    write_atomic(options.project / "results.json", json.dumps(result, indent=1) + "\n")
    print(table(rows))
    for row in result["claims"]:
        said = f"{row['arm']} has {row['goal']} {row['metric']} than {row['against']}"
        print(f"{said}: {'held' if row['holds'] else 'not shown'}")
    for row in result["seconds_per_round"]:
        print(row)
    if options.quick:
        print("quick: this checks the machinery; its numbers say nothing about the methods")


if __name__ == "__main__":
    main()
