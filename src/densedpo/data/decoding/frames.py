"""Decoding of files that a user brings: by presentation time, upright, with square pixels, within limits.

These functions run in the child process that `densedpo.data.decoding.decoder` keeps; nothing here trusts the file.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import Colorspace, Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

Frames = NDArray[np.uint8]

THUMBNAIL: Final = 16  # pixels a side; enough to tell two shots apart, and 768 bytes a frame
HISTOGRAM_BINS: Final = 16  # per channel
_BT601_MATRICES: Final = (5, 6)  # FFmpeg's numbers for BT.470BG and SMPTE 170M
_BT2020_MATRICES: Final = (9, 10)


class Undecodable(Exception):
    """A video that is not used, with the reason that the user reads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one file may cost."""

    max_pixels: int
    max_frames: int
    cpu_s: int
    memory_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """What one pass over a video finds.

    Attributes:
        times_s: presentation time of each frame, float64 [N], increasing, from 0.
        end_s: when the last frame ceases to be shown.
        thumbnails: uint8 [N, 16, 16, 3].
        histograms: share of the pixels in each bin per channel, float32 [N, 3, 16].
        height: of the upright picture with square pixels, as `width`.
    """

    times_s: NDArray[np.float64]
    end_s: float
    thumbnails: Frames
    histograms: NDArray[np.float32]
    height: int
    width: int


def container_format(path: Path) -> str:
    """FFmpeg's name of the container, from the file's first bytes; playlists and everything else are refused.

    Raises:
        Undecodable: not a regular file, empty, or none of mp4, mov, webm, mkv, avi.
    """
    try:
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode):
            raise Undecodable("not a regular file (links, pipes and devices are not followed)")
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise Undecodable(f"cannot be opened: {error.strerror}") from error
    if not head:
        raise Undecodable("an empty file")
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"):
        return "mov"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    raise Undecodable("not a video: its first bytes are those of no mp4, mov, webm, mkv or avi")


@contextmanager
def open_video(path: Path, limits: Limits) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its first video stream, with every FFmpeg error turned into `Undecodable`.

    Only the file itself is read: the container's format is forced, and no protocol but `file` is allowed.
    """
    name = container_format(path)
    options = {"protocol_whitelist": "file", "max_pixels": str(limits.max_pixels)}
    try:
        with av.open(f"file:{path}", format=name, options=options) as container:
            if not container.streams.video:
                raise Undecodable("holds no video stream")
            stream = container.streams.video[0]
            pixels = stream.codec_context.width * stream.codec_context.height
            if not 0 < pixels <= limits.max_pixels:
                size = f"{stream.codec_context.width}x{stream.codec_context.height}"
                raise Undecodable(f"its frames are {size}, more than {limits.max_pixels} pixels or none")
            stream.codec_context.thread_count = 1
            yield container, stream
    except av.FFmpegError as error:
        raise Undecodable(f"damaged or truncated: {error.strerror or type(error).__name__}") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedFrame:
    """A decoded frame with the times between which it is shown, in seconds from the first one."""

    frame: av.VideoFrame
    time_s: float
    duration_s: float
    pixel_aspect: float  # width of a pixel over its height

    @property
    def upright_size(self) -> tuple[int, int]:
        """Height and width of the picture as it is meant to be seen: square pixels, rotated."""
        height, width = self.frame.height, round(self.frame.width * self.pixel_aspect)
        return (width, height) if self.frame.rotation % 180 else (height, width)


def timed_frames(path: Path, limits: Limits) -> Iterator[TimedFrame]:
    """The frames of a video by presentation time; a frame that does not come later than the one before is dropped."""
    with open_video(path, limits) as (container, stream):
        nominal = 1 / (stream.average_rate or stream.guessed_rate or Fraction(25))
        first: Fraction | None = None
        last: Fraction | None = None
        num_decoded = 0
        for frame in container.decode(stream):
            num_decoded += 1
            if num_decoded > limits.max_frames:
                raise Undecodable(f"more than {limits.max_frames} frames")
            if frame.is_corrupt:
                raise Undecodable(f"damaged at frame {num_decoded - 1}")
            stamp = frame.pts if frame.pts is not None else frame.dts
            if stamp is not None and frame.time_base:
                time = stamp * frame.time_base
            else:  # some AVI files give no times at all
                time = nominal * (num_decoded - 1) if last is None else last + nominal
            if last is not None and time <= last:
                continue
            first = time if first is None else first
            last = time
            duration = frame.duration * frame.time_base if frame.duration and frame.time_base else nominal
            yield TimedFrame(
                frame=frame, time_s=float(time - first), duration_s=float(duration), pixel_aspect=_pixel_aspect(stream)
            )
        _refuse_truncated(stream, num_decoded)


