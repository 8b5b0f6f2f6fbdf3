"""The reference judge: likeness to the real clip, by segment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from densedpo.adapters.base import Geometry
from densedpo.core.errors import BadInput
from densedpo.core.records import Clip, Pair, read_jsonl
from densedpo.core.workspace import Project, init_project
from densedpo.data.config import DataConfig, WorldConfig
from densedpo.data.world import add_world
from densedpo.judge.pairset import ranges_of
from densedpo.judge.protocol import PairClips
from densedpo.judge.reference import RealClips, ReferenceConfig, ReferenceJudge, similarity, vmaf_similarity
from ffmpeg_program import ffmpeg_with_vmaf

NewPair = Callable[..., Pair]


def textured(num_frames: int = 6) -> np.ndarray:
    """Moving stripes with some grain, uint8 [F, 32, 48, 3]."""
    rng = np.random.Generator(np.random.Philox(key=3))
    x = np.arange(48)[None, None, :] + 2 * np.arange(num_frames)[:, None, None]
    stripes = 120 + 60 * np.sin(x / 4) + rng.normal(0, 8, size=(num_frames, 32, 48))
    return np.clip(np.stack([stripes, stripes * 0.7, 255 - stripes], axis=-1), 0, 255).astype(np.uint8)


def test_similarity_to_itself_is_one() -> None:
    assert similarity(textured(), textured()) == pytest.approx(np.ones(6))


def test_constant_frames_by_hand() -> None:
    """Without structure SSIM is the luminance term: (2 * 100 * 50 + C1) / (100^2 + 50^2 + C1), C1 = 2.55^2 = 6.5025."""
    a, b = (np.full((1, 16, 16, 3), value, dtype=np.uint8) for value in (100, 50))
    assert similarity(a, b) == pytest.approx([10006.5025 / 12506.5025])


@pytest.mark.parametrize("fault", ["grain", "blur", "colour", "shift"])
def test_more_of_a_fault_is_less_alike(fault: str) -> None:
    clip = textured()

    def broken(amount: int) -> np.ndarray:
        rng = np.random.Generator(np.random.Philox(key=4))
        match fault:
            case "grain":
                return np.clip(clip + rng.normal(0, 10 * amount, size=clip.shape), 0, 255).astype(np.uint8)
            case "blur":
                shifted = [np.roll(clip, step, axis=2).astype(float) for step in range(-amount, amount + 1)]
                return np.mean(shifted, axis=0).astype(np.uint8)
            case "colour":
                return np.clip(clip.astype(int) + np.array([30 * amount, 0, -30 * amount]), 0, 255).astype(np.uint8)
            case _:
                return np.roll(clip, amount, axis=2)

    little, much = similarity(broken(1), clip).mean(), similarity(broken(3), clip).mean()
    assert 0.99 > little > much + 0.02


def test_the_closer_clip_wins_where_they_differ(
    fresh_project: Project, new_pair: NewPair, clean: np.ndarray, faulty: np.ndarray
) -> None:
    judge = ReferenceJudge(ReferenceConfig(), RealClips.of(fresh_project.clips))
    pair = new_pair()
    found = judge.judge(PairClips(pair=pair, a=faulty, b=clean), ranges_of(pair, 1.0))
    assert [answer.answer for answer in found] == ["tie", "tie", "b", "b"]
    assert found[3].score_b == pytest.approx(1.0, abs=0.02)


def test_clips_of_the_world_are_compared_with_as_well(tmp_path: Path, new_pair: NewPair) -> None:
    """As `data add --world` leaves them; a guided pair names its clip."""
    geometry = Geometry(
        num_frames=33, height=64, width=64, fps=8.0, temporal_stride=4, spatial_stride=8, latent_channels=16,
        max_sequence_length=24,
    )  # fmt: skip
    project = init_project(tmp_path / "project")
    add_world(project, geometry=geometry, config=DataConfig(world=WorldConfig(num_clips=1)))
    (clip,) = read_jsonl(project.clips / "clips.jsonl", Clip)
    real_clips = RealClips.of(project.clips)
    frames = real_clips.frames(clip.id)
    worse = frames.copy()
    worse[17:] = np.roll(worse[17:], 5, axis=2)
    judge, pair = ReferenceJudge(ReferenceConfig(), real_clips), new_pair(clip_id=clip.id)
    judge.check(pair)
    found = judge.judge(PairClips(pair=pair, a=worse, b=frames), ranges_of(pair, 1.0))
    assert [answer.answer for answer in found] == ["tie", "tie", "b", "b"]


def test_independent_pairs_without_a_clip_are_refused(fresh_project: Project, new_pair: NewPair) -> None:
    judge = ReferenceJudge(ReferenceConfig(), RealClips.of(fresh_project.clips))
    with pytest.raises(BadInput, match="pair p0 was made from text alone"):
        judge.check(new_pair(kind="independent", clip_id=None))
    with pytest.raises(BadInput, match="pair p0 was made from clip c9, which is not in"):
        judge.check(new_pair(clip_id="c9"))


def test_a_pair_of_another_size_than_its_clip_is_refused(fresh_project: Project, new_pair: NewPair) -> None:
    judge = ReferenceJudge(ReferenceConfig(), RealClips.of(fresh_project.clips))
    pair = new_pair(num_frames=17)
    short = np.zeros((17, 64, 64, 3), dtype=np.uint8)
    with pytest.raises(BadInput, match=r"its clips are \[17, 64, 64\].*real clip c0 is \[33, 64, 64\]"):
        judge.judge(PairClips(pair=pair, a=short, b=short), ranges_of(pair, 1.0))


def test_other_options_are_another_annotator(fresh_project: Project) -> None:
    clips = RealClips.of(fresh_project.clips)
    assert ReferenceJudge(ReferenceConfig(), clips).annotator == "reference"
    assert ReferenceJudge(ReferenceConfig(margin=0.5), clips).annotator.startswith("reference-")


def test_vmaf_puts_the_clip_itself_above_a_noisy_one() -> None:
    clip = textured()
    noisy = np.clip(clip + np.random.Generator(np.random.Philox(key=1)).normal(0, 25, clip.shape), 0, 255)
    try:
        same = vmaf_similarity(clip, clip, fps=8.0, ffmpeg=ffmpeg_with_vmaf())
    except BadInput as error:
        if "without libvmaf" in str(error):
            pytest.skip(str(error))
        raise
    worse = vmaf_similarity(noisy.astype(np.uint8), clip, fps=8.0, ffmpeg=ffmpeg_with_vmaf())
    assert same.shape == worse.shape == (6,)
    assert same.min() > 0.9
    assert worse.max() < same.min() - 0.1


def test_vmaf_without_ffmpeg_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match=r"ffmpeg was not found.*measure=ssim"):
        vmaf_similarity(textured(), textured(), fps=8.0)


def test_vmaf_is_another_annotator_and_ssim_the_one_it_was() -> None:
    clips = RealClips(folder=Path(), by_id={})
    ssim = ReferenceJudge(ReferenceConfig(), clips)
    assert (ssim.annotator, ssim.instructions) == (
        "reference", 'reference 1: {"margin": 0.01, "segment_seconds": 1.0}',
    )  # fmt: skip
    by_vmaf = [ReferenceJudge(ReferenceConfig(measure="vmaf", ffmpeg=each), clips).annotator for each in ("", "x")]
    assert by_vmaf[0] == by_vmaf[1] != "reference"
    with pytest.raises(ValueError, match="no effect"):
        ReferenceConfig(ffmpeg="x")
