"""Our mp4 files: what is written is what is read, to the encoder's quantisation."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densedpo.core.errors import BadInput
from densedpo.core.media import frame_rate, read_mp4, read_pair_mp4, write_mp4, write_pair_mp4
from densedpo.core.seeds import derive_seed
from densedpo.world.render import render
from densedpo.world.scene import draw_scene


def test_world_clip_survives_within_a_few_grey_levels(tmp_path: Path) -> None:
    frames = render(draw_scene(3))
    write_mp4(tmp_path / "clip.mp4", frames, fps=8.0, pixel_scale=2)
    back, fps = read_mp4(tmp_path / "clip.mp4", pixel_scale=2)
    assert back.shape == frames.shape and back.dtype == np.uint8 and fps == 8.0
    error = np.abs(back.astype(int) - frames.astype(int))
    assert error.mean() < 1.0
    assert np.percentile(error, 99.9) <= 12


def test_pixel_scale_keeps_single_pixel_colours_that_chroma_subsampling_smears(tmp_path: Path) -> None:
    checker = np.indices((16, 16)).sum(axis=0) % 2
    frame = np.where(checker[..., None] == 1, np.array([230, 50, 45]), np.array([60, 100, 240])).astype(np.uint8)
    frames = np.repeat(frame[None], 5, axis=0)
    errors = {}
    for scale in (1, 2):
        write_mp4(tmp_path / f"{scale}.mp4", frames, fps=8.0, pixel_scale=scale)
        back, _ = read_mp4(tmp_path / f"{scale}.mp4", pixel_scale=scale)
        errors[scale] = np.abs(back.astype(int) - frames.astype(int)).mean()
    assert errors[2] < 3.0
    assert errors[1] > 5 * errors[2]


def test_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    frames = render(draw_scene(5), num_frames=9)
    for name in ("first.mp4", "second.mp4"):
        write_mp4(tmp_path / name, frames, fps=8.0, pixel_scale=2)
    assert (tmp_path / "first.mp4").read_bytes() == (tmp_path / "second.mp4").read_bytes()


def test_bytes_do_not_depend_on_what_memory_held_before(tmp_path: Path) -> None:
    """A spinning triangle of 32x32, of which x264 makes several files if it may use B-frames."""
    scene = draw_scene(derive_seed("world clip", 0, 14))
    frames = np.stack([cv2.resize(frame, (32, 32), interpolation=cv2.INTER_AREA) for frame in render(scene)[:9]])
    rng, written = np.random.default_rng(0), set()
    for _ in range(25):
        held_before = [rng.integers(0, 256, rng.integers(1, 200_000), dtype=np.uint8) for _ in range(20)]
        write_mp4(tmp_path / "clip.mp4", frames, fps=8.0, pixel_scale=2)
        written.add((tmp_path / "clip.mp4").read_bytes())
        del held_before
    assert len(written) == 1


def test_file_is_h264_yuv420p_that_browsers_play(tmp_path: Path) -> None:
    write_mp4(tmp_path / "clip.mp4", render(draw_scene(1), num_frames=5), fps=29.97, pixel_scale=2)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.average_rate) == (128, 128, Fraction(30000, 1001))
        assert [frame.pts * frame.time_base for frame in container.decode(stream)] == [
            Fraction(1001 * i, 30000) for i in range(5)
        ]


def test_pair_halves_come_back_on_their_own_side(tmp_path: Path) -> None:
    a, b = render(draw_scene(1), num_frames=9), render(draw_scene(2), num_frames=9)
    write_pair_mp4(tmp_path / "pair.mp4", a, b, fps=8.0, pixel_scale=2)
    back_a, back_b = read_pair_mp4(tmp_path / "pair.mp4", pixel_scale=2)
    assert np.abs(back_a.astype(int) - a).mean() < 1.0
    assert np.abs(back_b.astype(int) - b).mean() < 1.0


@settings(max_examples=8, deadline=None)
@given(
    num_frames=st.integers(1, 6),
    height=st.integers(4, 12),
    width=st.integers(4, 12),
    scale=st.sampled_from([2, 4]),
    colour=st.tuples(*[st.integers(0, 255)] * 3),
)
def test_any_size_and_colour_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    num_frames: int,
    height: int,
    width: int,
    scale: int,
    colour: tuple[int, int, int],
) -> None:
    path = tmp_path_factory.mktemp("any") / "flat.mp4"
    frames = np.full((num_frames, height, width, 3), colour, dtype=np.uint8)
    write_mp4(path, frames, fps=16.0, pixel_scale=scale)
    back, _ = read_mp4(path, pixel_scale=scale)
    assert back.shape == frames.shape
    assert np.abs(back.astype(int) - frames.astype(int)).max() <= 6


@pytest.mark.parametrize(
    ("fps", "expected"),
    [(8.0, Fraction(8)), (29.97, Fraction(30000, 1001)), (23.976, Fraction(24000, 1001)), (12.5, Fraction(25, 2))],
)
def test_frame_rate_is_the_fraction_that_is_meant(fps: float, expected: Fraction) -> None:
    assert frame_rate(fps) == expected


@pytest.mark.parametrize("fps", [0.0, -1.0, 1e9, float("nan")])
def test_impossible_frame_rate_is_refused(fps: float) -> None:
    with pytest.raises(ValueError, match="fps"):
        frame_rate(fps)


def test_wrong_frames_are_refused_before_a_file_appears(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    for frames in (np.zeros((2, 4, 4, 3), np.float32), np.zeros((0, 4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            write_mp4(path, frames, fps=8.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="even"):
        write_mp4(path, np.zeros((2, 5, 4, 3), np.uint8), fps=8.0)
    with pytest.raises(ValueError, match="pixel_scale"):
        write_mp4(path, np.zeros((2, 4, 4, 3), np.uint8), fps=8.0, pixel_scale=3)
    assert list(tmp_path.iterdir()) == []


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    text, cut = tmp_path / "text.mp4", tmp_path / "cut.mp4"
    text.write_text("this is not a video")
    write_mp4(cut, render(draw_scene(1), num_frames=5), fps=8.0)
    cut.write_bytes(cut.read_bytes()[:200])
    for path in (tmp_path / "absent.mp4", text, cut):
        with pytest.raises(BadInput, match=path.name):
            read_mp4(path)


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="absent"):
        write_mp4(tmp_path / "absent" / "clip.mp4", np.zeros((2, 4, 4, 3), np.uint8), fps=8.0)
