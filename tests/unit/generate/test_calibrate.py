"""The agreement of motions on rendered clips whose motion is known, and the calibration's conclusion."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from densedpo.adapters import load
from densedpo.core.errors import BadInput
from densedpo.core.workspace import Project
from densedpo.generate.calibration.flow import flow_agreement
from densedpo.generate.calibration.plan import clips_to_calibrate
from densedpo.generate.calibration.run import Level, _conclude, calibrate, estimate_calibration
from densedpo.generate.config import CalibrateConfig
from densedpo.metrics.statistics import cluster_mean
from densedpo.world.render import render
from densedpo.world.scene import parse_caption
from toy import add_toy_clips

RIGHT = parse_caption("a large red square slides right slowly on a black background")


def level(eta: float, agreement: float) -> Level:
    found = cluster_mean({("p", 0): agreement, ("q", 0): agreement}, seed=0)
    assert found is not None
    return Level(eta=eta, agreement=found, kept=0.0, motion_ratio=1.0)


def test_the_same_motion_agrees_and_the_opposite_disagrees() -> None:
    clip = render(RIGHT)
    same = flow_agreement(clip, clip)
    assert same == pytest.approx(1.0)
    backwards = flow_agreement(np.ascontiguousarray(clip[::-1]), clip)
    assert backwards is not None
    assert backwards < 0.3
    recoloured = flow_agreement(render(replace(RIGHT, colour="green")), clip)
    assert recoloured is not None
    assert recoloured > 0.7
    noisy = clip.astype(int) + np.random.default_rng(0).integers(-2, 3, clip.shape)
    flickering = flow_agreement(np.clip(noisy, 0, 255).astype(np.uint8), clip)
    assert flickering is not None
    assert flickering > 0.7


def test_a_still_clip_agrees_with_nothing_and_a_still_reference_asks_nothing() -> None:
    clip = render(RIGHT)
    still = np.repeat(clip[:1], len(clip), axis=0)
    assert flow_agreement(still, clip) == 0
    assert flow_agreement(clip, still) is None


def test_the_range_ends_at_the_first_level_that_loses_the_motion() -> None:
    """Floor 0.2: kept = (agreement - 0.2) / 0.8, so 0.9 -> 0.875, 0.7 -> 0.625, 0.4 -> 0.25, 0.7 again -> 0.625."""
    levels = [level(0.5, 0.9), level(0.65, 0.7), level(0.8, 0.4), level(0.9, 0.7), level(1.0, 0.2)]
    found = _conclude(levels, model="m", num_clips=2, keep=0.5)
    assert [one.kept for one in found.levels] == pytest.approx([0.875, 0.625, 0.25, 0.625, 0.0])
    assert (found.eta_min, found.eta_max) == (0.5, 0.65)
    assert "eta_max=0.65" in found.table()
    none = _conclude([level(0.5, 0.3), level(1.0, 0.2)], model="m", num_clips=2, keep=0.5)
    assert none.eta_max is None
    assert "look lower" in none.table()


def test_calibrate_measures_each_eta_and_writes_what_it_found(project: Path, toy_model_dir: Path) -> None:
    add_toy_clips(project, load(toy_model_dir), 3)
    config = CalibrateConfig(num_clips=3, etas=(0.01, 0.9), num_steps=2, clips_per_batch=2)
    clips = clips_to_calibrate(Project(root=project), model=toy_model_dir, config=config)
    folder = project / "pairs" / "c"
    found = calibrate(clips, folder, model=toy_model_dir, config=config)
    assert [one.eta for one in found.levels] == [0.01, 0.9, 1.0]
    assert found.levels[-1].kept == 0
    assert found.levels[0].agreement.value > found.levels[1].agreement.value
    assert (found.num_clips, found.num_still) == (3, 0)
    assert json.loads((folder / "calibration.json").read_text())["eta_max"] == found.eta_max


def test_a_dry_run_counts_the_steps_of_every_level(project: Path, toy_model_dir: Path) -> None:
    """More levels take longer, and nothing is written."""
    add_toy_clips(project, load(toy_model_dir), 3)
    config = CalibrateConfig(num_clips=3, etas=(0.5, 0.9), num_steps=2, clips_per_batch=2)
    clips = clips_to_calibrate(Project(root=project), model=toy_model_dir, config=config)
    before = sorted(project.rglob("*"))
    found = estimate_calibration(clips, model=toy_model_dir, config=config)
    assert str(found).startswith("3 levels of 3 clips: about ")
    assert 0 < found.time_s < 60
    many = estimate_calibration(clips, model=toy_model_dir, config=config.model_copy(update={"num_steps": 200}))
    assert many.time_s > 2 * found.time_s
    assert sorted(project.rglob("*")) == before


def test_more_clips_than_there_are_are_refused(project: Path, toy_model_dir: Path) -> None:
    add_toy_clips(project, load(toy_model_dir), 2)
    with pytest.raises(BadInput, match="only 2 clips"):
        clips_to_calibrate(Project(root=project), model=toy_model_dir, config=CalibrateConfig(num_clips=3))
