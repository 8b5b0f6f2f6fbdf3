"""A project with pairs to label, in which every frame carries its number and every clip its colour."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from densedpo.core.media import write_pair_mp4
from densedpo.core.records import Judgement, Pair, write_jsonl
from densedpo.core.workspace import Project, init_project
from densedpo.judge.pairset import PairSet
from densedpo.judge.store import LabelStore
from densedpo.judge.studies import ledger
from densedpo.judge.studies.config import StudyConfig
from densedpo.judge.studies.desk import Desk
from densedpo.judge.studies.invitations import invite
from densedpo.judge.studies.media import MediaFolder
from densedpo.judge.studies.records import Choice, Held, Person, SaveRequest
from densedpo.judge.studies.setup import open_study
from densedpo.judge.web.door import Studio
from densedpo.judge.web.guard import Address

NUM_FRAMES, FPS, SIDE, BITS, BLOCK = 24, 8.0, 64, 6, 8
PORT = 8040
COLOURS = {"a": (200, 40, 40), "b": (40, 40, 200)}


def coded_clip(clip: str) -> np.ndarray:
    """A clip of one colour whose first row of blocks spells the number of each frame, black for 0 and white for 1."""
    frames = np.empty((NUM_FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
    frames[:] = COLOURS[clip]
    for n in range(NUM_FRAMES):
        for bit in range(BITS):
            value = 255 if n >> bit & 1 else 0
            frames[n, :BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = value
    return frames


def new_pair(index: int) -> Pair:
    """Pair number `index`."""
    return Pair(
        id=f"secret-pair-{index:03d}", kind="independent", prompt_id=f"q{index}", clip_id=None,
        caption=f"a red square slides left, number {index}", split="train", eta=None, noise_key_a="noise-of-a",
        noise_key_b="noise-of-b", seed=7, num_steps=2, guidance_scale=1.0, model="secretmodel" * 4,
        num_frames=NUM_FRAMES, fps=FPS, height=SIDE, width=SIDE, pixel_scale=2, video=f"videos/{index:03d}.mp4",
        latents=f"latents/{index:03d}.safetensors",
    )  # fmt: skip


def make_project(root: Path, *, num_pairs: int) -> Project:
    """A project with pairs/demo; all pairs have the same two clips, so that one file is encoded."""
    project = init_project(root)
    folder = project.pairs("demo")
    (folder / "videos").mkdir(parents=True)
    pairs = [new_pair(index) for index in range(num_pairs)]
    first = folder / pairs[0].video
    write_pair_mp4(first, coded_clip("a"), coded_clip("b"), fps=FPS, pixel_scale=2)
    for pair in pairs[1:]:
        (folder / pair.video).write_bytes(first.read_bytes())
    write_jsonl(folder / "pairs.jsonl", pairs)
    return project


@dataclass
class Room:
    """A study that is open, without a server."""

    project: Project
    pairs: PairSet
    store: LabelStore
    desk: Desk
    now: list[float] = field(default_factory=lambda: [1000.0])

    @classmethod
    def open(cls, project: Project, where: object = None, **settings: object) -> Room:
        pairs = PairSet.read(project.pairs("demo"))
        store = LabelStore.open(project.labels_db if where is None else where)
        config = StudyConfig.model_validate({"gold_share": 0.0, "repeat_share": 0.0, **settings})
        now = [1000.0]
        desk = Desk.open(store.database, open_study(store, pairs, config), pairs, clock=lambda: now[0])
        return cls(project, pairs, store, desk, now)

    def close(self) -> None:
        self.store.database.close()

    def person(self, name: str, *, is_admin: bool = False) -> Person:
        invite(self.store.database, name, is_admin=is_admin)
        with self.store.database.reading() as connection:
            found = ledger.person_by_name(connection, name)
        assert found is not None
        return found

    def submit(self, person: Person, held: Held, answer: str = "left", *, id_: str | None = None) -> SaveRequest:
        request = save_request(held.assignment.id, "submit", whole_choice(answer), id_=id_)
        self.desk.save(person, request)
        return request

    def labels(self, **keys: object) -> tuple[Judgement, ...]:
        return self.store.judgements(self.pairs.hashes, **keys)

    @property
    def media(self) -> MediaFolder:
        return MediaFolder(self.project.root / "studio" / self.desk.study.name, self.pairs)

    def studio(self, port: int = PORT) -> Studio:
        return Studio(desk=self.desk, media=self.media, address=Address.local(port))


_COUNTER = iter(range(10**9))


def new_id() -> str:
    """Another idempotency key."""
    return f"00000000-0000-4000-8000-{next(_COUNTER):012x}"


def whole_choice(answer: str = "left", *, parts: int = 3, **changes: object) -> Choice:
    """Every part answered in the same way."""
    return Choice(answers={"overall": [answer] * parts}, active_ms=5000, watched=True).model_copy(update=changes)


def save_request(assignment: str, kind: str, choice: Choice, *, id_: str | None = None) -> SaveRequest:
    """A save under a key of its own unless one is given."""
    return SaveRequest(id=id_ or new_id(), assignment=assignment, kind=kind, choice=choice)
