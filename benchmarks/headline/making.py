"""The stages of a study, through the functions of the verbs: each resumes where it was cut."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from study import CorruptedPairs, GuidedPairs, OracleLabels, RealLabels, ReferenceLabels, report_name

from densedpo.adapters import catalogue
from densedpo.core.errors import BadInput
from densedpo.core.records import Preference, read_jsonl
from densedpo.data.latents import encode_clips
from densedpo.data.world import add_world
from densedpo.generate.corrupted.plan import plan_corrupted
from densedpo.generate.corrupted.run import generate_corrupted
from densedpo.generate.pairs import generate_pairs
from densedpo.generate.plan import plan_guided, plan_independent
from densedpo.judge.aggregate import summarise
from densedpo.judge.known import RealJudge
from densedpo.judge.oracle import OracleConfig, OracleJudge
from densedpo.judge.pairset import PairSet
from densedpo.judge.preferences import Preferences, collect, write_preferences
from densedpo.judge.reference import RealClips, ReferenceConfig, ReferenceJudge
from densedpo.judge.reward.judge import RewardConfig, RewardJudge
from densedpo.judge.run import judge_pairs
from densedpo.judge.store import LabelStore
from densedpo.learn.run import learn_offline
from densedpo.measure.plan import plan_measurement
from densedpo.measure.records import REPORT_FILE
from densedpo.measure.run import measure
from densedpo.measure.sample import clip_source

if TYPE_CHECKING:
    from command import Run
    from study import Labels, Study

    from densedpo.core.workspace import Project
    from densedpo.judge.protocol import Judge
    from densedpo.measure.config import MeasureConfig

BASE, CEILING = "base", "ceiling"


def make_pairs(project: Project, study: Study) -> None:
    """Clips, latents, and the sets of pairs that an arm needs."""
    add_world(project, geometry=catalogue.geometry(study.model), config=study.data)
    encode_clips(project, catalogue.load(study.model), batch=study.data.latent_batch)
    for name, config in study.used_pairs().items():
        if isinstance(config, CorruptedPairs):
            generate_corrupted(plan_corrupted(project, name, model=study.model, config=config))
        elif isinstance(config, GuidedPairs):
            generate_pairs(plan_guided(project, name, model=study.model, config=config))
        else:
            generate_pairs(plan_independent(project, name, model=study.model, config=config))


def label(project: Project, study: Study) -> dict[str, str]:
    """The sets of preferences that an arm needs.

    Returns:
        The annotator of each set of labels.

    Raises:
        BadInput: a set of that name was made of other labels, or there are fewer training pairs than it asks for.
    """
    annotators = {}
    for name, labels in study.used_labels().items():
        pairs, seconds = PairSet.read(project.pairs(labels.pairs)), labels.judge.segment_seconds
        with LabelStore.open(project.labels_db) as store:
            done = judge_pairs(judge_of(project, labels), pairs, store, segment_seconds=seconds)
            preferences = collect(pairs, store, segment_seconds=seconds, only_annotators=[done.annotator])
        if labels.num_pairs is not None:
            preferences = first_pairs(preferences, labels.num_pairs, name=name)
        path = project.preferences(name)
        if not path.exists():
            write_preferences(preferences, project, name)
        elif tuple(read_jsonl(path, Preference, skip=1)) != preferences.rows:
            raise BadInput(f"{project.relative(path)} holds other labels than the study's {name!r}; use another --out")
        annotators[name] = done.annotator
    return annotators


def judge_of(project: Project, labels: Labels) -> Judge:
    """The judge that a study names, under the name that the verb would give it."""
    options = labels.judge.model_dump(exclude={"kind"})
    if isinstance(labels.judge, OracleLabels):
        return OracleJudge(OracleConfig(**options))
    if isinstance(labels.judge, ReferenceLabels):
        return ReferenceJudge(ReferenceConfig(**options), RealClips.of(project.clips))
    if isinstance(labels.judge, RealLabels):
        return RealJudge()
    return RewardJudge(RewardConfig(**options))


def first_pairs(preferences: Preferences, count: int, *, name: str) -> Preferences:
    """The preferences of the first so many training pairs, and of all others.

    Raises:
        BadInput: there are fewer.
    """
    train = [row.pair_id for row in preferences.rows if row.split == "train"]
    if len(train) < count:
        raise BadInput(f"labels {name!r} are of {count} training pairs, and there are {len(train)}; make more pairs")
    kept = set(train[:count])
    rows = tuple(row for row in preferences.rows if row.split != "train" or row.pair_id in kept)
    of_rows = summarise(rows)
    header = replace(
        preferences.header,
        num_pairs=of_rows.num_pairs,
        num_segments=of_rows.num_segments,
        num_judgements=sum(row.num_judgements for row in rows),
        tie_share=of_rows.tie_share,
        both_signs_share=of_rows.both_signs_share,
        a_share=of_rows.a_share,
    )
    return replace(preferences, header=header, rows=rows)


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


def measure_base(project: Project, study: Study) -> None:
    """The base model, and what the autoencoder leaves of the real clips of the same prompts."""
    _report(project, study, BASE, config=study.measure)
    if study.ceiling:
        _report(project, study, CEILING, config=ceiling_config(study))
    if study.diversity is not None:
        _report(project, study, BASE, config=study.diversity)


def ceiling_config(study: Study) -> MeasureConfig:
    """Of the ceiling, which needs no sampler and has one clip for each prompt."""
    plain: dict[str, object] = {"num_steps": None, "guidance_scale": None, "seeds_per_prompt": 1}
    return study.measure.model_copy(update={"source": "autoencoder", **plain})


def measure_run(project: Project, study: Study, run: Run) -> None:
    """One run on the prompts and seeds of the base."""
    for config in filter(None, (study.measure, study.diversity)):
        _report(project, study, run.name, config=config, run=run.name)


def is_measured(project: Project, study: Study, run: Run) -> bool:
    """Whether all reports of a run are there."""
    configs = filter(None, (study.measure, study.diversity))
    return all((project.report(report_name(run.name, config)) / REPORT_FILE).is_file() for config in configs)


def _report(project: Project, study: Study, measured: str, *, config: MeasureConfig, run: str | None = None) -> None:
    name = report_name(measured, config)
    plan = plan_measurement(project, name, model=study.model, run=run, config=config)
    measure(plan, clip_source(plan))
