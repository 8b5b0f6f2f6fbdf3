from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from densedpo.world.oracle import TEXT_WEIGHTS, Scores, score_clip
from densedpo.world.render import Pose, compose, coverage, render
from densedpo.world.scene import BACKGROUNDS, COLOURS, Scene, draw_scene

SEGMENTS = [(0, 9), (9, 17), (17, 25), (25, 33)]


def lowest(scores: Iterable[Scores]) -> dict[str, float]:
    rows = [dataclasses.asdict(one) for one in scores]
    return {name: min(row[name] for row in rows) for name in rows[0]}


def degraded(frames: NDArray[np.uint8], *, sigma_px: float, grain: float, seed: int) -> NDArray[np.uint8]:
    """What a small autoencoder does to a clip: softer edges and a little noise."""
    blurred = np.stack([cv2.GaussianBlur(frame.astype(np.float32), (0, 0), sigma_px) for frame in frames])
    noise = np.random.Generator(np.random.Philox(key=seed)).normal(0, grain, blurred.shape)
    return np.clip(np.rint(blurred + noise), 0, 255).astype(np.uint8)


def assert_truth_scores_high(seeds: Iterable[int]) -> None:
    for seed in seeds:
        scene = draw_scene(seed)
        report = score_clip(render(scene), scene, segments=SEGMENTS)
        scores = lowest([report.clip, *report.segments])
        assert min(scores.values()) >= 0.97, (seed, scene.caption, scores)
        assert max(dataclasses.asdict(report.clip).values()) <= 1


def test_rendered_truth_scores_high_in_all_four_as_a_clip_and_in_each_segment() -> None:
    assert_truth_scores_high(range(120))


@pytest.mark.slow
def test_rendered_truth_scores_high_over_very_many_scenes() -> None:
    assert_truth_scores_high(range(120, 720))


def test_what_an_autoencoder_does_to_truth_is_within_tolerance() -> None:
    for seed in range(30):
        scene = draw_scene(seed)
        frames = degraded(render(scene), sigma_px=0.6, grain=2.0, seed=seed)
        scores = lowest([score_clip(frames, scene).clip])
        assert min(scores.values()) >= 0.95, (seed, scene.caption, scores)


def test_it_finds_the_words_of_a_scene_in_a_degraded_clip() -> None:
    for seed in range(40):
        scene = draw_scene(seed)
        found = score_clip(degraded(render(scene), sigma_px=0.8, grain=3.0, seed=seed), scene).found
        asked = {name: getattr(scene, name) for name in TEXT_WEIGHTS}
        assert dataclasses.asdict(found) == asked, (seed, scene.caption)


def test_the_same_clip_gets_the_same_scores_and_only_the_words_are_read() -> None:
    scene = draw_scene(11)
    frames = render(scene)
    elsewhere = dataclasses.replace(scene, offset_x=0.0, offset_y=0.0, phase=0.0)
    assert score_clip(frames, scene, segments=SEGMENTS) == score_clip(frames, elsewhere, segments=SEGMENTS)


@pytest.mark.parametrize("what", ["nothing", "noise", "mush"])
def test_a_missing_shape_scores_near_nothing_in_all_four(what: str) -> None:
    scene = draw_scene(5)
    rng = np.random.Generator(np.random.Philox(key=0))
    empty = np.broadcast_to(np.array(BACKGROUNDS[scene.background], dtype=np.float64), (33, 64, 64, 3))
    grain = {"nothing": 0.0, "noise": 3.0, "mush": 8.0}[what]
    frames = np.clip(np.rint(empty + rng.normal(0, grain, empty.shape)), 0, 255).astype(np.uint8)
    report = score_clip(frames, scene, segments=SEGMENTS)
    scores = [value for one in (report.clip, *report.segments) for value in dataclasses.asdict(one).values()]
    assert all(0 <= value <= 0.1 for value in scores)
    assert report.found.shape is None
    assert report.found.motion is None


