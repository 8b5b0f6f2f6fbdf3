"""What `measure run` will measure, decided and checked before torch is imported."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from densedpo.adapters import catalogue
from densedpo.adapters.trained import BASE_FILE, started_from, trained_by, trained_hash
from densedpo.core.errors import BadInput
from densedpo.core.provenance import sha256_json
from densedpo.core.records import Clip, Pair, Prompt, read_jsonl
from densedpo.core.workspace import Project, read_stamp
from densedpo.generate.plan import pixel_scale
from densedpo.generate.prompts import Frames, frames_to_continue, prompts_to_continue, select_prompts
from densedpo.generate.real_clips import latents_of_clips
from densedpo.measure.config import MeasureConfig
from densedpo.measure.records import Settings, Subject
from densedpo.measure.score import SCORING_VERSION

DTYPE: Final = "float32"  # what `adapters.load` gives unless asked otherwise
_PROMPT_ORDER_SEED: Final = 0  # apart from the run's seed: another seed is other noise for the same prompts


@dataclass(frozen=True, kw_only=True, slots=True)
class RealClip:
    """The files of a prompt's own clip."""

    latents: Path
    video: Path
    pixel_scale: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasurePlan:
    """Everything that `measure run` needs.

    `clips` holds the prompts' own clips by prompt id, where they are needed, and `first` the first frames of each
    prompt, which its clips take in turns. `num_asked` is how many prompts were asked for; there may be fewer. `dtype`
    is the denoiser's; None where no model runs.
    """

    project: Project
    name: str
    command: str
    model: Path
    adapter: Path | None
    subject: Subject
    settings: Settings
    prompts: tuple[Prompt, ...]
    clips: dict[str, RealClip]
    first: Frames
    inputs: tuple[Path, ...]
    num_asked: int
    batch_clips: int
    device: str
    dtype: str | None = DTYPE
    strict: bool = False

    @property
    def folder(self) -> Path:
        """Where the report goes."""
        return self.project.report(self.name)


def plan_measurement(
    project: Project,
    name: str,
    *,
    model: str | Path,
    run: str | None,
    config: MeasureConfig,
    allow_stale: bool = False,
) -> MeasurePlan:
    """The plan to measure the base model (`run` is None) or the adapter of a run.

    Raises:
        BadInput: no such model or run, no prompts in the split, a measured prompt that the run was trained on, or
            first frames for a text-to-video model or for none of the prompts.
    """
    project.report(name)  # refuses a bad name before anything is read
    if run is not None and config.source != "model":
        raise BadInput(f"source = {config.source!r} measures no adapter; leave out --run {run}")
    folder = catalogue.find(model)
    prompts, drawn = _prompts(project, model, config)
    samples = config.source == "model"
    clips = {} if samples else _clips(project, prompts, model=model)
    inputs = [project.clips, *([project.pairs(config.first_frames)] if config.first_frames is not None else [])]
    adapter = None
    if run is not None:
        adapter = trained_by(project, run, model=model, allow_stale=allow_stale)
        check_no_overlap(project, run, prompts)
    return MeasurePlan(
        project=project,
        name=name,
        command=_command(name, model=model, run=run, config=config),
        model=folder,
        adapter=adapter,
        subject=Subject(
            source=config.source,
            model=catalogue.fingerprint(model),
            run=run,
            adapter=trained_hash(adapter) if adapter is not None else None,
        ),
        settings=_settings(model, prompts, config, drawn),
        prompts=prompts,
        clips=clips,
        first=frames_to_continue(project, prompts, drawn, model=model) if samples else {},
        inputs=tuple(inputs) if run is None else (*inputs, project.run(run)),
        num_asked=config.num_prompts,
        batch_clips=config.batch_clips,
        device=config.device,
        dtype=None if config.source == "truth" else DTYPE,
        strict=config.strict,
    )


def check_no_overlap(project: Project, run: str, prompts: Iterable[Prompt]) -> None:
    """Refuses prompts that a run was trained on, or one that it started from, by the prompt's id or by its clip's.

    Raises:
        BadInput: names the run, its pairs and one such prompt.
    """
    prompts = tuple(prompts)
    base = started_from(project.run(run) / BASE_FILE)
    if base is not None:
        check_no_overlap(project, base.parent.name, prompts)
    stamp = read_stamp(project.run(run))
    names = [path for path in (stamp.inputs if stamp is not None else {}) if path.startswith("pairs/")]
    for name in names:
        pairs = [pair for pair in read_jsonl(project.root / name / "pairs.jsonl", Pair) if pair.split == "train"]
        prompt_ids = {pair.prompt_id for pair in pairs}
        clip_ids = {pair.clip_id for pair in pairs if pair.clip_id is not None}
        both = [prompt for prompt in prompts if prompt.id in prompt_ids or prompt.clip_id in clip_ids]
        if both:
            raise BadInput(
                f"{len(both)} of the prompts to measure, such as {both[0].id!r}, are in {name}, which run {run!r} was "
                "trained on; a measure on them says nothing, so generate pairs from the train split only"
            )


def _prompts(project: Project, model: str | Path, config: MeasureConfig) -> tuple[tuple[Prompt, ...], Frames]:
    splits, seed = (config.split,), _PROMPT_ORDER_SEED
    if config.source == "model":
        prompts, drawn = prompts_to_continue(project, splits, seed=seed, model=model, first_frames=config.first_frames)
    else:
        prompts, drawn = select_prompts(project, splits, seed=seed, allow_clipless=False), {}
    return prompts[: config.num_prompts], drawn


def _clips(project: Project, prompts: tuple[Prompt, ...], *, model: str | Path) -> dict[str, RealClip]:
    latents = latents_of_clips(project, prompts, model=model)
    clips = {clip.id: clip for clip in read_jsonl(project.clips / "clips.jsonl", Clip)}
    found = {}
    for prompt in prompts:
        clip = clips[prompt.clip_id or ""]  # latents_of_clips has refused a prompt without its clip
        found[prompt.id] = RealClip(
            latents=latents[prompt.id], video=project.clips / clip.video, pixel_scale=clip.pixel_scale
        )
    return found


def _settings(model: str | Path, prompts: tuple[Prompt, ...], config: MeasureConfig, drawn: Frames) -> Settings:
    geometry, defaults = catalogue.geometry(model), catalogue.defaults(model)
    sampled = config.source == "model"
    guidance_scale = defaults.guidance_scale if config.guidance_scale is None else config.guidance_scale
    return Settings(
        split=config.split,
        num_prompts=len(prompts),
        prompts=sha256_json([[prompt.id, prompt.caption] for prompt in prompts]),
        seeds_per_prompt=config.seeds_per_prompt,
        seed=config.seed,
        num_steps=(config.num_steps or defaults.num_steps) if sampled else None,
        guidance_scale=guidance_scale if sampled else None,
        num_frames=geometry.num_frames,
        fps=geometry.fps,
        height=geometry.height,
        width=geometry.width,
        pixel_scale=pixel_scale(geometry),
        scoring=SCORING_VERSION,
        first_frames=sha256_json([[file.content for file in drawn[prompt.id]] for prompt in prompts]) if drawn else "",
    )


def _command(name: str, *, model: str | Path, run: str | None, config: MeasureConfig) -> str:
    """The command that measures this again: what differs from the defaults, and no path of this machine."""
    words = ["densedpo measure run", name, "--model", Path(model).name]
    if run is not None:
        words += ["--run", run]
    for key, value in config.model_dump(exclude_defaults=True).items():
        words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    return " ".join(words)
