"""Videos made for the tests of `data`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from densedpo.adapters.base import Geometry
from densedpo.data.decoding.frames import Limits

MakeVideo = Callable[..., Path]


@pytest.fixture
def noise_frames() -> Callable[..., NDArray[np.uint8]]:
    """Frames of coarse coloured noise of which the right half drifts by two pixels a frame and the left half stands."""

    def make(count: int, *, height: int = 48, width: int = 64, seed: int = 0) -> NDArray[np.uint8]:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 255, (height // 8, (width + 2 * count) // 8 + 1, 3), dtype=np.uint8)
        band = coarse.repeat(8, axis=0).repeat(8, axis=1)
        frames = np.stack([band[:, 2 * i : 2 * i + width] for i in range(count)])
        frames[:, :, : width // 2] = band[:, : width // 2]
        return frames

    return make


@pytest.fixture
def make_video(tmp_path: Path) -> MakeVideo:
    """Writes a video; `times_s` gives each frame its own presentation time."""

    def make(
        name: str,
        frames: NDArray[np.uint8],
        *,
        fps: float = 8.0,
        times_s: Sequence[float] | None = None,
        codec: str = "libx264",
        rotation: int = 0,
        pixel_aspect: Fraction | None = None,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rate = Fraction(fps).limit_denominator(1001)
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=rate, options={"crf": "5"} if codec == "libx264" else {})
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            if pixel_aspect is not None:
                stream.codec_context.sample_aspect_ratio = pixel_aspect
            if rotation:
                stream.set_display_rotation(rotation)
            if times_s is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            for index, frame in enumerate(frames):
                video_frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                if times_s is not None:
                    video_frame.pts, video_frame.time_base = round(times_s[index] * 1000), Fraction(1, 1000)
                container.mux(stream.encode(video_frame))
            container.mux(stream.encode(None))
        return path

    return make


@pytest.fixture
def limits() -> Limits:
    """Limits that no test meets by accident."""
    return Limits(max_pixels=4_000_000, max_frames=10_000, cpu_s=60, memory_bytes=4 << 30)


@pytest.fixture
def geometry() -> Geometry:
    """Clips of 9 frames, 32x32 at 8 fps."""
    return Geometry(
        num_frames=9,
        height=32,
        width=32,
        fps=8.0,
        temporal_stride=4,
        spatial_stride=8,
        latent_channels=16,
        max_sequence_length=24,
    )
