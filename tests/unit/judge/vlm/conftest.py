"""A judge on a scripted server, and a pair of four short segments to ask it about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from densedpo.core.records import Pair
from densedpo.judge.protocol import PairClips
from densedpo.judge.vlm.config import VlmConfig
from densedpo.judge.vlm.judge import VlmJudge
from scripted_vlm import Script

SEGMENTS = ((0, 2), (2, 4))
QUICK = {"model": "scripted", "first_wait_s": 0.01, "frames_per_second": 1.0, "min_side": 16, "key_env": "KEY"}


@pytest.fixture
def clips(new_pair: Callable[..., Pair]) -> PairClips:
    """Two grey clips of four frames at 2 per second: a is brighter in the first segment, b in the second."""
    levels_a, levels_b = np.array([200, 205, 50, 55]), np.array([100, 105, 150, 155])
    a, b = (
        np.broadcast_to(levels.astype(np.uint8)[:, None, None, None], (4, 16, 16, 3)) for levels in (levels_a, levels_b)
    )
    return PairClips(pair=new_pair(num_frames=4, fps=2.0, height=16, width=16), a=a, b=b)


@pytest.fixture
def new_judge(tmp_path: Path) -> Callable[..., VlmJudge]:
    """A judge that asks a scripted server; keywords replace settings. Enter it as a context manager."""

    def make(script: Script | None, *, key: str = "sk-secret", **changes: object) -> VlmJudge:
        url = script.url if script is not None else "http://127.0.0.1:9/v1"
        config = VlmConfig(**{**QUICK, "base_url": url, **changes})
        return VlmJudge(config, key=key, folder=tmp_path / "judges")

    return make


@pytest.fixture
def twin(clips: PairClips) -> PairClips:
    """A pair of a clip with itself."""
    return replace(clips, b=clips.a)
