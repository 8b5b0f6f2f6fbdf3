"""The first frames that image-to-video models continue: those of real clips, or pictures that were drawn for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import cv2
import numpy as np
from pydantic import ConfigDict

from densedpo.adapters.base import FirstFrame
from densedpo.core.errors import BadInput
from densedpo.core.media import read_mp4
from densedpo.core.provenance import sha256_file
from densedpo.core.records import read_jsonl

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from torch import Tensor

    from densedpo.adapters.base import Geometry, VideoModel
    from densedpo.core.records import Clip

FIRST_PREFIX: Final = "first."
FRAMES_FILE: Final = "frames.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnFrame:
    """A first frame that a text-to-image model drew, and what it was made from; a row of frames.jsonl."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    id: str
    prompt_id: str
    caption: str
    split: str
    number: int  # from 0, of the frames of this prompt
    noise_key: str
    model: str  # fingerprint of the text-to-image model
    num_steps: int
    guidance_scale: float
    height: int
    width: int
    image: str  # relative to the folder: a PNG
    content: str = ""  # sha256 of the PNG; empty until it is drawn


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameFile:
    """Where a frame is that is given: the first of a real clip's video, or a PNG that was drawn, with its sha256."""

    video: Path
    pixel_scale: int = 1
    content: str = ""

    @classmethod
    def of(cls, clip: Clip, clips: Path) -> FrameFile:
        """Of a clip in the folder of clips."""
        return cls(video=clips / clip.video, pixel_scale=clip.pixel_scale)

    def read(self) -> UInt8[np.ndarray, "row column 3"]:
        """The frame.

        Raises:
            BadInput: the file is missing or damaged.
        """
        if self.video.suffix != ".png":
            frames, _ = read_mp4(self.video, pixel_scale=self.pixel_scale)
            first: UInt8[np.ndarray, "row column 3"] = frames[0]
            return first
        found = cv2.imread(str(self.video), cv2.IMREAD_COLOR)
        if found is None:
            raise BadInput(f"{self.video} is missing or not a readable PNG; draw the first frames again")
        image: UInt8[np.ndarray, "row column 3"] = cv2.cvtColor(found, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
        return image


def png_of(image: UInt8[np.ndarray, "row column 3"], *, height: int, width: int) -> bytes:
    """An RGB image as PNG, brought down to a size by averaging over areas."""
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert done
    return bytes(data.tobytes())


def read_first_frames(folder: Path, geometry: Geometry) -> dict[str, tuple[FrameFile, ...]]:
    """The drawn frames of a set by prompt id, in the order of their numbers.

    Raises:
        BadInput: there is none, a picture has changed, or they have another size than the model's.
    """
    if not (folder / FRAMES_FILE).is_file():
        raise BadInput(f"{folder} holds no first frames; name a set of `densedpo generate first-frames`")
    found: dict[str, list[FrameFile]] = {}
    rows = read_jsonl(folder / FRAMES_FILE, DrawnFrame)
    for frame in sorted(rows, key=lambda each: each.number):
        if (frame.height, frame.width) != (geometry.height, geometry.width):
            raise BadInput(
                f"{folder / FRAMES_FILE}: frames are {frame.height}x{frame.width}, the model takes "
                f"{geometry.height}x{geometry.width}; draw them for this model"
            )
        path = folder / frame.image
        if not path.is_file() or sha256_file(path) != frame.content:
            raise BadInput(f"{path} is missing or has changed; remove it and draw the first frames again")
        found.setdefault(frame.prompt_id, []).append(FrameFile(video=path, content=frame.content))
    return {prompt_id: tuple(files) for prompt_id, files in found.items()}


def encode_first_frames(model: VideoModel, files: Sequence[FrameFile]) -> FirstFrame:
    """First frames as the model takes them, one row each; a file that is named twice is read once.

    Raises:
        BadInput: a file is missing or damaged, or has another size than the model's.
    """
    different = list(dict.fromkeys(files))
    first = model.encode_first(np.stack([file.read() for file in different]))
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
