"""Decoding of any file by presentation time, upright, with square pixels."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from densedpo.data.decoding.frames import Limits, Undecodable, container_format, read_clips, scan

MakeVideo = Callable[..., Path]


def gray_frames(count: int, *, size: int = 32) -> NDArray[np.uint8]:
    return np.stack([np.full((size, size, 3), 8 + 8 * i, dtype=np.uint8) for i in range(count)])


def numbers(frames: NDArray[np.uint8]) -> list[int]:
    """Which of `gray_frames` each frame is."""
    return [round((float(frame.mean()) - 8) / 8) for frame in frames]


def corner_frames() -> NDArray[np.uint8]:
    """Black 48x64 frames with a red top left, a blue top right and a green bottom left corner."""
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:16, :16], frame[:16, -16:], frame[-16:, :16] = (255, 0, 0), (0, 0, 255), (0, 255, 0)
    return np.repeat(frame[None], 4, axis=0)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mov", "libx264"), ("a.webm", "libvpx"), ("a.avi", "mpeg4"), ("a.mkv", "libx264")],
)
def test_every_container_gives_the_same_frames(make_video: MakeVideo, limits: Limits, name: str, codec: str) -> None:
    path = make_video(name, gray_frames(16), codec=codec)
    found = scan(path, limits)
    assert len(found.times_s) == 16
    np.testing.assert_allclose(found.times_s, np.arange(16) / 8, atol=2e-3)
    assert found.end_s == pytest.approx(2.0, abs=0.01)
    (clip,) = read_clips(path, limits, times_s=[[0.0, 0.5, 1.0, 1.875]], height=32, width=32)
    assert numbers(clip) == [0, 4, 8, 15]


def test_frames_of_a_variable_rate_are_read_by_their_times(make_video: MakeVideo, limits: Limits) -> None:
    """Frames 0..5 shown at 0, 0.1, 0.2, 1.0, 1.1 and 3.0 s: at 0.9 s frame 2 is still on the screen."""
    path = make_video("vfr.mp4", gray_frames(6), times_s=[0.0, 0.1, 0.2, 1.0, 1.1, 3.0])
    np.testing.assert_allclose(scan(path, limits).times_s, [0.0, 0.1, 0.2, 1.0, 1.1, 3.0], atol=1e-6)
    wanted = [[0.0, 0.15, 0.9], [1.0, 1.05, 2.99, 3.0]]
    first, second = read_clips(path, limits, times_s=wanted, height=32, width=32)
    assert numbers(first) == [0, 1, 2]
    assert numbers(second) == [3, 3, 4, 5]


def test_a_video_that_starts_late_starts_at_its_first_frame(make_video: MakeVideo, limits: Limits) -> None:
    path = make_video("late.mkv", gray_frames(4), times_s=[5.0, 5.5, 6.0, 6.5])
    np.testing.assert_allclose(scan(path, limits).times_s, [0.0, 0.5, 1.0, 1.5], atol=1e-3)


@pytest.mark.parametrize(
    ("rotation", "corners"),  # what is seen at top left, top right, bottom left
    [(0, "rbg"), (90, "bkr"), (180, "kgb"), (-90, "grk")],
)
def test_rotation_is_honoured(make_video: MakeVideo, limits: Limits, rotation: int, corners: str) -> None:
    """The display matrix turns counterclockwise; the expected corners are those that the ffmpeg program shows."""
    path = make_video("turned.mp4", corner_frames(), rotation=rotation)
    found = scan(path, limits)
    assert (found.height, found.width) == ((64, 48) if rotation % 180 else (48, 64))
    (clip,) = read_clips(path, limits, times_s=[[0.0]], height=found.height, width=found.width)
    seen = [clip[0, 8, 8], clip[0, 8, -8], clip[0, -8, 8]]
    names = ["k" if corner.max() < 100 else "rgb"[int(corner.argmax())] for corner in seen]
    assert "".join(names) == corners


def test_pixels_that_are_not_square_are_made_square(make_video: MakeVideo, limits: Limits) -> None:
    found = scan(make_video("wide.mp4", corner_frames(), pixel_aspect=Fraction(3, 2)), limits)
    assert (found.height, found.width) == (48, 96)


def test_clips_cover_the_size_and_are_cropped_around_the_middle(make_video: MakeVideo, limits: Limits) -> None:
    """A 32x96 picture of three squares, red, green and blue, cropped to a square shows the green one."""
    frame = np.zeros((32, 96, 3), np.uint8)
    for place, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        frame[:, 32 * place : 32 * (place + 1)] = colour
    path = make_video("wide.mp4", frame[None].repeat(2, axis=0))
    (clip,) = read_clips(path, limits, times_s=[[0.0]], height=16, width=16)
    assert clip.shape == (1, 16, 16, 3)
    middle = clip[0, :, 2:-2].reshape(-1, 3).mean(axis=0)
    assert middle[1] > 200
    assert max(middle[0], middle[2]) < 60


@pytest.mark.parametrize(
    "content",
    [b"", b"this is a text", b"<html>404</html>", b"#EXTM3U\n#EXTINF:1,\nfile:///x\n", b"ffconcat version 1.0"],
)
def test_what_is_no_video_is_not_opened(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(Undecodable, match=r"empty file|not a video"):
        container_format(path)


def test_links_pipes_and_folders_are_not_opened(make_video: MakeVideo, tmp_path: Path) -> None:
    video = make_video("real.mp4", gray_frames(2))
    link, pipe, folder = tmp_path / "link.mp4", tmp_path / "pipe.mp4", tmp_path / "folder.mp4"
    link.symlink_to(video)
    os.mkfifo(pipe)
    folder.mkdir()
    for path in (link, pipe, folder):
        with pytest.raises(Undecodable, match="not a regular file"):
            container_format(path)
    with pytest.raises(Undecodable, match="No such file"):
        container_format(tmp_path / "absent.mp4")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", ["index_last.mp4", "index_first.mov"])
def test_truncated_files_are_refused(make_video: MakeVideo, limits: Limits, kept: float, name: str) -> None:
    rng = np.random.default_rng(0)
    path = make_video(name, rng.integers(0, 255, (40, 32, 32, 3), dtype=np.uint8))
    if name == "index_first.mov":
        _index_first(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(Undecodable, match="truncated"):
        scan(path, limits)


def test_limits_are_met_before_memory_is(make_video: MakeVideo, limits: Limits) -> None:
    path = make_video("clip.mp4", gray_frames(8))
    with pytest.raises(Undecodable, match="32x32, more than 100 pixels"):
        scan(path, replace(limits, max_pixels=100))
    with pytest.raises(Undecodable, match="more than 5 frames"):
        scan(path, replace(limits, max_frames=5))


def test_a_name_is_never_a_pattern_or_a_protocol(make_video: MakeVideo, limits: Limits) -> None:
    for name in ("-i %03d.mp4", "http:x.mp4", "a b\n\u00e9.mp4"):
        assert len(scan(make_video(name, gray_frames(2)), limits).times_s) == 2


def _index_first(path: Path) -> None:
    """Moves the index of a mov in front of its frames."""
    import av

    moved = path.with_name(f"moved-{path.name}")
    with av.open(str(path)) as source, av.open(str(moved), "w", options={"movflags": "+faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    moved.replace(path)
