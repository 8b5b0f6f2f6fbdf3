"""The steps of the study, through the functions of the verbs: each resumes where it was cut."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

from continuity import CONTINUITY_FILE, write_continuity
from person import Person, overall_of
from settings import STAGE, pairs_name

from densedpo.adapters import catalogue
from densedpo.adapters.directory import SETTINGS_FILE
from densedpo.adapters.files import read_json
from densedpo.core.errors import BadInput
from densedpo.core.files import write_atomic, writing
from densedpo.core.provenance import sha256_json
from densedpo.core.records import Preference, Prompt, from_row, read_jsonl, write_jsonl
from densedpo.core.seeds import generator
from densedpo.core.workspace import read_stamp, write_stamp
from densedpo.data.latents import encode_clips
from densedpo.data.world import add_world
from densedpo.generate.first_frames import FRAMES_FILE, DrawnFrame, png_of
from densedpo.generate.pairs import generate_pairs
from densedpo.generate.plan import plan_independent
from densedpo.generate.prompts import select_prompts
from densedpo.generate.resume import require_same_settings, write_settings
from densedpo.judge.pairset import PairSet
from densedpo.judge.preferences import collect, write_preferences
from densedpo.judge.run import judge_pairs
from densedpo.judge.store import LabelStore
from densedpo.judge.studies.scored import ScoredConfig, pair_scored
from densedpo.learn.run import learn_offline
from densedpo.learn.stages import Stages, learn_stages
from densedpo.learn.watch.track import read_metrics
from densedpo.measure.plan import plan_measurement
from densedpo.measure.run import measure
from densedpo.measure.sample import clip_source
from densedpo.world.render import render
from densedpo.world.scene import OFFSET_DRAWN, PHASE_DRAWN, Scene

if TYPE_CHECKING:
    from pathlib import Path

    from of_headline import Run
    from pydantic import JsonValue
    from settings import Study

    from densedpo.adapters.base import Geometry
    from densedpo.core.workspace import Project
    from densedpo.measure.config import MeasureConfig

UNTRAINED, BASE, CEILING = "untrained", "base", "ceiling"
LEVELS = (UNTRAINED, BASE, CEILING)
"""Reports: the copy before stage 1, the pre-trained model of the study, the real clips through the autoencoder."""
FRAMES, SCORED = "frames", "scored"
DRAWN_BY = "the world's renderer"
_MODEL_FOLDER = "model"
_LAST_STEPS = 10
_LAST = ("loss", "accuracy", "win_gap", "lose_gap")


def prepare(project: Project, study: Study) -> None:
    """Everything that the runs of stage 2 share: the copy, clips, stage 1, frames, scored clips and their pairs."""
    model = continuing_copy(project, study.model)
    add_world(project, geometry=catalogue.geometry(model), config=study.data)
    encode_clips(project, catalogue.load(model), batch=study.data.latent_batch)
    learn_stages(Stages(project=project, name=STAGE, model=model, config=study.stages))
    draw_frames(project, study)
    sample_clips(project, study)
    score_clips(project, study)
    for choose in study.chosen():
        pair_clips(project, choose)


def continuing_copy(project: Project, model: str) -> Path:
    """A copy of a Wan text-to-video model in the form of Wan 2.2 TI2V: each token has a timestep of its own.

    The weights are the same; a given frame's tokens stand at t = 0 from now on, which they have never seen.
    """
    folder, source = project.root / _MODEL_FOLDER, catalogue.find(model)
    if not (folder / "model_index.json").is_file():
        own = shutil.ignore_patterns("model_index.json", SETTINGS_FILE)
        shutil.copytree(source, folder, ignore=own, dirs_exist_ok=True)
        _rewrite(source / SETTINGS_FILE, folder / SETTINGS_FILE, first_frame=True)
        # last: its presence says that the copy is whole
        _rewrite(source / "model_index.json", folder / "model_index.json", expand_timesteps=True)
    return folder


def _rewrite(source: Path, copy: Path, **changes: JsonValue) -> None:
    write_atomic(copy, json.dumps({**read_json(source), **changes}, indent=2) + "\n")


def model_of(project: Project) -> Path:
    """The copy that continues a first frame."""
    return project.root / _MODEL_FOLDER


def draw_frames(project: Project, study: Study) -> None:
    """A first frame for each of the prompts, in the place of a text-to-image model's: pairs/frames.

    The renderer draws the caption's scene at another place and phase than the caption's own clip has: no clip that
    stage 1 saw begins with it.
    """
    scored, geometry, folder = study.scored, catalogue.geometry(model_of(project)), project.pairs(FRAMES)
    settings: dict[str, JsonValue] = {
        "kind": "first_frames",
        "model": DRAWN_BY,
        "seed": scored.frame_seed,
        "num_prompts": scored.num_prompts,
        "height": geometry.height,
        "width": geometry.width,
    }
    require_same_settings(folder, settings)
    if folder.is_dir() and read_stamp(folder) is not None:
        return
    prompts = select_prompts(project, ("train",), seed=scored.frame_seed, allow_clipless=False)
    if len(prompts) < scored.num_prompts:
        raise BadInput(f"scored.num_prompts = {scored.num_prompts}, but the world has {len(prompts)} training prompts")
    with writing(folder):
        write_settings(folder, settings)
        chosen = prompts[: scored.num_prompts]
        rows = [_draw(prompt, scored.frame_seed, geometry=geometry, folder=folder) for prompt in chosen]
        write_jsonl(folder / FRAMES_FILE, rows)
        write_stamp(folder, [project.clips], project)


def _draw(prompt: Prompt, seed: int, *, geometry: Geometry, folder: Path) -> DrawnFrame:
    scene = from_row(Scene, prompt.scene, f"prompt {prompt.id}: scene")
    noise_key = f"{seed}/{prompt.id}/first frame/0"
    drawn = generator("first frame", noise_key)
    elsewhere = replace(
        scene,
        offset_x=float(drawn.uniform(-OFFSET_DRAWN, OFFSET_DRAWN)),
        offset_y=float(drawn.uniform(-OFFSET_DRAWN, OFFSET_DRAWN)),
        phase=float(drawn.uniform(0, PHASE_DRAWN)),
    )
    data = png_of(render(elsewhere, num_frames=1)[0], height=geometry.height, width=geometry.width)
    id_ = f"frame-{sha256_json([DRAWN_BY, geometry.height, geometry.width, prompt.caption, noise_key])[:16]}"
    image = f"frames/{id_}.png"
    write_atomic(folder / image, data)
    return DrawnFrame(
        id=id_,
        prompt_id=prompt.id,
        caption=prompt.caption,
        split=prompt.split,
        number=0,
        noise_key=noise_key,
        model=DRAWN_BY,
        num_steps=0,
        guidance_scale=0.0,
        height=geometry.height,
        width=geometry.width,
        image=image,
        content=hashlib.sha256(data).hexdigest(),
    )


def sample_clips(project: Project, study: Study) -> None:
    """The clips that the person scores: several of each frame, from different noises, by stage 1's model."""
    scored = study.scored
    own: dict[str, object] = {
        "num_pairs": scored.num_prompts * scored.clips_per_prompt // 2,
        "start_from": f"{STAGE}-1",
        "first_frames": FRAMES,
        "splits": ("train",),
    }
    config = scored.clips.model_copy(update=own)
    generate_pairs(plan_independent(project, SCORED, model=model_of(project), config=config))


