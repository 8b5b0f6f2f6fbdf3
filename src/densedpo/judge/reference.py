"""The reference judge: which of two clips is closer to the real clip that both were made from.

For guided pairs of real videos, where no scene is known. Both halves start from the same noised real clip, so the one
that strays further from it has usually lost detail or order; nothing is learned and nothing leaves the machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from densedpo.core.config import Config
from densedpo.core.errors import BadInput
from densedpo.core.media import read_mp4
from densedpo.core.records import Clip, Pair, read_jsonl
from densedpo.judge.protocol import Frames, PairClips, SegmentAnswer, annotator_name, better

_VERSION: Final = 1
# the constants of Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity"
_WINDOW: Final = (11, 11)
_SIGMA: Final = 1.5
_C1: Final = (0.01 * 255) ** 2
_C2: Final = (0.03 * 255) ** 2


class ReferenceConfig(Config):
    """Options of `judge reference`."""

    segment_seconds: float = Field(default=1.0, gt=0, description="length of a segment")
    margin: float = Field(default=0.01, ge=0, description="similarities that differ by less are a tie")


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
    """The clip with the higher mean SSIM to the real clip wins, segment by segment."""

    def __init__(self, config: ReferenceConfig, real_clips: RealClips) -> None:
        self._config = config
        self._real_clips = real_clips
        options = config.model_dump()
        self._annotator = annotator_name("reference", options, ReferenceConfig().model_dump())
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
        """One answer for each segment; scores are mean SSIM, 1 for the real clip itself.

        Raises:
            BadInput: the real clip has another length or size than the pair.
        """
        clip_id = self._clip_id(clips.pair)
        real = self._real_clips.frames(clip_id)
        if real.shape != clips.a.shape:
            raise BadInput(
                f"pair {clips.pair.id}: its clips are {list(clips.a.shape[:3])} (frames, height, width) and the real "
                f"clip {clip_id} is {list(real.shape[:3])}; run `densedpo data add` for the model that made the pairs"
            )
        similarity_a, similarity_b = similarity(clips.a, real), similarity(clips.b, real)
        return tuple(self._answer(similarity_a[start:stop], similarity_b[start:stop]) for start, stop in segments)

    def _answer(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> SegmentAnswer:
        score_a, score_b = float(a.mean()), float(b.mean())
        return SegmentAnswer(answer=better(score_a, score_b, self._config.margin), score_a=score_a, score_b=score_b)

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
