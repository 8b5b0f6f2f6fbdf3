"""Results of other tools are read as they are; what they lack is not computed, with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from densedpo.core.errors import BadInput
from densedpo.core.media import write_mp4
from densedpo.judge.vmaf import read_vmaf, vmaf
from densedpo.measure.external import VBENCH_DIMENSIONS, read_vbench, write_vbench_prompts
from densedpo.measure.records import ClipScore
from densedpo.metrics.statistics import cluster_mean
from densedpo.world.render import render
from densedpo.world.scene import draw_scene
from ffmpeg_program import ffmpeg_with_vmaf

CLIP = render(draw_scene(6))[:9]


def scores(count: int = 3) -> tuple[ClipScore, ...]:
    return tuple(
        ClipScore(prompt_id=f"p{i}", number=0, caption=f"a caption, number {i}", video=f"videos/v{i}.mp4", values={})
        for i in range(count)
    )


def result(**dimensions: list[object]) -> dict[str, object]:
    """A result file of VBench's: a total and the videos of each dimension."""
    return {
        name: [0.5, [{"video_path": f"/elsewhere/videos/v{i}.mp4", "video_results": r} for i, r in enumerate(results)]]
        for name, results in dimensions.items()
    }


def written(path: Path, row: object) -> Path:
    path.write_text(json.dumps(row))
    return path


def test_vbench_scores_are_matched_by_video_and_kept_per_clip(tmp_path: Path) -> None:
    path = written(tmp_path / "r.json", result(dynamic_degree=[True, False, True], aesthetic_quality=[0.5, 0.6, 0.7]))
    found = read_vbench(path, scores())
    assert found.values["dynamic_degree"] == {("p0", 0): 1.0, ("p1", 0): 0.0, ("p2", 0): 1.0}
    estimate = cluster_mean(found.values["aesthetic_quality"], seed=0)
    assert estimate is not None
    assert (estimate.value, estimate.n) == (pytest.approx(0.6), 3)


def test_imaging_quality_of_a_video_is_in_percent(tmp_path: Path) -> None:
    found = read_vbench(written(tmp_path / "r.json", result(imaging_quality=[72.9, 60.0, 0.0])), scores())
    assert found.values["imaging_quality"][("p0", 0)] == pytest.approx(0.729)


def test_what_vbench_lacks_is_not_computed_and_not_0(tmp_path: Path) -> None:
    """The second video was skipped, and the third has a sum over frames instead of a mean."""
    row = result(subject_consistency=[0.9, 0.8, 10.98])
    row["subject_consistency"][1].pop(1)  # type: ignore[index]
    found = read_vbench(written(tmp_path / "r.json", row), scores())
    assert found.values["subject_consistency"] == {("p0", 0): 0.9, ("p1", 0): None, ("p2", 0): None}
    assert found.reasons["subject_consistency"] == "2 of 3 clips have no score between 0 and 1 in VBench's result"
    assert set(found.values) == set(VBENCH_DIMENSIONS)
    assert set(found.values["motion_smoothness"].values()) == {None}
    assert found.reasons["motion_smoothness"] == "not in VBench's result"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1, 2], "a JSON object is expected"),
        ({"dynamic_degree": 0.5}, "no result file of VBench"),
        ({"dynamic_degree": [0.5, [{"video_results": 1.0}]]}, "a video without a path"),
        ({"dynamic_degree": [0.5, [{"video_path": "other.mp4", "video_results": True}]]}, "none of its 1 videos"),
    ],
)
def test_what_is_no_result_of_these_videos_is_refused(tmp_path: Path, row: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_vbench(written(tmp_path / "r.json", row), scores())


def test_a_missing_or_torn_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no file at"):
        read_vbench(tmp_path / "none.json", scores())
    (tmp_path / "torn.json").write_text("{")
    with pytest.raises(BadInput, match="not JSON"):
        read_vbench(tmp_path / "torn.json", scores())


def test_prompts_for_vbench_are_by_file_name(tmp_path: Path) -> None:
    write_vbench_prompts(tmp_path / "prompts.json", scores(2))
    assert json.loads((tmp_path / "prompts.json").read_text()) == {
        "v0.mp4": "a caption, number 0",
        "v1.mp4": "a caption, number 1",
    }


def test_a_log_of_libvmaf_is_read(tmp_path: Path) -> None:
    log = {"version": "3.0.0", "frames": [{"frameNum": i, "metrics": {"vmaf": v}} for i, v in enumerate([90, 96.0])]}
    found = read_vmaf(written(tmp_path / "v.json", log))
    assert (found.mean, found.frames, found.version) == (93.0, (90.0, 96.0), "3.0.0")
    with pytest.raises(BadInput, match="no frames"):
        read_vmaf(written(tmp_path / "v.json", {"version": "3.0.0"}))
    with pytest.raises(BadInput, match="no VMAF score"):
        read_vmaf(written(tmp_path / "v.json", {"frames": [{"metrics": {"psnr": 30}}]}))


def test_vmaf_is_high_for_the_same_clip_and_lower_for_a_worse_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noisy = np.clip(CLIP + rng.normal(0, 25, CLIP.shape), 0, 255).astype(np.uint8)
    for name, frames in (("same", CLIP), ("worse", noisy)):
        write_mp4(tmp_path / f"{name}.mp4", frames, fps=8.0, pixel_scale=4)
    same = vmaf(tmp_path / "same.mp4", tmp_path / "same.mp4", ffmpeg=ffmpeg_with_vmaf())
    if "without libvmaf" in same.reason:
        pytest.skip(same.reason)
    worse = vmaf(tmp_path / "worse.mp4", tmp_path / "same.mp4", ffmpeg=ffmpeg_with_vmaf())
    assert same.mean is not None and worse.mean is not None
    assert len(same.frames) == len(worse.frames) == len(CLIP)
    assert same.mean > 90
    assert worse.mean < same.mean - 10


def test_without_ffmpeg_vmaf_is_not_computed_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mp4(tmp_path / "a.mp4", CLIP, fps=8.0)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = vmaf(tmp_path / "a.mp4", tmp_path / "a.mp4")
    assert (found.mean, found.reason) == (None, "ffmpeg was not found; install it with libvmaf to get VMAF")
    absent = vmaf(tmp_path / "a.mp4", tmp_path / "a.mp4", ffmpeg=str(tmp_path / "none"))
    assert absent.mean is None
    assert "could not be run: No such file" in absent.reason
    with pytest.raises(BadInput, match="no video at"):
        vmaf(tmp_path / "b.mp4", tmp_path / "a.mp4")


def test_an_ffmpeg_that_fails_is_quoted(tmp_path: Path) -> None:
    """A program that complains and fails stands in for an ffmpeg that was built without the filter."""
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho \"[AVFilterGraph @ 0x1] No such filter: 'libvmaf'\" >&2\nexit 1\n")
    program.chmod(0o755)
    write_mp4(tmp_path / "a.mp4", CLIP, fps=8.0)
    found = vmaf(tmp_path / "a.mp4", tmp_path / "a.mp4", ffmpeg=str(program))
    assert found.mean is None
    assert found.reason.endswith("this ffmpeg is built without libvmaf")
