"""The clips of a project: how one is named, put into a split, written and hashed."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from densedpo.adapters.base import Geometry
from densedpo.core.errors import BadInput
from densedpo.core.media import read_mp4, write_mp4
from densedpo.core.provenance import sha256_json
from densedpo.core.records import Clip
from densedpo.data.config import DataConfig
from densedpo.data.journal import Journal

_SMALL_CLIP_PX: Final = 256  # up to this side the colours of single pixels matter: see core.media
_PLAIN_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")  # no capitals: some file systems do not tell them apart


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipFolder:
    """The `clips` folder of a project, while clips of one geometry are added to it."""

    path: Path
    geometry: Geometry
    config: DataConfig

    @property
    def settings_key(self) -> str:
        """Hash of what decides the clips of a video besides the video itself."""
        kept = self.config.model_dump(mode="json", exclude={"world", "limits", "encode_latents", "latent_batch"})
        size = [self.geometry.num_frames, self.geometry.height, self.geometry.width, self.geometry.fps]
        return sha256_json([kept, size])

    def open_journal(self) -> Journal:
        """The journal of the folder, made if there is none.

        Raises:
            BadInput: the clips in it have another geometry.
        """
        (self.path / "videos").mkdir(parents=True, exist_ok=True)
        journal = Journal(self.path / "journal.jsonl")
        asked = (self.geometry.num_frames, self.geometry.height, self.geometry.width, self.geometry.fps)
        for outcome in journal.outcomes.values():
            for clip in outcome.clips[:1]:
                there = (clip.num_frames, clip.height, clip.width, clip.fps)
                if there != asked:
                    raise BadInput(f"{self.path} holds {_named(there)}, this model takes {_named(asked)}: "
                                   "use another project")  # fmt: skip
        return journal

    def blank(self, clip_id: str, *, source: str, split: str, caption: str) -> Clip:
        """The record of a clip whose video is still to be written."""
        geometry = self.geometry
        return Clip(
            id=clip_id,
            source=source,
            split=split,
            caption=caption,
            video=f"videos/{file_stem(clip_id)}.mp4",
            num_frames=geometry.num_frames,
            fps=geometry.fps,
            height=geometry.height,
            width=geometry.width,
            pixel_scale=2 if max(geometry.height, geometry.width) <= _SMALL_CLIP_PX else 1,
            content="",
            start_s=0.0,
        )

    def write(self, clip: Clip, frames: NDArray[np.uint8]) -> Clip:
        """Writes the video of a clip and completes its record.

        What counts from here on is the file: latents are encoded from the frames as they are read back, and judges and
        labellers see the same ones.

        Args:
            frames: [F, H, W, 3].
        """
        path = self.path / clip.video
        write_mp4(path, frames, fps=clip.fps, pixel_scale=clip.pixel_scale)
        return replace(clip, content=content_of(read_mp4(path, pixel_scale=clip.pixel_scale)[0]))


def content_of(frames: NDArray[np.uint8]) -> str:
    """The hash by which the latents of a clip are cached: sha256 of shape and bytes of uint8 [F, H, W, 3]."""
    digest = hashlib.sha256(repr(frames.shape).encode())
    digest.update(np.ascontiguousarray(frames).data)
    return digest.hexdigest()


def file_stem(clip_id: str) -> str:
    """A file name for an id: the id itself where it can be one on every system, else its tame part and a hash."""
    if _PLAIN_NAME.fullmatch(clip_id):
        return clip_id
    tame = re.sub(r"[^a-z0-9._-]+", "-", clip_id.lower()).strip("-.")[:60]
    return f"{tame}-{hashlib.blake2b(clip_id.encode(errors='surrogatepass'), digest_size=6).hexdigest()}".lstrip("-")


def split_of(source: str, *, validation_share: float, held_out_share: float) -> str:
    """The split of a source: by its hash, so that it stays where it is whatever else is added."""
    place = int.from_bytes(hashlib.blake2b(source.encode(), digest_size=8).digest(), "big") / 2**64
    if place < held_out_share:
        return "held_out"
    return "validation" if place < held_out_share + validation_share else "train"


def _named(size: tuple[int, int, int, float]) -> str:
    return f"clips of {size[0]} frames, {size[1]}x{size[2]} at {size[3]:g} fps"