def scan(path: Path, limits: Limits) -> Scan:
    """Decodes a whole video once and keeps what planning its clips needs.

    Raises:
        Undecodable: for any reason that the file gives.
    """
    times: list[float] = []
    thumbnails: list[Frames] = []
    histograms: list[NDArray[np.float32]] = []
    end_s, height, width = 0.0, 0, 0
    for timed in timed_frames(path, limits):
        if not times:
            height, width = timed.upright_size
        small = _to_rgb(timed.frame, height=4 * THUMBNAIL, width=4 * THUMBNAIL)
        times.append(timed.time_s)
        end_s = timed.time_s + timed.duration_s
        thumbnails.append(_thumbnail(small))
        histograms.append(_histogram(small))
    if not times:
        raise Undecodable("holds no frames")
    return Scan(
        times_s=np.array(times),
        end_s=end_s,
        thumbnails=np.stack(thumbnails),
        histograms=np.stack(histograms),
        height=height,
        width=width,
    )


def read_clips(
    path: Path, limits: Limits, *, times_s: Sequence[Sequence[float]], height: int, width: int
) -> Iterator[Frames]:
    """Reads clips in one pass: for each time the last frame shown at or before it, uint8 [F, height, width, 3].

    Frames are scaled to cover the size and cropped around the middle.

    Args:
        times_s: the times of each clip's frames, increasing within a clip and from clip to clip.
    """
    wanted = [(clip, time) for clip, times in enumerate(times_s) for time in times]
    position = 0
    shown: Frames | None = None
    current: list[Frames] = []
    frames = timed_frames(path, limits)
    pending = next(frames, None)
    while position < len(wanted):
        clip, time = wanted[position]
        fresh = None
        while pending is not None and (pending.time_s <= time + 1e-6 or (shown is None and fresh is None)):
            fresh, pending = pending, next(frames, None)
        if fresh is not None:  # only frames that are used are scaled
            shown = cover(fresh, height=height, width=width)
        if shown is None:
            raise Undecodable("holds no frames")
        current.append(shown)
        position += 1
        if position == len(wanted) or wanted[position][0] != clip:
            yield np.stack(current)
            current = []


def cover(timed: TimedFrame, *, height: int, width: int) -> Frames:
    """The upright picture scaled to cover the size and cropped around the middle, uint8 [height, width, 3]."""
    frame = timed.frame
    upright_height, upright_width = timed.upright_size
    scale = max(height / upright_height, width / upright_width)
    scaled_height = max(height, round(upright_height * scale))
    scaled_width = max(width, round(upright_width * scale))
    turned = frame.rotation % 180 != 0
    rgb = _to_rgb(
        frame, height=scaled_width if turned else scaled_height, width=scaled_height if turned else scaled_width
    )
    rgb = np.rot90(rgb, k=round(frame.rotation / 90) % 4)  # the display matrix turns counterclockwise, as rot90
    top, left = (rgb.shape[0] - height) // 2, (rgb.shape[1] - width) // 2
    return np.ascontiguousarray(rgb[top : top + height, left : left + width])


def _pixel_aspect(stream: VideoStream) -> float:
    aspect = stream.sample_aspect_ratio
    return float(aspect) if aspect and 0.1 < aspect < 10 else 1.0


def _to_rgb(frame: av.VideoFrame, *, height: int, width: int) -> Frames:
    shrinks = height < frame.height or width < frame.width
    method = Interpolation.AREA if shrinks else Interpolation.BICUBIC
    rgb = frame.reformat(
        height=height,
        width=width,
        format="rgb24",
        src_colorspace=_matrix(frame),
        interpolation=int(method) | int(Interpolation.ACCURATE_RND) | int(Interpolation.BITEXACT),
        threads=1,
    )
    return np.asarray(rgb.to_ndarray(), dtype=np.uint8)


def _matrix(frame: av.VideoFrame) -> Colorspace:
    """The matrix that a frame states, else the one that players take: BT.601 below 720 lines, BT.709 from there on."""
    if frame.colorspace == int(Colorspace.ITU709):
        return Colorspace.ITU709
    if frame.colorspace in _BT601_MATRICES:
        return Colorspace.ITU601
    if frame.colorspace in _BT2020_MATRICES:
        return Colorspace.BT2020
    return Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601


def _thumbnail(small: Frames) -> Frames:
    blocks = small.reshape(THUMBNAIL, 4, THUMBNAIL, 4, 3)
    thumbnail: Frames = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
    return thumbnail


def _histogram(small: Frames) -> NDArray[np.float32]:
    bins = small.reshape(-1, 3) // (256 // HISTOGRAM_BINS)
    counts = np.stack([np.bincount(bins[:, channel], minlength=HISTOGRAM_BINS) for channel in range(3)])
    return (counts / len(bins)).astype(np.float32)


def _refuse_truncated(stream: VideoStream, num_decoded: int) -> None:
    """A file cut short decodes without an error where its index stands in front, so the header's promise is checked."""
    if stream.frames and num_decoded < 0.9 * stream.frames:
        raise Undecodable(f"truncated: its header promises {stream.frames} frames and {num_decoded} are there")
