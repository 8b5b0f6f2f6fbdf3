"""The first frames that image-to-video models continue: those of real clips, read from their videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from densedpo.adapters.base import FirstFrame
from densedpo.core.errors import BadInput
from densedpo.core.media import read_mp4

if TYPE_CHECKING:
    from torch import Tensor

    from densedpo.adapters.base import VideoModel
    from densedpo.core.records import Clip

FIRST_PREFIX: Final = "first."


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameFile:
    """The video of a real clip, whose first frame is given."""

    video: Path
    pixel_scale: int

    @classmethod
    def of(cls, clip: Clip, clips: Path) -> FrameFile:
        """Of a clip in the folder of clips."""
        return cls(video=clips / clip.video, pixel_scale=clip.pixel_scale)


def encode_first_frames(model: VideoModel, files: Sequence[FrameFile]) -> FirstFrame:
    """The first frames of real clips as the model takes them, one row each; a clip that is named twice is read once.

    Raises:
        BadInput: a video is missing or damaged, or has another size than the model's.
    """
    different = list(dict.fromkeys(files))
    frames = [read_mp4(file.video, pixel_scale=file.pixel_scale)[0][0] for file in different]
    first = model.encode_first(np.stack(frames))
    import torch

    return first.rows(torch.tensor([different.index(file) for file in files]))


def first_tensors(first: FirstFrame | None) -> dict[str, Tensor]:
    """What one pair's latents file holds of the frame that both its clips continue; nothing where there is none."""
    if first is None:
        return {}
    return {FIRST_PREFIX + name: tensor[0].cpu().contiguous() for name, tensor in first.tensors().items()}


def read_first(tensors: Mapping[str, Tensor], path: Path) -> FirstFrame:
    """The frame of `first_tensors`, as one row.

    Args:
        path: of the file that the tensors are from.

    Raises:
        BadInput: there is none.
    """
    found = {
        name.removeprefix(FIRST_PREFIX): tensor[None]
        for name, tensor in tensors.items()
        if name.startswith(FIRST_PREFIX)
    }
    if not found or not found.keys() <= {"held", "channels", "embeds"}:
        raise BadInput(f"{path} does not hold the first frame that this model continues; generate its pairs again")
    return FirstFrame(**found)
