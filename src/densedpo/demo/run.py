"""The whole loop on the shipped model: the functions of the verbs in their order, with two controls and a ceiling.

Nothing here is special to the demo but the sizes, which `recipes/demo.toml` and `recipes/long_demo.toml` hold. Every
stage resumes, so a demo that was interrupted goes on where it was.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

from densedpo.adapters import catalogue
from densedpo.core.config import Config
from densedpo.core.errors import BadInput
from densedpo.core.progress import duration_text
from densedpo.core.workspace import PROJECT_FILE, Project, find_project, init_project
from densedpo.data.config import DataConfig
from densedpo.generate.config import GuidedConfig
from densedpo.judge.oracle import OracleConfig
from densedpo.learn.config import LearnConfig
from densedpo.measure.config import CompareConfig, MeasureConfig

if TYPE_CHECKING:
    from densedpo.measure.compare import ComparisonReport

PAIRS: Final = "guided"
DENSE, SHUFFLED, SFT = "dense_dpo", "shuffled", "sft"


class DemoConfig(Config):
    """The settings of every stage of the demo."""

    model: str = "tiny"
    data: DataConfig
    generate: GuidedConfig
    judge: OracleConfig
    learn: LearnConfig
    measure: MeasureConfig
    compare: CompareConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoResult:
    """Where the report is and what it found."""

    page: Path
    report: ComparisonReport


def demo_config(*, long: bool = False) -> DemoConfig:
    """The sizes that fit 2 CPU cores and 5 minutes, or enough pairs and prompts to see a gain in about 20."""
    text = files("densedpo.recipes").joinpath("long_demo.toml" if long else "demo.toml").read_text(encoding="utf-8")
    return DemoConfig.model_validate(tomllib.loads(text))


def open_demo_project(folder: Path) -> Project:
    """The demo's project: a new one, or the one that an interrupted demo left.

    Raises:
        BadInput: the folder holds something else.
    """
    if (folder / PROJECT_FILE).is_file():
        return find_project(folder)
    if folder.exists() and any(folder.iterdir()):
        raise BadInput(f"{folder} is not empty and not a project; give another folder with --project")
    return init_project(folder)


def run_demo(project: Project, config: DemoConfig, *, say: Callable[[str], None]) -> DemoResult:
    """Runs the five stages; what is done already is kept.

    Args:
        say: takes one line on what begins.
    """
    started = time.monotonic()

    def stage(number: int, text: str) -> None:
        say(f"[{number}/5] {text} ({duration_text(time.monotonic() - started)} so far)")

    stage(1, "data: captioned clips of the procedural world, and their latents")
    _add_clips(project, config)
    stage(2, f"generate: {config.generate.num_pairs} guided pairs, one real clip noised part way and denoised twice")
    _make_pairs(project, config)
    stage(3, "judge: the oracle answers segment by segment")
    _judge(project, config)
    stage(4, "learn: DenseDPO, the same with shuffled labels, and SFT at equal compute")
    _learn(project, config)
    stage(5, "measure: held-out prompts, same prompts and seeds for every model")
    result = _measure(project, config)
    say(f"done in {duration_text(time.monotonic() - started)}")
    return result


def _add_clips(project: Project, config: DemoConfig) -> None:
    from densedpo.data.latents import encode_clips
    from densedpo.data.world import add_world

    add_world(project, geometry=catalogue.geometry(config.model), config=config.data)
    encode_clips(project, catalogue.load(config.model), batch=config.data.latent_batch)


def _make_pairs(project: Project, config: DemoConfig) -> None:
    from densedpo.generate.pairs import generate_pairs
    from densedpo.generate.plan import plan_guided

    generate_pairs(plan_guided(project, PAIRS, model=config.model, config=config.generate))


def _judge(project: Project, config: DemoConfig) -> None:
    from densedpo.judge.oracle import OracleJudge
    from densedpo.judge.pairset import PairSet
    from densedpo.judge.preferences import collect, write_preferences
    from densedpo.judge.run import judge_pairs
    from densedpo.judge.store import LabelStore

    pairs, seconds = PairSet.read(project.pairs(PAIRS)), config.judge.segment_seconds
    with LabelStore.open(project.labels_db) as store:
        done = judge_pairs(OracleJudge(config.judge), pairs, store, segment_seconds=seconds)
        preferences = collect(pairs, store, segment_seconds=seconds, only_annotators=[done.annotator])
    write_preferences(preferences, project, PAIRS)


def _learn(project: Project, config: DemoConfig) -> None:
    from densedpo.learn.run import learn_offline

    controls: dict[str, dict[str, object]] = {
        DENSE: {},
        SHUFFLED: {"shuffle_labels": True},
        SFT: {"objective": "sft", "draws": "fresh", "select": "last", "patience": 0, "loser_safeguard": None},
    }
    for name, changes in controls.items():
        learn_offline(
            project,
            name,
            pairs=PAIRS,
            preferences=PAIRS,
            model=config.model,
            config=LearnConfig.model_validate({**config.learn.model_dump(), **changes}),
        )


def _measure(project: Project, config: DemoConfig) -> DemoResult:
    from densedpo.measure.compare import compare
    from densedpo.measure.page import find_evidence, write_comparison
    from densedpo.measure.plan import plan_measurement
    from densedpo.measure.run import measure
    from densedpo.measure.sample import clip_source

    ceiling = MeasureConfig(source="autoencoder", num_prompts=config.measure.num_prompts, seed=config.measure.seed)
    subjects = {"base": (None, config.measure), **{n: (n, config.measure) for n in (DENSE, SHUFFLED, SFT)}}
    for name, (run, settings) in {**subjects, "ceiling": (None, ceiling)}.items():
        plan = plan_measurement(project, name, model=config.model, run=run, config=settings)
        measure(plan, clip_source(plan))
    others = [DENSE, SHUFFLED, SFT, "ceiling"]
    command = " ".join(["densedpo measure compare demo base", *others])
    comparison = compare(project, "demo", ["base", *others], command=command, config=config.compare)
    evidence = find_evidence(project, comparison, run=DENSE, pairs=PAIRS, preferences=PAIRS)
    return DemoResult(page=write_comparison(project, comparison, evidence, config.compare), report=comparison.report)
