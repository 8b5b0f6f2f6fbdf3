"""A project with everything that a comparison shows, made in seconds: rendered clips in place of generated ones.

The `base` clips are scenes of the world, blurred and with a brightness that wavers; `dense` ones are blurred less;
`shuffled` ones are like the base with other noise. Nothing of it says anything about a real model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from densedpo.core.layout import Segments
from densedpo.core.media import write_pair_mp4
from densedpo.core.records import Pair, Preference, Prompt, to_row, write_jsonl
from densedpo.core.workspace import Project, init_project, write_stamp
from densedpo.measure.plan import MeasurePlan
from densedpo.measure.records import Settings, Subject
from densedpo.measure.run import ClipSource, ClipTask, MadeClip, measure
from densedpo.measure.score import SCORING_VERSION
from densedpo.world.render import render
from densedpo.world.scene import Scene, draw_scene

MODEL = "5f" * 32
FRAMES = 33
STRIDE = 4


def scene_of(prompt: Prompt) -> Scene:
    """The scene of a prompt of this project."""
    assert prompt.scene is not None
    return Scene(**prompt.scene)  # type: ignore[arg-type]


def make_project(root: Path, *, num_prompts: int) -> Project:
    """A project with clips and held-out prompts, but nothing learned or measured."""
    project = init_project(root)
    scenes = [draw_scene(i, split="held_out") for i in range(num_prompts)]
    prompts = [
        Prompt(id=f"w{i:04d}", caption=s.caption, split="held_out", clip_id=f"w{i:04d}", scene=asdict(s))
        for i, s in enumerate(scenes)
    ]
    project.clips.mkdir()
    write_jsonl(project.clips / "prompts.jsonl", prompts)
    (project.clips / "clips.jsonl").write_text("")
    write_stamp(project.clips, [], project)
    return project


def prompts_of(project: Project) -> tuple[Prompt, ...]:
    """The prompts of a project made here."""
    rows = (project.clips / "prompts.jsonl").read_text().splitlines()
    return tuple(Prompt(**json.loads(row)) for row in rows)


def plan_for(
    project: Project, name: str, *, run: str | None = None, source: str = "model", seed: int = 0, seeds: int = 1
) -> MeasurePlan:
    """A plan whose clips do not come from a model."""
    prompts = prompts_of(project)
    sampled = source == "model"
    return MeasurePlan(
        project=project,
        name=name,
        command=f"densedpo measure run {name} --model tiny" + (f" --run {run}" if run else ""),
        model=Path("tiny"),
        adapter=None,
        subject=Subject(source=source, model=MODEL, run=run, adapter="ad" * 32 if run else None),  # type: ignore[arg-type]
        settings=Settings(
            split="held_out",
            num_prompts=len(prompts),
            prompts="0" * 64,
            seeds_per_prompt=seeds,
            seed=seed,
            num_steps=16 if sampled else None,
            guidance_scale=3.0 if sampled else None,
            num_frames=FRAMES,
            fps=8.0,
            height=64,
            width=64,
            pixel_scale=2,
            scoring=SCORING_VERSION,
        ),
        prompts=prompts,
        clips={},
        first={},
        inputs=(project.clips,) if run is None else (project.clips, project.run(run)),
        num_asked=len(prompts),
        batch_clips=8,
        device="cpu",
    )


def degraded(frames: NDArray[np.uint8], *, blur: float, waver: float, seed: int) -> NDArray[np.uint8]:
    """A clip blurred frame by frame, with a brightness that wavers."""
    rng = np.random.default_rng(seed)
    soft = [cv2.GaussianBlur(f, (0, 0), max(0.05, blur * rng.uniform(0.6, 1.4))) for f in frames]
    gain = 1 + waver * rng.standard_normal((len(frames), 1, 1, 1))
    return np.clip(np.stack(soft) * gain, 0, 255).astype(np.uint8)


def rendered(*, blur: float, waver: float, salt: int) -> ClipSource:
    """Clips that look like the work of a model of a certain quality."""

    def make(tasks: Sequence[ClipTask]) -> Iterator[MadeClip]:
        for task in tasks:
            of_prompt = int(task.prompt.id[1:]) * 100 + task.number
            seed = of_prompt + 100_000 * salt
            strength = np.random.default_rng(of_prompt).uniform(0.3, 1.7) * np.random.default_rng(seed).uniform(
                0.8, 1.2
            )
            clip = degraded(render(scene_of(task.prompt)), blur=blur * strength, waver=waver * strength, seed=seed)
            yield MadeClip(task=task, frames=clip)

    return make


def add_pairs(project: Project, *, num_pairs: int) -> None:
    """pairs/guided and preferences/oracle: segment labels that differ over time, with ties."""
    folder = project.pairs("guided")
    (folder / "videos").mkdir(parents=True)
    ranges = Segments.of(num_frames=FRAMES, fps=8.0, seconds=1.0).ranges
    pairs, preferences = [], []
    for i in range(num_pairs):
        scene = draw_scene(500 + i, split="train")
        labels = tuple(int(x) for x in np.random.default_rng(i).choice([1, -1, 0], size=len(ranges), p=[0.4, 0.4, 0.2]))
        clips = {side: render(scene) for side in "ab"}
        for (start, stop), label in zip(ranges, labels, strict=True):
            if label:
                worse = clips["b" if label > 0 else "a"]
                worse[start:stop] = degraded(worse[start:stop], blur=2.2, waver=0.08, seed=i)
        pair_id = f"guided-{i:04d}"
        write_pair_mp4(folder / "videos" / f"{pair_id}.mp4", clips["a"], clips["b"], fps=8.0, pixel_scale=2)
        pairs.append(world_pair(pair_id, scene, f"t{i:04d}"))
        sign = int(np.sign(sum(labels)))
        preferences.append(
            Preference(
                pair_id=pair_id, split="validation", ranges=ranges, labels=labels, clip_label=sign, num_judgements=4
            )
        )
    write_jsonl(folder / "pairs.jsonl", pairs)
    write_stamp(folder, [project.clips], project)
    path = project.preferences("oracle")
    path.parent.mkdir()
    rows = [{"header": {"annotators": ["oracle"]}}, *(to_row(p) for p in preferences)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_stamp(path, [folder], project)


def world_pair(pair_id: str, scene: Scene, prompt_id: str) -> Pair:
    return Pair(
        id=pair_id, kind="guided", prompt_id=prompt_id, clip_id=prompt_id, caption=scene.caption, split="validation",
        eta=0.7, noise_key_a=f"0/{pair_id}/a", noise_key_b=f"0/{pair_id}/b", seed=0, num_steps=16, guidance_scale=3.0,
        model=MODEL, num_frames=FRAMES, fps=8.0, height=64, width=64, pixel_scale=2,
        video=f"videos/{pair_id}.mp4", latents=f"latents/{pair_id}.safetensors", scene=asdict(scene),
    )  # fmt: skip


def add_run(project: Project, name: str, *, skill: float, seed: int, objective: str = "dense_dpo") -> None:
    """runs/<name> with curves that look like training of a certain skill, and where.jsonl if it learned from pairs."""
    folder = project.run(name)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for step in range(1, 101):
        grown = skill * (1 - np.exp(-step / 30))
        rows.append({"step": step, "split": "train", **_metrics(grown * 1.6, 0.05, rng, objective)})
        if step % 20 == 0:
            rows.append({"step": step, "split": "validation", **_metrics(grown, 0.006, rng, objective)})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.toml").write_text(f'objective = "{objective}"\n')
    (folder / "adapter.safetensors").write_bytes(name.encode())
    inputs = [project.clips]
    if objective != "sft":
        inputs = [project.pairs("guided"), project.preferences("oracle")]
        write_where(project, folder / "where.jsonl", skill=skill, seed=seed)
    write_stamp(folder, inputs, project)


def write_where(project: Project, path: Path, *, skill: float, seed: int) -> None:
    """Rewards that follow the labels the more, the larger the skill."""
    rng = np.random.default_rng(seed)
    rows = []
    for line in project.preferences("oracle").read_text().splitlines()[1:]:
        preference = json.loads(line)
        owner = [0, *np.repeat(np.arange(4), 2)]
        labels = [preference["labels"][segment] for segment in owner]
        reward = [1e-3 * (6 * skill * label + 0.5 * rng.standard_normal()) for label in labels]
        rows.append(
            {
                "pair_id": preference["pair_id"],
                "labels_per_latent_frame": labels,
                "implicit_reward_per_latent_frame": reward,
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _metrics(grown: float, noise: float, rng: np.random.Generator, objective: str) -> dict[str, object]:
    if objective == "sft":
        return {"loss": float(0.21 - 0.01 * grown + 0.2 * noise * rng.standard_normal())}
    return {
        "loss": float(0.693 - 0.12 * grown + 0.4 * noise * rng.standard_normal()),
        "accuracy": float(np.clip(0.5 + 0.35 * grown + noise * rng.standard_normal(), 0, 1)),
        "margin": float(grown),
        "win_gap": float(1e-3 * (-0.8 * grown + 4 * noise * rng.standard_normal())),
        "lose_gap": float(1e-3 * (2.4 * grown + 4 * noise * rng.standard_normal())),
    }


def make_example(root: Path, *, num_prompts: int = 24, num_pairs: int = 6) -> Project:
    """The whole example: base, dense, shuffled, sft and the ceiling measured, with runs, pairs and preferences."""
    project = make_project(root, num_prompts=num_prompts)
    add_pairs(project, num_pairs=num_pairs)
    add_run(project, "dense", skill=0.35, seed=1)
    add_run(project, "shuffled", skill=0.02, seed=2)
    add_run(project, "sft", skill=0.3, seed=3, objective="sft")
    measure(plan_for(project, "base"), rendered(blur=1.3, waver=0.03, salt=0))
    measure(plan_for(project, "dense", run="dense"), rendered(blur=0.95, waver=0.025, salt=1))
    measure(plan_for(project, "shuffled", run="shuffled"), rendered(blur=1.32, waver=0.03, salt=2))
    measure(plan_for(project, "sft", run="sft"), rendered(blur=1.25, waver=0.03, salt=3))
    measure(plan_for(project, "autoencoder", source="autoencoder"), rendered(blur=0.3, waver=0.004, salt=4))
    return project