def test_a_shape_that_fades_away_lowers_the_scores_step_by_step() -> None:
    scene = draw_scene(8)
    truth = render(scene).astype(np.float64)
    background = np.array(BACKGROUNDS[scene.background])
    qualities = [
        score_clip(np.rint(background + (truth - background) * opacity).astype(np.uint8), scene).clip.text_alignment
        for opacity in (1.0, 0.6, 0.3, 0.1)
    ]
    assert qualities == sorted(qualities, reverse=True)
    assert qualities[0] > qualities[1] > qualities[-1]


def test_a_double_shape_lowers_visual_quality() -> None:
    scene = dataclasses.replace(draw_scene(0), size="small", motion="slides", direction="down", offset_x=-1.0)
    frames = render(scene)
    twin = coverage(scene.shape, scene.size, Pose(x=50.0, y=31.5, angle=0.0))[..., None]
    doubled = np.rint(frames * (1 - twin) + twin * np.array(COLOURS[scene.colour])).astype(np.uint8)
    assert score_clip(doubled, scene).clip.visual_quality < score_clip(frames, scene).clip.visual_quality - 0.3


def test_a_ragged_outline_lowers_visual_quality_by_its_size() -> None:
    scene = dataclasses.replace(draw_scene(0), shape="circle", size="large")
    rng = np.random.Generator(np.random.Philox(key=1))
    bumps = cv2.GaussianBlur(rng.normal(0, 1, (64, 64)).astype(np.float32), (0, 0), 2.0) * 20

    def quality(raggedness: float) -> float:
        frames = []
        for i in range(33):
            soft = cv2.GaussianBlur(coverage("circle", "large", Pose(x=20 + i * 0.5, y=32.0, angle=0.0)), (0, 0), 2.0)
            cover = np.clip((soft - 0.5 + raggedness * bumps * soft * (1 - soft)) * 6 + 0.5, 0, 1).astype(np.float32)
            frames.append(compose(cover, COLOURS["red"], BACKGROUNDS["white"]))
        return score_clip(np.stack(frames), scene).clip.visual_quality

    qualities = [quality(raggedness) for raggedness in (0.0, 0.5, 1.0)]
    assert qualities[0] > qualities[1] > qualities[2]


def test_a_teleport_lowers_temporal_consistency_where_it_happens() -> None:
    scene = dataclasses.replace(draw_scene(0), motion="slides", direction="right", speed="slow", size="small")
    frames = render(scene).copy()
    frames[20:] = np.roll(frames[20:], 18, axis=1)
    report = score_clip(frames, scene, segments=SEGMENTS)
    assert report.segments[2].temporal_consistency < 0.9
    assert report.segments[0].temporal_consistency > 0.97


@pytest.mark.parametrize("num_frames", [9, 17, 49])
def test_it_scores_clips_of_other_lengths_and_rates(num_frames: int) -> None:
    scene = dataclasses.replace(draw_scene(2), motion="orbits", direction="clockwise", shape="square")
    report = score_clip(render(scene, num_frames=num_frames, fps=16.0), scene, fps=16.0)
    assert min(lowest([report.clip]).values()) >= 0.97


def bad(scene: Scene, frames: NDArray[np.generic], segments: list[tuple[int, int]] | None = None) -> None:
    score_clip(frames, scene, segments=segments)  # type: ignore[arg-type]


def test_bad_input_is_refused_by_its_name() -> None:
    scene = draw_scene(0)
    frames = render(scene)
    with pytest.raises(ValueError, match="float64"):
        bad(scene, frames.astype(np.float64))
    with pytest.raises(ValueError, match=r"\(33, 32, 32, 3\)"):
        bad(scene, frames[:, :32, :32])
    with pytest.raises(ValueError, match="at least 5 frames"):
        bad(scene, frames[:3])
    with pytest.raises(ValueError, match=r"\[25, 34\)"):
        bad(scene, frames, [(25, 34)])
