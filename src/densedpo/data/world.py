"""Clips of the procedural world, added to a project like the clips of videos."""

from __future__ import annotations

from dataclasses import asdict, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from densedpo.adapters.base import Geometry
from densedpo.core.errors import BadInput
from densedpo.core.progress import track
from densedpo.core.provenance import sha256_json
from densedpo.core.seeds import derive_seed
from densedpo.core.workspace import Project, writing
from densedpo.data.clips import ClipFolder, split_of
from densedpo.data.config import DataConfig
from densedpo.data.journal import Journal, Outcome
from densedpo.data.summary import Summary, write_index
from densedpo.world.render import FRAME_SIZE, render
from densedpo.world.scene import Scene, draw_scene


def add_world(project: Project, *, geometry: Geometry, config: DataConfig) -> Summary:
    """Adds `config.world.num_clips` scenes to a project's clips; the ones that are there already are kept.

    The scenes' held-out combinations make the `held_out` split, whatever `held_out_share` says: no caption of it is
    ever seen in training.

    Raises:
        BadInput: the model's clips are not square, or clips of another size are there.
    """
    if geometry.height != geometry.width:
        raise BadInput(f"scenes of the world are square and this model makes {geometry.width}x{geometry.height} clips")
    folder = ClipFolder(path=project.clips, geometry=geometry, config=config)
    with writing(project.clips):
        journal = folder.open_journal()
        for index in track(range(config.world.num_clips), what="rendering the world"):
            _add_scene(index, folder, journal)
        return write_index(project, journal)


def _add_scene(index: int, folder: ClipFolder, journal: Journal) -> None:
    seed = folder.config.world.seed
    clip_id = f"world-{seed}-{index:05d}"
    scene = draw_scene(derive_seed("world clip", seed, index), split=_wanted_split(index, folder.config))
    key = sha256_json([asdict(scene), scene.caption, folder.settings_key])
    known = journal.outcomes.get(clip_id)
    if known is not None and known.key == key and all((folder.path / clip.video).is_file() for clip in known.clips):
        return
    source = f"world/{seed}/{index}"
    split = _split(scene, source, folder.config)
    blank = folder.blank(clip_id, source=source, split=split, caption=scene.caption)
    clip = folder.write(replace(blank, scene=asdict(scene)), _frames(scene, folder.geometry))
    journal.append(Outcome(id=clip_id, key=key, origin="world", clips=(clip,), num_examined=1))


def _wanted_split(index: int, config: DataConfig) -> str | None:
    if config.world.num_held_out is None:
        return None
    return "held_out" if index < config.world.num_held_out else "train"


def _split(scene: Scene, source: str, config: DataConfig) -> str:
    if scene.split == "held_out":
        return "held_out"
    return split_of(source, validation_share=config.validation_share, held_out_share=0.0)


def _frames(scene: Scene, geometry: Geometry) -> NDArray[np.uint8]:
    """The scene at the model's size, uint8 [F, H, W, 3]."""
    frames = render(scene, num_frames=geometry.num_frames, fps=geometry.fps)
    if geometry.height == FRAME_SIZE:
        return frames
    size = (geometry.width, geometry.height)
    method = cv2.INTER_AREA if geometry.height < FRAME_SIZE else cv2.INTER_CUBIC
    return np.stack([cv2.resize(frame, size, interpolation=method) for frame in frames]).astype(np.uint8)
