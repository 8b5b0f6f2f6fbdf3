"""Records for the tests of judging, with only what matters to a test said there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from densedpo.core.media import write_mp4, write_pair_mp4
from densedpo.core.records import Clip, Pair, write_jsonl
from densedpo.core.workspace import Project, init_project
from densedpo.judge.oracle import OracleConfig, OracleJudge
from densedpo.judge.pairset import PairSet
from densedpo.judge.run import judge_pairs
from densedpo.judge.store import LabelStore
from densedpo.world.render import FPS, NUM_FRAMES, render
from densedpo.world.scene import Scene, draw_scene

BLURRED = slice(17, NUM_FRAMES)  # the frames of the faulty clip that are faulty: segments 2 and 3 of 4


@pytest.fixture(scope="session")
def scene() -> Scene:
    """A scene that the oracle reads without trouble."""
    return replace(
        draw_scene(1), shape="square", colour="red", size="large", background="black", motion="slides",
        direction="left", speed="slow",
    )  # fmt: skip


@pytest.fixture(scope="session")
def clean(scene: Scene) -> np.ndarray:
    """The clip of `scene`."""
    return render(scene)


@pytest.fixture(scope="session")
def faulty(clean: np.ndarray) -> np.ndarray:
    """The same clip with a second half that is a mess."""
    frames = clean.copy()
    rng = np.random.Generator(np.random.Philox(key=5))
    grain = rng.integers(-70, 70, size=frames[BLURRED].shape)
    frames[BLURRED] = np.clip(frames[BLURRED].astype(int) + grain, 0, 255).astype(np.uint8)
    return frames


@pytest.fixture(scope="session")
def new_pair(scene: Scene) -> Callable[..., Pair]:
    """A guided pair of the world; keywords replace what a test is about."""
    pair = Pair(
        id="p0", kind="guided", prompt_id="q0", clip_id="c0", caption=scene.caption, split="train", eta=0.7,
        noise_key_a="a", noise_key_b="b", seed=0, num_steps=2, guidance_scale=1.0, model="m", num_frames=NUM_FRAMES,
        fps=FPS, height=64, width=64, pixel_scale=2, video="p0.mp4", latents="p0.safetensors", scene=asdict(scene),
    )  # fmt: skip
    return lambda **changes: replace(pair, **changes)


@pytest.fixture(scope="session")
def template(
    tmp_path_factory: pytest.TempPathFactory,
    new_pair: Callable[..., Pair],
    clean: np.ndarray,
    faulty: np.ndarray,
    scene: Scene,
) -> Path:
    """The root that `fresh_project` copies: videos are encoded once."""
    found = init_project(tmp_path_factory.mktemp("judge") / "project")
    (found.clips / "videos").mkdir(parents=True)
    write_mp4(found.clips / "videos/c0.mp4", clean, fps=FPS, pixel_scale=2)
    clip = Clip(
        id="c0", source="world:1", split="train", caption=scene.caption, video="videos/c0.mp4", num_frames=NUM_FRAMES,
        fps=FPS, height=64, width=64, content="0" * 64, start_s=0.0, pixel_scale=2, scene=asdict(scene),
    )  # fmt: skip
    write_jsonl(found.clips / "clips.jsonl", [clip])
    folder = found.pairs("demo")
    folder.mkdir(parents=True)
    for name, a, b in (("p0", clean, faulty), ("p1", faulty, clean), ("p2", clean, clean)):
        write_pair_mp4(folder / f"{name}.mp4", a, b, fps=FPS, pixel_scale=2)
    write_jsonl(folder / "pairs.jsonl", [new_pair(id=name, video=f"{name}.mp4") for name in ("p0", "p1", "p2")])
    return found.root


@pytest.fixture(scope="session")
def judged_template(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root that `judged_project` copies."""
    root = tmp_path_factory.mktemp("judged") / "project"
    shutil.copytree(template, root)
    project = Project(root=root)
    with LabelStore.open(project.labels_db) as store:
        judge_pairs(OracleJudge(OracleConfig()), PairSet.read(project.pairs("demo")), store, segment_seconds=1.0)
    return root


@pytest.fixture
def fresh_project(tmp_path: Path, template: Path) -> Project:
    """A project with pairs/demo: p0 is clean against faulty, p1 the other way round, p2 clean against itself."""
    return Project(root=Path(shutil.copytree(template, tmp_path / "project")))


@pytest.fixture
def judged_project(tmp_path: Path, judged_template: Path) -> Project:
    """The same after the oracle has judged it."""
    return Project(root=Path(shutil.copytree(judged_template, tmp_path / "project")))
