"""The scores of one clip. A score that cannot be computed is None and is shown as "not computed", never as 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from densedpo.core.records import SceneWords, from_row
from densedpo.metrics.appearance import consistency
from densedpo.metrics.camera import split_motion
from densedpo.metrics.frames import frame_scores
from densedpo.metrics.motion import FLOW_FPS, flow_steps, mean_motion, resample
from densedpo.metrics.smoothness import motion_smoothness
from densedpo.metrics.vbench_degree import MIN_FRAMES, is_dynamic, steps_are_dynamic
from densedpo.world.oracle import score_clip
from densedpo.world.render import FRAME_SIZE
from densedpo.world.scene import Scene

SCORING_VERSION: Final = 2
DIVERSITY: Final = "diversity"

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
_STEADY: Final = "Steadiness, from pixels alone: a frozen clip scores best, so read these beside motion"
_SEEDS: Final = "Across the seeds of a prompt"
_PER_S: Final = "% of side/s"

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
    Metric(key="top_motion", label="Fastest motion", unit=_PER_S, goal="keep", group=_FLOW,
           meaning="mean flow on the fastest 5 % of the frame, camera and objects, in percent of the short side"),
    Metric(key="residual_motion", label="Motion without camera", unit=_PER_S, goal="keep", group=_FLOW,
           meaning="the same with the motion of the camera taken away: one affine motion fitted to the whole picture"),
    Metric(key="camera_motion", label="Camera motion", unit=_PER_S, goal="keep", group=_FLOW,
           meaning="mean over the frame of that motion of the camera"),
    Metric(key="vbench_dynamic_degree", label="Dynamic clips", unit="", goal="keep", group=_FLOW,
           meaning="share of clips that VBench's dynamic degree calls dynamic: a re-implementation of its rule on "
           "another optical flow, not comparable with numbers of VBench itself"),
    Metric(key="static_share", label="Static share", unit="", goal="lower", group=_FLOW,
           meaning="share of steps between frames in which nothing moves"),
    Metric(key="sharpness", label="Sharpness", unit="", goal="keep", group=_PIXELS,
           meaning="steepness of the sharpest edges relative to the frame's contrast"),
    Metric(key="saturation", label="Saturation", unit="", goal="keep", group=_PIXELS,
           meaning="mean spread between the colour channels, 0 to 1"),
    Metric(key="contrast", label="Contrast", unit="", goal="keep", group=_PIXELS,
           meaning="standard deviation of luma, 0 to 1"),
    Metric(key="subject_consistency", label="Subject consistency", unit="", goal="keep", group=_STEADY,
           meaning="likeness of colours and edges of the moving part to the frame before and the first, 0 to 1; no "
           "network, not VBench's score of that name; 1 if frozen"),
    Metric(key="background_consistency", label="Background consistency", unit="", goal="keep", group=_STEADY,
           meaning="the same for the part that never moves; 1 if frozen"),
    Metric(key="motion_smoothness", label="Motion smoothness", unit="", goal="keep", group=_STEADY,
           meaning="how well each second frame is guessed from its neighbours along optical flow, 0 to 1; 1 if frozen"),
    Metric(key="temporal_flickering", label="Sameness of frames", unit="", goal="keep", group=_STEADY,
           meaning="VBench's temporal flickering: 1 less the mean difference of neighbouring frames; any motion lowers "
           "it; 1 if frozen"),
    Metric(key="flicker", label="Flicker", unit="levels", goal="lower", group=_STEADY,
           meaning="second difference over time of the frame's mean colour, in levels of 255; 0 if frozen"),
    Metric(key="saturation_drift", label="Saturation drift", unit="", goal="lower", group=_STEADY,
           meaning="change of saturation from the first quarter of the clip to the last, either way; 0 if frozen"),
    Metric(key="contrast_drift", label="Contrast drift", unit="", goal="lower", group=_STEADY,
           meaning="change of contrast from the first quarter of the clip to the last, either way; 0 if frozen"),
    Metric(key=DIVERSITY, label="Diversity", unit="CIELAB", goal="keep", group=_SEEDS,
           meaning="mean distance between the clips of a prompt, in colours and where and when they are; not computed "
           "with one seed"),
)  # fmt: skip


def clip_values(
    frames: NDArray[np.uint8], *, fps: float, scene: SceneWords | None, where: str
) -> dict[str, float | None]:
    """Every metric of a clip uint8 [F, H, W, 3] but diversity, which is of several clips.

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
    return values | _motion_values(frames, fps=fps) | _pixel_values(frames)


def _motion_values(frames: NDArray[np.uint8], *, fps: float) -> dict[str, float | None]:
    # a slower clip is measured at its own rate: repeated frames would count as standing still
    at_fps = min(fps, FLOW_FPS)
    taken = resample(frames, fps=fps, at_fps=at_fps)
    if len(taken) < 2:
        return {}
    steps = flow_steps(taken)
    motion, split = mean_motion(steps, fps=at_fps), split_motion(steps, fps=at_fps)
    per_frame = at_fps / FLOW_FPS
    dynamic = None
    if len(taken) >= MIN_FRAMES:
        # VBench takes every so many-th frame: where the rate is a multiple of 8, the frames that are here already
        same = fps <= FLOW_FPS or fps % FLOW_FPS == 0
        dynamic = float(steps_are_dynamic(steps) if same else is_dynamic(frames, fps=fps))
    return {
        "object_motion": motion.object_px * per_frame,
        "frame_motion": motion.frame_px * per_frame,
        "static_share": motion.static_share,
        "top_motion": split.top5,
        "residual_motion": split.residual,
        "camera_motion": split.camera,
        "vbench_dynamic_degree": dynamic,
    }


def _pixel_values(frames: NDArray[np.uint8]) -> dict[str, float | None]:
    pixels = frame_scores(frames)
    values: dict[str, float | None] = {
        "sharpness": pixels.sharpness,
        "flicker": pixels.flicker,
        "saturation": pixels.saturation,
        "contrast": pixels.contrast,
        "saturation_drift": pixels.saturation_drift,
        "contrast_drift": pixels.contrast_drift,
    }
    if len(frames) >= 2:
        alike = consistency(frames)
        values["subject_consistency"], values["background_consistency"] = alike.subject, alike.background
        values["temporal_flickering"] = pixels.temporal_flickering
    if len(frames) >= 3:
        values["motion_smoothness"] = motion_smoothness(frames)
    return values