def score_clips(project: Project, study: Study) -> None:
    """The person's scores of all clips, in the store."""
    pairs = PairSet.read(project.pairs(SCORED))
    person = Person(study.person, overall_of(pairs, project.root / "overall.json"))
    with LabelStore.open(project.labels_db) as store:
        judge_pairs(person, pairs, store, segment_seconds=None)


def pair_clips(project: Project, choose: str) -> None:
    """The pairs that the scores make, in one of the ways, and the preferences about them.

    Raises:
        BadInput: preferences of that name say something else, as after a change of the person.
    """
    name, geometry = pairs_name(choose), catalogue.geometry(model_of(project))
    with LabelStore.open(project.labels_db) as store:
        config = ScoredConfig.model_validate({"choose": choose})
        pair_scored(project, name, source=SCORED, store=store, config=config)
        pairs = PairSet.read(project.pairs(name))
        # one segment, the whole clip: what was said is about it
        seconds = geometry.num_frames / geometry.fps
        preferences = collect(pairs, store, segment_seconds=seconds, only_annotators=[Person.annotator])
    path = project.preferences(name)
    if not path.exists():
        write_preferences(preferences, project, name)
    elif tuple(read_jsonl(path, Preference, skip=1)) != preferences.rows:
        raise BadInput(f"{project.relative(path)} holds other labels than the study's; use another --out")


