"""Decoding in a child process: what a file can do to the child costs that file and nothing else."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from densedpo.data.decoding.decoder import Decoder, DecoderStopped
from densedpo.data.decoding.frames import Limits, Undecodable, read_clips, scan

MakeVideo = Callable[..., Path]
MakeFrames = Callable[..., NDArray[np.uint8]]

# the real child, but for what a hostile file would make its decoder do
HOSTILE = """
import os, signal, time
from densedpo.data.decoding import child, frames
honest = frames.container_format
def hostile(path):
    match path.stem:
        case "abort": os.abort()
        case "hang": time.sleep(60)
        case "spin":
            while True: pass
        case "eat": return bytearray(64 << 30)
        case "exit": os._exit(7)
        case "shout": print("{}", flush=True)
    return honest(path)
frames.container_format = hostile
child.main()
"""


@pytest.fixture
def hostile(limits: Limits) -> Decoder:
    command = (sys.executable, "-P", "-c", HOSTILE)
    return Decoder(limits=replace(limits, cpu_s=1), timeout_s=300.0, command=command)


def test_the_child_answers_what_the_functions_do(
    make_video: MakeVideo, noise_frames: MakeFrames, limits: Limits
) -> None:
    path = make_video("clip.mp4", noise_frames(10))
    times = [[0.0, 0.25], [0.5, 0.75, 1.0]]
    with Decoder(limits=limits, timeout_s=300.0) as decoder:
        answered = decoder.scan(path)
        clips = list(decoder.clips(path, times_s=times, height=24, width=24))
    direct = scan(path, limits)
    np.testing.assert_array_equal(answered.times_s, direct.times_s)
    np.testing.assert_array_equal(answered.thumbnails, direct.thumbnails)
    np.testing.assert_array_equal(answered.histograms, direct.histograms)
    assert (answered.height, answered.width, answered.end_s) == (direct.height, direct.width, direct.end_s)
    expected = list(read_clips(path, limits, times_s=times, height=24, width=24))
    assert [clip.shape for clip in clips] == [(2, 24, 24, 3), (3, 24, 24, 3)]
    for clip, same in zip(clips, expected, strict=True):
        np.testing.assert_array_equal(clip, same)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("abort", r"crashed the decoder \(SIGABRT\)"),
        ("spin", "more than 1 s of CPU time"),
        ("eat", "more memory than"),
        ("exit", "exit code 7"),
    ],
)
def test_a_file_that_takes_the_child_down_costs_only_itself(
    hostile: Decoder, make_video: MakeVideo, noise_frames: MakeFrames, name: str, reason: str
) -> None:
    bad, good = make_video(f"{name}.mp4", noise_frames(4)), make_video("good.mp4", noise_frames(4))
    with hostile as decoder:
        assert len(decoder.scan(good).times_s) == 4
        with pytest.raises(Undecodable, match=reason):
            decoder.scan(bad)
        assert len(decoder.scan(good).times_s) == 4


def test_a_file_that_hangs_is_given_up(limits: Limits, make_video: MakeVideo, noise_frames: MakeFrames) -> None:
    bad, good = make_video("hang.mp4", noise_frames(4)), make_video("good.mp4", noise_frames(4))
    with Decoder(limits=limits, timeout_s=3.0, command=(sys.executable, "-P", "-c", HOSTILE)) as decoder:
        with pytest.raises(DecoderStopped, match="longer than 3 s"):
            decoder.scan(bad)
        assert len(decoder.scan(good).times_s) == 4


def test_what_a_library_prints_is_no_answer(hostile: Decoder, make_video: MakeVideo, noise_frames: MakeFrames) -> None:
    with hostile as decoder:
        assert len(decoder.scan(make_video("shout.mp4", noise_frames(4))).times_s) == 4


def test_an_answer_that_is_left_unread_is_not_taken_for_the_next(
    make_video: MakeVideo, noise_frames: MakeFrames, limits: Limits
) -> None:
    first, second = make_video("a.mp4", noise_frames(8)), make_video("b.mp4", noise_frames(5))
    with Decoder(limits=limits, timeout_s=300.0) as decoder:
        clips = decoder.clips(first, times_s=[[0.0], [0.5]], height=16, width=16)
        next(clips)
        clips.close()
        assert len(decoder.scan(second).times_s) == 5


def test_a_child_killed_between_files_is_replaced(
    make_video: MakeVideo, noise_frames: MakeFrames, limits: Limits
) -> None:
    path = make_video("clip.mp4", noise_frames(4))
    with Decoder(limits=limits, timeout_s=300.0) as decoder:
        decoder.scan(path)
        child = decoder.child_id
        assert child is not None
        os.kill(child, signal.SIGKILL)
        time.sleep(0.1)
        assert len(decoder.scan(path).times_s) == 4
        assert decoder.child_id != child
    assert decoder.child_id is None


def test_the_child_cannot_write_files(tmp_path: Path, limits: Limits) -> None:
    """A child that tries to write before it answers: the limit on file sizes ends it (SIGXFSZ) or fails the write."""
    written = tmp_path / "written"
    code = (
        "import json, sys\n"
        "from densedpo.data.decoding import child, frames\n"
        "def hostile(path):\n"
        f"    with open({str(written)!r}, 'wb') as file: file.write(b'x' * 100)\n"
        "frames.container_format = hostile\n"
        "child.main()\n"
    )
    with (
        Decoder(limits=limits, timeout_s=300.0, command=(sys.executable, "-P", "-c", code)) as decoder,
        pytest.raises(Undecodable),
    ):
        decoder.scan(tmp_path / "any.mp4")
    assert not written.exists() or written.stat().st_size == 0
