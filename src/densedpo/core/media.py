"""Our own video files: H.264 in mp4, written and read back frame for frame.

The files here are ones that this package wrote (clips, pairs, samples), so they are decoded in this process; files that
a user brings are decoded in a child process by `densedpo.data`.

`pixel_scale` is for small clips. H.264 in the form that every browser plays (yuv420p) holds one colour sample per 2x2
pixels, which smears the edges of a 64x64 clip by the width of a feature. With `pixel_scale=2` each pixel becomes a 2x2
block, so that it owns its colour sample; the reader undoes it. Only the encoder's quantisation is then lost.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation
from numpy.typing import NDArray

from densedpo.core.errors import BadInput

Frames = NDArray[np.uint8]
"""Frames of one clip, [F, H, W, 3], RGB."""

_BT709: Final = 1  # FFmpeg's number for BT.709 primaries, transfer and matrix alike
_LIMITED_RANGE: Final = 1
_EXACT: Final = (  # the same values whatever vector instructions the processor has
    int(Interpolation.BICUBIC)
    | int(Interpolation.ACCURATE_RND)
    | int(Interpolation.FULL_CHR_H_INT)
    | int(Interpolation.BITEXACT)
)


def frame_rate(fps: float) -> Fraction:
    """The fraction that a stated frame rate means: 29.97 is 30000/1001, 23.976 is 24000/1001."""
    if not 0 < fps <= 1000:
        raise ValueError(f"fps is in (0, 1000], not {fps!r}")
    for base in (24, 30, 60, 120):
        ntsc = Fraction(base * 1000, 1001)
        if abs(fps - float(ntsc)) < 0.005:
            return ntsc
    return Fraction(fps).limit_denominator(1000)


def write_mp4(path: Path, frames: Frames, *, fps: float, pixel_scale: int = 1) -> None:
    """Writes a clip as H.264 (yuv420p, BT.709, crf 8), under a temporary name first.

    The bytes depend on the frames and the encoder's version only: no dates, one encoder thread, no B-frames.

    Args:
        frames: uint8 [F, H, W, 3]; H and W times `pixel_scale` are even.
        pixel_scale: 1, or an even number of repeats of each pixel in both directions.

    Raises:
        ValueError: the frames are not such an array, or the scale is neither 1 nor even.
        BadInput: the file cannot be written.
    """
    _check(frames, pixel_scale)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _encode(temporary, frames, frame_rate(fps), pixel_scale)
        temporary.replace(path)
    except OSError as error:  # FFmpeg's errors are OSErrors too
        reason = error.strerror or error
        raise BadInput(f"cannot write {path}: {reason}; nothing was lost, free space and rerun") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_mp4(path: Path, *, pixel_scale: int = 1) -> tuple[Frames, float]:
    """The frames uint8 [F, H, W, 3] and the frame rate of a file that `write_mp4` wrote with this `pixel_scale`.

    Raises:
        BadInput: the file is missing, not a video, damaged, or its size is no multiple of `pixel_scale`.
    """
    if not path.is_file():
        raise BadInput(f"no video at {path}; run the stage that writes it again")
    try:
        with av.open(f"file:{path}", format="mov", container_options={"protocol_whitelist": "file"}) as container:
            if not container.streams.video:
                raise BadInput(f"{path} holds no video stream")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            fps = float(stream.average_rate or 0)
            frames = [_from_video_frame(frame, pixel_scale, path) for frame in container.decode(stream)]
    except av.FFmpegError as error:
        raise BadInput(f"{path} is not a readable mp4 ({error.strerror}); delete it and run its stage again") from error
    if not frames:
        raise BadInput(f"{path} holds no frames; delete it and run its stage again")
    return np.stack(frames), fps


def write_pair_mp4(path: Path, a: Frames, b: Frames, *, fps: float, pixel_scale: int = 1) -> None:
    """Writes two clips of one shape side by side, a on the left, so that they cannot lose step in any player."""
    if a.shape != b.shape:
        raise ValueError(f"the clips of a pair have one shape, not {a.shape} and {b.shape}")
    write_mp4(path, np.concatenate([a, b], axis=2), fps=fps, pixel_scale=pixel_scale)


def read_pair_mp4(path: Path, *, pixel_scale: int = 1) -> tuple[Frames, Frames]:
    """The clips a and b, each uint8 [F, H, W, 3], of a file that `write_pair_mp4` wrote with this `pixel_scale`."""
    frames, _ = read_mp4(path, pixel_scale=pixel_scale)
    width = frames.shape[2]
    if width % 2:
        raise BadInput(f"{path} is {width} pixels wide and cannot hold two clips side by side")
    return frames[:, :, : width // 2].copy(), frames[:, :, width // 2 :].copy()


def _check(frames: Frames, pixel_scale: int) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or frames.shape[0] == 0:
        raise ValueError(f"frames are uint8 [F, H, W, 3] with F >= 1, not {frames.dtype} {frames.shape}")
    if pixel_scale != 1 and (pixel_scale < 1 or pixel_scale % 2):
        raise ValueError(f"pixel_scale is 1 or even, not {pixel_scale}")
    if any(side * pixel_scale % 2 for side in frames.shape[1:3]):
        raise ValueError(f"height and width times pixel_scale are even, not {frames.shape[1:3]} times {pixel_scale}")


def _encode(path: Path, frames: Frames, rate: Fraction, pixel_scale: int) -> None:
    # bitexact keeps the library's version and the date out of the header
    muxing = {"movflags": "+faststart", "fflags": "+bitexact"}
    with av.open(f"file:{path}", mode="w", format="mp4", container_options=muxing) as container:
        # no B-frames (bf): at 64 pixels x264's choice among them varies with what its memory held before
        options = {"crf": "8", "preset": "medium", "threads": "1", "bf": "0"}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width = frames.shape[1] * pixel_scale, frames.shape[2] * pixel_scale
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.thread_count = 1
        context.gop_size = max(1, round(float(rate)))  # a keyframe each second: a player can step to any frame quickly
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = _LIMITED_RANGE
        for video_frame in _video_frames(frames, pixel_scale):
            container.mux(stream.encode(video_frame))
        container.mux(stream.encode(None))


def _video_frames(frames: Frames, pixel_scale: int) -> Iterator[av.VideoFrame]:
    for index, frame in enumerate(frames):
        rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        target = "yuv420p" if pixel_scale == 1 else "yuv444p"
        yuv = rgb.reformat(format=target, dst_colorspace=Colorspace.ITU709, interpolation=_EXACT, threads=1)
        video_frame = yuv if pixel_scale == 1 else _enlarged(yuv, pixel_scale)
        video_frame.pts = index
        video_frame.color_range = _LIMITED_RANGE
        yield video_frame


def _enlarged(yuv444: av.VideoFrame, pixel_scale: int) -> av.VideoFrame:
    """Repeats pixels into yuv420p without a resampling filter, which would mix the colours of neighbours."""
    planes = _bytes(yuv444)  # [3, H, W]
    luma = planes[0].repeat(pixel_scale, axis=0).repeat(pixel_scale, axis=1)
    chroma = planes[1:].repeat(pixel_scale // 2, axis=1).repeat(pixel_scale // 2, axis=2)
    flat = np.concatenate([luma.reshape(-1), chroma.reshape(-1)]).reshape(-1, luma.shape[1])
    return av.VideoFrame.from_ndarray(flat, format="yuv420p")


def _from_video_frame(frame: av.VideoFrame, pixel_scale: int, path: Path) -> Frames:
    if pixel_scale == 1:
        rgb = frame.reformat(format="rgb24", src_colorspace=Colorspace.ITU709, interpolation=_EXACT, threads=1)
        return _bytes(rgb)
    if frame.height % pixel_scale or frame.width % pixel_scale:
        raise BadInput(f"{path} is {frame.width}x{frame.height}, which is no multiple of pixel_scale {pixel_scale}")
    flat = _bytes(frame.reformat(format="yuv420p", threads=1)).reshape(-1)
    height, width = frame.height, frame.width
    luma = _block_mean(flat[: height * width].reshape(1, height, width), pixel_scale)
    chroma = _block_mean(flat[height * width :].reshape(2, height // 2, width // 2), pixel_scale // 2)
    planes = av.VideoFrame.from_ndarray(np.concatenate([luma, chroma]), format="yuv444p")
    rgb = planes.reformat(format="rgb24", src_colorspace=Colorspace.ITU709, interpolation=_EXACT, threads=1)
    return _bytes(rgb)


def _bytes(frame: av.VideoFrame) -> NDArray[np.uint8]:
    return np.asarray(frame.to_ndarray(), dtype=np.uint8)


def _block_mean(planes: NDArray[np.uint8], block: int) -> NDArray[np.uint8]:
    count, height, width = planes.shape
    blocks = planes.reshape(count, height // block, block, width // block, block)
    mean: NDArray[np.uint8] = np.rint(blocks.mean(axis=(2, 4))).astype(np.uint8)
    return mean
