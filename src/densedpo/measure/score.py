"""The scores of one clip. A score that cannot be computed is None and is shown as "not computed", never as 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from densedpo.core.records import SceneWords, from_row
from densedpo.metrics.frames import frame_scores
from densedpo.metrics.motion import FLOW_FPS, measure_motion
from densedpo.world.oracle import score_clip
from densedpo.world.render import FRAME_SIZE
from densedpo.world.scene import Scene

SCORING_VERSION: Final = 1

Goal = Literal["higher", "lower", "keep"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One column of every report. `goal` says which way is better; `keep`: less is a loss, more is no gain."""

    key: str
    label: str
    unit: str
    goal: Goal
    group: str
    meaning: str


_ORACLE: Final = "Oracle, from the known scene"
_FLOW: Final = f"Motion, by optical flow at {FLOW_FPS:g} fps"
_PIXELS: Final = "From pixels alone; no label ever saw these"

METRICS: Final = (
    Metric(key="visual_quality", label="Visual quality", unit="", goal="higher", group=_ORACLE,
           meaning="how cleanly the shape is drawn in each frame, 0 to 1"),
    Metric(key="temporal_consistency", label="Temporal consistency", unit="", goal="higher", group=_ORACLE,
           meaning="whether the shape stays the same from frame to frame, 0 to 1"),
    Metric(key="text_alignment", label="Text alignment", unit="", goal="higher", group=_ORACLE,
           meaning="whether shape, colours and motion are the ones that the caption asks for, 0 to 1"),
    Metric(key="dynamic_degree", label="Dynamic degree", unit="", goal="keep", group=_ORACLE,
           meaning="how much of the asked motion is there, 0 to 1"),
    Metric(key="object_motion", label="Object motion", unit="px/frame", goal="keep", group=_FLOW,
           meaning="mean flow on the part of the frame that moves"),
    Metric(key="frame_motion", label="Frame motion", unit="px/frame", goal="keep", group=_FLOW,
           meaning="mean flow over the whole frame"),
    Metric(key="static_share", label="Static share", unit="", goal="lower", group=_FLOW,
           meaning="share of steps between frames in which nothing moves"),
    Metric(key="sharpness", label="Sharpness", unit="", goal="keep", group=_PIXELS,
           meaning="steepness of the sharpest edges relative to the frame's contrast"),
    Metric(key="flicker", label="Flicker", unit="levels", goal="lower", group=_PIXELS,
           meaning="second difference over time of the frame's mean colour, in levels of 255"),
    Metric(key="saturation", label="Saturation", unit="", goal="keep", group=_PIXELS,
           meaning="mean spread between the colour channels, 0 to 1"),
    Metric(key="contrast", label="Contrast", unit="", goal="keep", group=_PIXELS,
           meaning="standard deviation of luma, 0 to 1"),
)  # fmt: skip


def clip_values(
    frames: NDArray[np.uint8], *, fps: float, scene: SceneWords | None, where: str
) -> dict[str, float | None]:
    """Every metric of a clip uint8 [F, H, W, 3].

    Args:
        scene: the known scene of the clip's prompt; without it the oracle's scores are not computed.
        where: what to call the clip's prompt in an error.

    Raises:
        BadInput: the scene is not one of the world.
    """
    values: dict[str, float | None] = dict.fromkeys(metric.key for metric in METRICS)
    if scene is not None and frames.shape[1:3] == (FRAME_SIZE, FRAME_SIZE):
        scores = score_clip(frames, from_row(Scene, scene, f"{where}: scene"), fps=fps).clip
        values["text_alignment"] = scores.text_alignment
        values["visual_quality"] = scores.visual_quality
        values["temporal_consistency"] = scores.temporal_consistency
        values["dynamic_degree"] = scores.dynamic_degree
    motion = measure_motion(frames, fps=fps)
    pixels = frame_scores(frames)
    values["object_motion"] = motion.object_px
    values["frame_motion"] = motion.frame_px
    values["static_share"] = motion.static_share
    values["sharpness"] = pixels.sharpness
    values["flicker"] = pixels.flicker
    values["saturation"] = pixels.saturation
    values["contrast"] = pixels.contrast
    return values
