"""Makes docs/labelling.png and docs/dashboard.png: a study of the procedural world with three made-up annotators.

Needs Chromium, Playwright and the tests' folder on the path: `PYTHONPATH=tests python docs/make_studio_pictures.py`.
"""

from __future__ import annotations

import tempfile
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from playwright.sync_api import Page, sync_playwright

from densedpo.core.media import write_pair_mp4
from densedpo.core.records import Judgement, Pair, write_jsonl
from densedpo.core.seeds import generator
from densedpo.core.workspace import Project, init_project
from densedpo.judge.pairset import PairSet
from densedpo.judge.store import LabelStore
from densedpo.judge.studies.records import Choice, Item, Person, SaveRequest
from densedpo.world.render import FPS, NUM_FRAMES, render
from densedpo.world.scene import draw_scene
from studio_example import Room, new_id
from studio_live import CHROMIUM, listening

DOCS: Final = Path(__file__).resolve().parent
SEGMENTS: Final = tuple((start, min(start + 8, NUM_FRAMES) if start < 24 else NUM_FRAMES) for start in range(0, 32, 8))
NUM_PAIRS: Final = 60
# accuracy, share of ties, seconds for an item, liking for left
ANNOTATORS: Final = {"ann": (0.95, 0.12, 14.0, 0.5), "bob": (0.85, 0.2, 11.0, 0.55), "cid": (0.6, 0.05, 1.2, 0.9)}


def degraded(frames: np.ndarray, parts: list[int]) -> np.ndarray:
    """A copy that is blurred in some parts."""
    found = frames.copy()
    for start, stop in (SEGMENTS[part] for part in parts):
        for n in range(start, stop):
            found[n] = cv2.GaussianBlur(found[n], (0, 0), 2.5)
    return found


def make_project(root: Path) -> tuple[Project, dict[str, list[int]]]:
    """Pairs in which each clip is worse in some parts, and the true labels."""
    project = init_project(root)
    folder = project.pairs("demo")
    (folder / "videos").mkdir(parents=True)
    pairs, truth = [], {}
    scenes = [scene for scene in map(draw_scene, range(10 * NUM_PAIRS)) if scene.background in {"black", "gray"}]
    for index, scene in enumerate(scenes[:NUM_PAIRS]):
        clean = render(scene)
        labels = [int(label) for label in generator("pictures", "labels", index).integers(-1, 2, len(SEGMENTS))]
        a = degraded(clean, [part for part, label in enumerate(labels) if label < 0])
        b = degraded(clean, [part for part, label in enumerate(labels) if label > 0])
        pair = Pair(
            id=f"p{index:03d}", kind="guided", prompt_id=f"q{index}", clip_id=None, caption=scene.caption,
            split="train", eta=0.7,
            noise_key_a="a", noise_key_b="b", seed=0, num_steps=8, guidance_scale=3.0, model="m",
            num_frames=NUM_FRAMES, fps=FPS, height=64, width=64, pixel_scale=2, video=f"videos/{index:03d}.mp4",
            latents="none", scene=asdict(scene),
        )  # fmt: skip
        write_pair_mp4(folder / pair.video, a, b, fps=FPS, pixel_scale=2)
        pairs.append(pair)
        truth[pair.id] = labels
    write_jsonl(folder / "pairs.jsonl", pairs)
    return project, truth


def add_truth(project: Project, truth: dict[str, list[int]]) -> None:
    """Stores the true labels as those of the oracle, to be gold."""
    words = {1: "a", -1: "b", 0: "tie"}
    rows = [
        Judgement(
            id=f"{pair}-{part}",
            pair_id=pair,
            annotator="oracle",
            segment=part,
            start_frame=start,
            stop_frame=stop,
            answer=words[labels[part]],
            instructions="truth",
            tool_version="pictures",
            created_at="2026-01-01",
        )
        for pair, labels in truth.items()
        for part, (start, stop) in enumerate(SEGMENTS)
    ]
    with LabelStore.open(project.labels_db) as store:
        store.append(rows, PairSet.read(project.pairs("demo")).hashes)


def labels_of(item: Item, truth: dict[str, list[int]]) -> list[int]:
    """The right answers; beside its frozen copy, a clip is better throughout."""
    return truth[item.pair_id] if item.copy is None else [1] * len(SEGMENTS)


def answer(room: Room, person: Person, truth: dict[str, list[int]], *, leave: int) -> None:
    """Works through a person's items as they are inclined to, but for the last ones."""
    accuracy, ties, seconds, left = ANNOTATORS[person.name]
    rng = generator("pictures", person.name)
    while (held := room.desk.hand_out(person, count=1)) and room.desk.progress(person).num_left > leave:
        side = 1 if held[0].assignment.left == "a" else -1
        answers: list[str | None] = []
        for label in labels_of(held[0].item, truth):
            guess = "left" if rng.random() < left else "right"
            right_answer = {side: "left", -side: "right", 0: "tie"}[label]
            answers.append("tie" if rng.random() < ties else right_answer if rng.random() < accuracy else guess)
        active = int(1000 * seconds * rng.uniform(0.6, 1.6))
        choice = Choice.model_validate({"answers": {"overall": answers}, "active_ms": active, "watched": True})
        room.desk.save(person, SaveRequest(id=new_id(), assignment=held[0].assignment.id, kind="submit", choice=choice))


def photograph(page: Page, address: str, url: str, room: Room, truth: dict[str, list[int]]) -> None:
    """Both pictures; the first parts are answered as they are, and the frame is one where the clips differ."""
    page.goto(address)
    page.locator("#dialog-instructions button").click()
    page.wait_for_timeout(2000)
    item = next(item for item in room.desk.items.values() if page.evaluate("studio.item.media").endswith(item.media))
    crop = page.evaluate("studio.item.left_crop")
    side = 1 if (crop == 0) != item.flipped else -1  # whether a is on the left
    labels = labels_of(item, truth)
    for label in labels[:3]:
        page.keyboard.press({side: "1", -side: "2", 0: "0"}[label])
    differing = next((part for part, label in enumerate(labels[:3]) if label), 0)
    page.evaluate("(frame) => studio.player.seek(frame)", SEGMENTS[differing][0] + 4)
    page.wait_for_timeout(1500)
    page.screenshot(path=DOCS / "labelling.png")
    page.goto(f"{url}dashboard")
    page.wait_for_timeout(1000)
    page.screenshot(path=DOCS / "dashboard.png", full_page=True)


def main() -> None:
    """Makes the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        project, truth = make_project(Path(folder) / "project")
        add_truth(project, truth)
        settings = {
            "overlap": 3, "gold_annotator": "oracle", "num_gold": 12, "gold_share": 0.15, "repeat_share": 0.1,
            "frozen_share": 0.1, "num_frozen": 8,
        }  # fmt: skip
        room = Room.open(project, **settings)
        for number, name in enumerate(ANNOTATORS):
            answer(room, room.person(name), truth, leave=4 * number)
        with listening(room) as live, sync_playwright() as playwright:
            media = live.media
            media.prepare(list(room.desk.items.values()), 1.0, threading.Event())
            browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
            context = browser.new_context(viewport={"width": 1360, "height": 850}, reduced_motion="reduce")
            context.set_default_timeout(300_000)  # a busy machine is slow, not wrong
            photograph(context.new_page(), live.entrance("eva", is_admin=True), live.url, room, truth)
            browser.close()
        room.close()


if __name__ == "__main__":
    main()
