"""The ffmpeg that the tests of VMAF run."""

from __future__ import annotations

import shutil

import pytest


def ffmpeg_with_vmaf() -> str:
    """An ffmpeg, from the path or from a package that brings one."""
    found = shutil.which("ffmpeg")
    if found is not None:
        return found
    bundled = pytest.importorskip("imageio_ffmpeg", reason="no ffmpeg found; install ffmpeg with libvmaf")
    return str(bundled.get_ffmpeg_exe())