def train(project: Project, study: Study, run: Run) -> None:
    """Stage 2 of one arm and seed, on top of stage 1; one that is finished stays."""
    arm = study.arms[run.arm]
    name = pairs_name(arm.choose)
    learn_offline(
        project,
        run.name,
        pairs=name,
        preferences=name,
        model=model_of(project),
        config=study.config_of(arm, seed=run.seed),
    )


def measure_level(project: Project, study: Study, name: str) -> None:
    """One of the reports that the arms stand beside, on the same prompts: UNTRAINED, BASE or CEILING."""
    config, run = study.measure, f"{STAGE}-1" if name == BASE else None
    if name == CEILING:  # needs no sampler, and has one clip for each prompt
        plain: dict[str, object] = {"num_steps": None, "guidance_scale": None, "seeds_per_prompt": 1}
        config = config.model_copy(update={"source": "autoencoder", **plain})
    _report(project, name, run=run, config=config)


def train_and_measure(project: Project, study: Study, run: Run) -> None:
    """One run of stage 2, measured on the prompts, frames and noise of the base."""
    train(project, study, run)
    _report(project, run.name, run=run.name, config=study.measure)


def is_measured(project: Project, run: Run) -> bool:
    """Whether a run's report is there, and what is counted beside it."""
    return (project.report(run.name) / CONTINUITY_FILE).is_file()


def _report(project: Project, name: str, *, run: str | None, config: MeasureConfig) -> None:
    plan = plan_measurement(project, name, model=model_of(project), run=run, config=config)
    measure(plan, clip_source(plan))
    write_continuity(project, name)


def scores_given(project: Project) -> dict[int, int]:
    """How often the person gave each score."""
    with LabelStore.open(project.labels_db) as store:
        rows = store.judgements(PairSet.read(project.pairs(SCORED)).hashes, annotators=[Person.annotator])
    found = [int(score) for row in rows for score in (row.score_a, row.score_b) if score is not None]
    return {score: found.count(score) for score in sorted(set(found))}


def header_of(project: Project, choose: str) -> dict[str, JsonValue]:
    """Counts of the preferences of one way to pair the clips."""
    with project.preferences(pairs_name(choose)).open(encoding="utf-8") as file:
        header: dict[str, JsonValue] = json.loads(file.readline())["header"]
    return {key: header[key] for key in ("num_pairs", "num_unjudged_pairs", "tie_share", "a_share")}


def training_of(project: Project, name: str) -> dict[str, JsonValue]:
    """How a run ended, from its summary, and the means of its last steps: the loss, and how often labels are met."""
    folder = project.run(name)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    kept = ("steps", "train_pairs", "too_tied_pairs", "steps_without_signal", "train_seconds")
    last = read_metrics(folder, "train")[-_LAST_STEPS:]
    found = {key: [row[key] for row in last if row.get(key) is not None] for key in _LAST}
    ends: dict[str, JsonValue] = {key: fmean(values) for key, values in found.items() if values}
    return {"run": name, **{key: summary[key] for key in kept}, "last_steps": ends}
