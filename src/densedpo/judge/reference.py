"""The reference judge: which of two clips is closer to the real clip that both were made from.

For guided pairs of real videos, where no scene is known. Both halves start from the same noised real clip, so the one
that strays further from it has usually lost detail or order; nothing is learned and nothing leaves the machine.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from densedpo.core.config import Config
from densedpo.core.errors import BadInput
from densedpo.core.media import read_mp4, write_mp4
from densedpo.core.records import Clip, Pair, read_jsonl
from densedpo.judge.protocol import Frames, PairClips, SegmentAnswer, annotator_name
from densedpo.judge.vmaf import vmaf

_VERSION: Final = 1
_VMAF_SIDE: Final = 192
# the constants of Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity"
_WINDOW: Final = (11, 11)
_SIGMA: Final = 1.5
_C1: Final = (0.01 * 255) ** 2
_C2: Final = (0.03 * 255) ** 2


class ReferenceConfig(Config):
    """Options of `judge reference`."""

    segment_seconds: float = Field(default=1.0, gt=0, description="length of a segment")
    margin: float = Field(default=0.01, ge=0, description="similarities that differ by less are a tie")
    measure: Literal["ssim", "vmaf"] = Field(
        default="ssim", description="likeness: SSIM, or VMAF divided by 100, which needs an ffmpeg with libvmaf"
    )
    ffmpeg: str = Field(default="", description="the ffmpeg to use for vmaf; the one on the path if empty")

    @model_validator(mode="after")
    def _no_setting_without_effect(self) -> Self:
        if self.ffmpeg and self.measure != "vmaf":
            raise ValueError("ffmpeg has no effect with measure = 'ssim'")
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class RealClips:
    """The real clips of a project, by id; `folder` is what their paths are relative to."""

    folder: Path
    by_id: Mapping[str, Clip]

    @classmethod
    def of(cls, folder: Path) -> RealClips:
        """The clips that `densedpo data add` wrote into a folder.

        Raises:
            BadInput: there are none, or a row is bad.
        """
        return cls(folder=folder, by_id={clip.id: clip for clip in read_jsonl(folder / "clips.jsonl", Clip)})

    def frames(self, clip_id: str) -> Frames:
        """The frames uint8 [F, H, W, 3] of a clip, in the size that its record states."""
        clip = self.by_id[clip_id]
        frames, _ = read_mp4(self.folder / clip.video, pixel_scale=clip.pixel_scale)
        return frames


class ReferenceJudge:
    """The clip that is more like the real clip wins, segment by segment, by the mean of SSIM or of VMAF."""

    def __init__(self, config: ReferenceConfig, real_clips: RealClips) -> None:
        self._config = config
        self._real_clips = real_clips
        # answers by SSIM keep the instructions that they had before there was a choice; where ffmpeg lies says nothing
        left_out = {"ffmpeg", "measure"} if config.measure == "ssim" else {"ffmpeg"}
        options = config.model_dump(exclude=left_out)
        self._annotator = annotator_name("reference", options, ReferenceConfig().model_dump(exclude=left_out))
        self._instructions = f"reference {_VERSION}: {json.dumps(options, sort_keys=True)}"

    @property
    def annotator(self) -> str:
        """`reference`, with a hash of the options where they are not the default ones."""
        return self._annotator

    @property
    def instructions(self) -> str:
        """The judge's version and options."""
        return self._instructions

    def check(self, pair: Pair) -> None:
        """Refuses a pair without a real clip to compare with.

        Raises:
            BadInput: the pair was made from text alone, or its clip is not in the project.
        """
        self._clip_id(pair)

    def judge(self, clips: PairClips, segments: Sequence[tuple[int, int]]) -> tuple[SegmentAnswer, ...]:
        """One answer for each segment; scores are the mean likeness, 1 for the real clip itself (VMAF: about 1).

        Raises:
            BadInput: the real clip has another length or size than the pair, or VMAF cannot be computed.
        """
        clip_id = self._clip_id(clips.pair)
        real = self._real_clips.frames(clip_id)
        if real.shape != clips.a.shape:
            raise BadInput(
                f"pair {clips.pair.id}: its clips are {list(clips.a.shape[:3])} (frames, height, width) and the real "
                f"clip {clip_id} is {list(real.shape[:3])}; run `densedpo data add` for the model that made the pairs"
            )
        similarity_a, similarity_b = (
            similarity(clip, real)
            if self._config.measure == "ssim"
            else vmaf_similarity(clip, real, fps=clips.pair.fps, ffmpeg=self._config.ffmpeg or None)
            for clip in (clips.a, clips.b)
        )
        return tuple(self._answer(similarity_a[start:stop], similarity_b[start:stop]) for start, stop in segments)

    def _answer(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> SegmentAnswer:
        return SegmentAnswer.scored(float(a.mean()), float(b.mean()), self._config.margin)

    def _clip_id(self, pair: Pair) -> str:
        if pair.clip_id is None:
            raise BadInput(
                f"pair {pair.id} was made from text alone, so there is no real clip to compare with; "
                "use guided pairs (`densedpo generate guided`)"
            )
        if pair.clip_id not in self._real_clips.by_id:
            raise BadInput(
                f"pair {pair.id} was made from clip {pair.clip_id}, which is not in "
                f"{self._real_clips.folder / 'clips.jsonl'}; add it with `densedpo data add`"
            )
        return pair.clip_id


def similarity(clip: Frames, real: Frames) -> NDArray[np.float64]:
    """SSIM of each frame to the frame of the real clip, averaged over pixels and the three channels: float64 [F]."""
    return np.array([_ssim(x, y) for x, y in zip(clip, real, strict=True)])


def vmaf_similarity(clip: Frames, real: Frames, *, fps: float, ffmpeg: str | None = None) -> NDArray[np.float64]:
    """VMAF of each frame against the frame of the real clip, divided by 100: float64 [F].

    VMAF is made for large pictures: clips whose short side is under 192 pixels are enlarged by whole pixels to that.

    Raises:
        BadInput: ffmpeg or its libvmaf is missing, or it failed.
    """
    scale = max(1, -(-_VMAF_SIDE // min(clip.shape[1:3])))
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("clip.mp4", "real.mp4")]
        for path, frames in zip(paths, (clip, real), strict=True):
            write_mp4(path, frames, fps=fps, pixel_scale=scale)
        found = vmaf(*paths, ffmpeg=ffmpeg)
    if found.mean is None:
        raise BadInput(f"no VMAF: {found.reason}; use --set measure=ssim, or name one with --set ffmpeg=PROGRAM")
    if len(found.frames) != len(clip):
        raise BadInput(f"no VMAF: ffmpeg scored {len(found.frames)} of {len(clip)} frames")
    return np.array(found.frames) / 100


def _ssim(x_u8: NDArray[np.uint8], y_u8: NDArray[np.uint8]) -> float:
    x, y = x_u8.astype(np.float64), y_u8.astype(np.float64)
    mean_x, mean_y = _blurred(x), _blurred(y)
    variance_x = _blurred(x * x) - mean_x**2
    variance_y = _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    structure = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
    return float((luminance * structure).mean())


def _blurred(values: NDArray[np.float64]) -> NDArray[np.float64]:
    blurred: NDArray[np.float64] = np.asarray(cv2.GaussianBlur(values, _WINDOW, _SIGMA))
    return blurred
