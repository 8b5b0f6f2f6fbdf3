"""Videos into clips: what is made, what is skipped and why, and that a rerun changes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from densedpo.adapters.base import Geometry
from densedpo.core.errors import BadInput
from densedpo.core.media import read_mp4
from densedpo.core.records import Clip, Prompt, read_jsonl
from densedpo.core.workspace import Project, init_project, read_stamp
from densedpo.data.clips import content_of, file_stem, split_of
from densedpo.data.config import DataConfig, FilterConfig, LimitConfig
from densedpo.data.decoding import decoder
from densedpo.data.ingest import add_videos
from densedpo.data.journal import Journal, Outcome, Skipped

MakeVideo = Callable[..., Path]
MakeFrames = Callable[..., NDArray[np.uint8]]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return init_project(tmp_path / "project")


@pytest.fixture
def videos(tmp_path: Path, make_video: MakeVideo, noise_frames: MakeFrames) -> Path:
    """A folder with two good videos and one of each kind of bad one."""
    moving = noise_frames(28, seed=1)
    one_cut = np.concatenate([noise_frames(12, seed=2), noise_frames(5, seed=3)])
    make_video("videos/long.mp4", moving)
    make_video("videos/cut.webm", one_cut, codec="libvpx")
    make_video("videos/one_frame.mp4", moving[:1])
    make_video("videos/static.mp4", np.repeat(moving[:1], 12, axis=0))
    make_video("videos/tiny.mp4", moving[:12, :8, :8])
    folder = tmp_path / "videos"
    (folder / "text.mp4").write_text("this is not a video")
    data = (folder / "long.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(data[: len(data) // 2])
    for path in list(folder.iterdir()):
        path.with_suffix(".txt").write_text(f"a video named {path.stem}")
    return folder


def read_skipped(project: Project) -> dict[str, Skipped]:
    return {skip.id: skip for skip in read_jsonl(project.clips / "skipped.jsonl", Skipped)}


def written(project: Project) -> dict[str, bytes]:
    files = [path for path in project.clips.rglob("*") if path.is_file() and path.name not in (".lock", "stamp.json")]
    return {path.relative_to(project.clips).as_posix(): path.read_bytes() for path in files}


def test_good_videos_become_clips_and_bad_are_listed(project: Project, videos: Path, geometry: Geometry) -> None:
    """28 frames: 3 clips and a tail of 1; 12 + 5 with a cut: 1 clip, a tail of 3 and 5 too few; 12: a tail of 3."""
    summary = add_videos(project, videos, geometry=geometry, config=DataConfig())
    clips = read_jsonl(project.clips / "clips.jsonl", Clip)
    assert [clip.id for clip in clips] == ["cut-000", "long-000", "long-001", "long-002"]
    assert [clip.start_s for clip in clips] == [0.0, 0.0, 1.125, 2.25]
    assert {(clip.num_frames, clip.fps, clip.height, clip.width) for clip in clips} == {(9, 8.0, 32, 32)}
    assert summary.skipped == {
        "broken": 2, "resolution": 1, "duration": 0, "too_short": 2, "static": 1, "camera_only": 0,
    }  # fmt: skip
    assert (summary.num_sources, summary.num_clips, summary.num_examined, summary.num_cuts) == (7, 4, 5, 1)
    assert (summary.num_tails, summary.tail_s) == (3, pytest.approx(7 / 8, abs=0.01))
    skipped = read_skipped(project)
    assert "not a video" in skipped["text"].reason
    assert "truncated" in skipped["truncated"].reason
    assert skipped["one_frame"].kind == "too_short"
    assert skipped["cut"].start_s == pytest.approx(1.5, abs=0.01)
    assert "8x8 is 0.25 of the clip's 32x32" in skipped["tiny"].reason
    assert "100%" in skipped["static"].reason
    assert read_stamp(project.clips) is not None


def test_a_clip_is_what_its_video_says(
    project: Project, videos: Path, geometry: Geometry, noise_frames: MakeFrames
) -> None:
    add_videos(project, videos, geometry=geometry, config=DataConfig())
    clip = next(clip for clip in read_jsonl(project.clips / "clips.jsonl", Clip) if clip.id == "long-001")
    frames, fps = read_mp4(project.clips / clip.video, pixel_scale=clip.pixel_scale)
    assert (frames.shape, fps, clip.content) == ((9, 32, 32, 3), 8.0, content_of(frames))
    # 48x64 scaled by 2/3 and cropped to the middle 32 columns
    source = noise_frames(28, seed=1)[9:18, :, 8:56].reshape(9, 16, 3, 16, 3, 3).mean(axis=(2, 4))
    made = frames.reshape(9, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    assert np.abs(made - source).mean() < 12


def test_every_clip_has_its_prompt(project: Project, videos: Path, geometry: Geometry) -> None:
    add_videos(project, videos, geometry=geometry, config=DataConfig())
    clips = read_jsonl(project.clips / "clips.jsonl", Clip)
    prompts = read_jsonl(project.clips / "prompts.jsonl", Prompt)
    assert [(p.clip_id, p.caption, p.split) for p in prompts] == [(c.id, c.caption, c.split) for c in clips]
    assert prompts[1].caption == "a video named long"


def test_a_rerun_keeps_every_byte_and_decodes_nothing(
    project: Project, videos: Path, geometry: Geometry, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = add_videos(project, videos, geometry=geometry, config=DataConfig())
    before = written(project)
    monkeypatch.setattr(decoder.Decoder.__init__, "__kwdefaults__", {"command": ("/nonexistent",)})
    assert add_videos(project, videos, geometry=geometry, config=DataConfig()) == first
    assert written(project) == before


def test_a_run_that_was_cut_goes_on_to_the_same_end(
    project: Project, videos: Path, geometry: Geometry, tmp_path: Path
) -> None:
    """A journal torn in its last row, a video lost, and no index: what a kill in the middle leaves."""
    add_videos(project, videos, geometry=geometry, config=DataConfig())
    whole = written(project)
    journal = (project.clips / "journal.jsonl").read_bytes()
    rows = journal.splitlines(keepends=True)
    (project.clips / "journal.jsonl").write_bytes(b"".join(rows[:3]) + rows[3][:40])
    for name in ("clips.jsonl", "prompts.jsonl", "videos/cut-000.mp4"):
        (project.clips / name).unlink()
    add_videos(project, videos, geometry=geometry, config=DataConfig())
    assert {name: data for name, data in written(project).items() if name != "journal.jsonl"} == {
        name: data for name, data in whole.items() if name != "journal.jsonl"
    }


def test_a_damaged_row_of_the_journal_is_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for name in ("first", "second", "third"):
        journal.append(Outcome(id=name, key="", origin="here"))
    rows = (tmp_path / "journal.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "journal.jsonl").write_text(rows[0] + rows[1][:9] + "\n" + rows[2])
    with pytest.raises(BadInput, match=r"journal\.jsonl:2"):
        Journal(tmp_path / "journal.jsonl")


def test_more_videos_join_what_is_there(
    project: Project, videos: Path, geometry: Geometry, make_video: MakeVideo, noise_frames: MakeFrames
) -> None:
    add_videos(project, videos, geometry=geometry, config=DataConfig())
    splits = {clip.id: clip.split for clip in read_jsonl(project.clips / "clips.jsonl", Clip)}
    make_video("more/new.mp4", noise_frames(9, seed=7)).with_suffix(".txt").write_text("new")
    summary = add_videos(project, videos.parent / "more", geometry=geometry, config=DataConfig())
    after = {clip.id: clip.split for clip in read_jsonl(project.clips / "clips.jsonl", Clip)}
    assert summary.num_clips == 5
    assert {key: after[key] for key in splits} == splits


def test_a_changed_caption_or_setting_replaces_the_clips(project: Project, videos: Path, geometry: Geometry) -> None:
    add_videos(project, videos, geometry=geometry, config=DataConfig())
    (videos / "long.txt").write_text("another caption")
    config = DataConfig(max_clips_per_video=1, filters=FilterConfig(max_static_share=1.0))
    add_videos(project, videos, geometry=geometry, config=config)
    clips = {clip.id: clip.caption for clip in read_jsonl(project.clips / "clips.jsonl", Clip)}
    assert clips == {
        "cut-000": "a video named cut",
        "long-000": "another caption",
        "static-000": "a video named static",
    }
    assert sorted(path.stem for path in (project.clips / "videos").glob("*.mp4")) == sorted(clips)


def test_copies_of_one_video_share_a_split(
    project: Project, tmp_path: Path, geometry: Geometry, make_video: MakeVideo, noise_frames: MakeFrames
) -> None:
    for seed in range(4):
        path = make_video(f"copies/a{seed}.mp4", noise_frames(9, seed=seed))
        shutil.copy(path, path.with_name(f"b{seed}.mp4"))
        for name in (f"a{seed}.txt", f"b{seed}.txt"):
            path.with_name(name).write_text("one of two copies")
    config = DataConfig(validation_share=0.3, held_out_share=0.3)
    add_videos(project, tmp_path / "copies", geometry=geometry, config=config)
    splits = {clip.id: clip.split for clip in read_jsonl(project.clips / "clips.jsonl", Clip)}
    assert len(splits) == 8
    assert len(set(splits.values())) > 1
    assert all(splits[f"a{seed}-000"] == splits[f"b{seed}-000"] for seed in range(4))


def test_one_video_in_two_splits_is_refused(
    project: Project, tmp_path: Path, geometry: Geometry, make_video: MakeVideo, noise_frames: MakeFrames
) -> None:
    make_video("a.mp4", noise_frames(9))
    shutil.copy(tmp_path / "a.mp4", tmp_path / "b.mp4")
    rows = [
        {"video": "a.mp4", "caption": "x", "split": "train"},
        {"video": "b.mp4", "caption": "x", "split": "held_out"},
    ]
    listing = tmp_path / "videos.jsonl"
    listing.write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(BadInput, match=r"'a-000' \(train\) and 'b-000' \(held_out\) come from the same video"):
        add_videos(project, listing, geometry=geometry, config=DataConfig())
    rows[1]["split"] = "train"
    listing.write_text("\n".join(json.dumps(row) for row in rows))
    assert add_videos(project, listing, geometry=geometry, config=DataConfig()).splits["train"] == 2


def test_an_id_that_is_taken_by_another_video_is_refused(
    project: Project, geometry: Geometry, make_video: MakeVideo, noise_frames: MakeFrames
) -> None:
    for folder, seed in (("one", 1), ("two", 2)):
        make_video(f"{folder}/clip.mp4", noise_frames(9, seed=seed)).with_suffix(".txt").write_text("x")
    folder = project.root.parent
    add_videos(project, folder / "one", geometry=geometry, config=DataConfig())
    before = written(project)
    with pytest.raises(BadInput, match=r"duplicate id 'clip'.*two/clip\.mp4.*one/clip\.mp4"):
        add_videos(project, folder / "two", geometry=geometry, config=DataConfig())
    assert written(project) == before
    (folder / "one").rename(folder / "moved")  # the same video elsewhere is the same video
    assert add_videos(project, folder / "moved", geometry=geometry, config=DataConfig()).num_clips == 1


def test_clips_of_another_size_are_refused(project: Project, videos: Path, geometry: Geometry) -> None:
    add_videos(project, videos, geometry=geometry, config=DataConfig())
    with pytest.raises(BadInput, match=r"9 frames, 32x32 at 8 fps, this model takes .*5 frames.*another project"):
        add_videos(project, videos, geometry=replace(geometry, num_frames=5), config=DataConfig())


def test_limits_turn_a_large_video_into_a_listed_one(project: Project, videos: Path, geometry: Geometry) -> None:
    config = DataConfig(limits=LimitConfig(max_frames=20))
    add_videos(project, videos, geometry=geometry, config=config)
    assert read_skipped(project)["long"].reason == "more than 20 frames"
    assert [clip.id for clip in read_jsonl(project.clips / "clips.jsonl", Clip)] == ["cut-000"]


def test_a_listing_that_names_a_missing_video_lists_it(
    project: Project, videos: Path, geometry: Geometry, tmp_path: Path
) -> None:
    listing = videos / "list.csv"
    listing.write_text("video,caption\nlong.mp4,a\nabsent.mp4,b\n")
    assert add_videos(project, listing, geometry=geometry, config=DataConfig()).num_clips == 3
    assert "No such file" in read_skipped(project)["absent"].reason


@pytest.mark.parametrize("clip_id", ["a-000", "A-000", "\u00e9t\u00e9 1-000", "../../x-000", "-i-000", "con/x" * 40])
def test_any_id_has_a_tame_file_name_of_its_own(clip_id: str) -> None:
    stem = file_stem(clip_id)
    assert stem.isascii()
    assert len(stem) <= 80
    assert not set(stem) & set("/\\ ")
    assert stem[0].isalnum()
    assert stem == clip_id or stem != file_stem(f"{clip_id}x")


def test_splits_keep_their_shares() -> None:
    """Of 4000 sources the shares lie within three standard deviations (19 sources each) of one in ten."""
    splits = [split_of(f"source {i}", validation_share=0.1, held_out_share=0.1) for i in range(4000)]
    assert abs(splits.count("validation") - 400) < 58
    assert abs(splits.count("held_out") - 400) < 58
