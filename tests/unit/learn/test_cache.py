"""The reference is never computed twice: by which runs its errors are shared, and what makes them invalid."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from densedpo.adapters import VideoModel, load
from densedpo.core.errors import BadInput, Interrupted
from densedpo.core.workspace import Project
from densedpo.learn.cache import CachedReference, cache_folder, first_logit, require_small_logit
from densedpo.learn.config import LearnConfig
from densedpo.learn.feed.batch import Source
from densedpo.learn.feed.inputs import LabelledPair, read_pairs
from densedpo.learn.feed.order import TimeDensity, Visit
from densedpo.learn.reference import attach_lora, live_reference
from densedpo.learn.run import learn_offline
from learn_bench import FRESH

FIXED = replace(FRESH, count=2)
NAMED = {"fingerprint": "m", "content": "c", "precision": "float32", "device": "cpu"}


@pytest.fixture
def pairs(labelled: Project, toy_model: VideoModel) -> tuple[LabelledPair, ...]:
    return read_pairs(labelled.pairs("toy"), labelled.preferences("toy"), toy_model.geometry, toy_model.fingerprint)


@pytest.fixture(scope="module")
def model(toy_model_dir: Path) -> VideoModel:
    model = load(toy_model_dir)
    attach_lora(model, LearnConfig(lora_rank=2))
    return model


def filled(model: VideoModel, pairs, folder: Path, num_draws: int = 2) -> tuple[CachedReference, float]:
    cache = CachedReference(pairs, FIXED, folder)
    return cache, cache.fill(model, Source(model), num_draws, poll=lambda: None)


def test_runs_on_overlapping_pairs_share_what_they_have_in_common(pairs, model: VideoModel, tmp_path: Path):
    """Pairs 0-3, then 2-5 in another order: half of it is there already, and every value is that of its pair alone."""
    first, share = filled(model, pairs[:4], tmp_path)
    assert share == 1
    second, share = filled(model, [pairs[index] for index in (5, 3, 2, 4)], tmp_path)
    assert share == 0.5
    assert torch.equal(first.of([Visit(index=3, draw=1)]), second.of([Visit(index=1, draw=1)]))
    everything, share = filled(model, pairs[:6], tmp_path)
    assert share == 0
    for index in (0, 5):
        visit = Visit(index=index, draw=1)
        alone = live_reference(model, Source(model).pairs(pairs, [visit], FIXED))
        assert torch.equal(everything.of([visit]), alone)


def test_a_fill_that_is_cut_keeps_what_it_has_computed(pairs, model: VideoModel, tmp_path: Path):
    forwards = 0

    def poll() -> None:
        nonlocal forwards
        forwards += 1
        if forwards == 6:
            raise Interrupted("asked to stop")

    with pytest.raises(Interrupted):
        CachedReference(pairs[:4], FIXED, tmp_path).fill(model, Source(model), 2, poll)
    assert filled(model, pairs[:4], tmp_path)[1] == 3 / 8


def test_a_damaged_file_is_computed_again(pairs, model: VideoModel, tmp_path: Path, caplog):
    filled(model, pairs[:3], tmp_path)
    path = next(iter(tmp_path.glob("draw-0001-*")))
    path.write_bytes(path.read_bytes()[:-9])
    assert filled(model, pairs[:3], tmp_path)[1] == 0.5
    assert "is damaged" in caplog.text


@pytest.mark.parametrize("change", ["fingerprint", "content", "precision", "device"])
def test_another_model_pairs_precision_or_device_is_another_cache(change: str, tmp_path: Path):
    other = NAMED | {change: "cuda" if change == "device" else "other"}
    assert cache_folder(tmp_path, FIXED, **NAMED) != cache_folder(tmp_path, FIXED, **other)


@pytest.mark.parametrize(
    "draws",
    [replace(FIXED, noise_seed=1), replace(FIXED, count=3), replace(FIXED, noise="own"),
     replace(FIXED, density=TimeDensity(t_min=0.1, t_max=1, mean=0, std=1))],
    ids=["noise seed", "K", "noise", "density"],
)  # fmt: skip
def test_other_draws_are_another_cache(draws, tmp_path: Path):
    assert cache_folder(tmp_path, FIXED, **NAMED) != cache_folder(tmp_path, draws, **NAMED)


def test_errors_too_coarse_for_beta_are_refused(pairs, model: VideoModel, tmp_path: Path):
    """A shift of 4e-4 in the error of clip a is |u| = beta/2 * 4e-4 = 0.1 at beta 500, and 0.01 at 50."""
    cache, _ = filled(model, pairs[:2], tmp_path)
    visits = [Visit(index=0, draw=0), Visit(index=1, draw=0)]
    batch = Source(model).pairs(pairs, visits, FIXED)
    for row in cache._errors.values():
        row[0] += 4e-4
    coarse, mild = LearnConfig(beta=500), LearnConfig(beta=50)
    logit = first_logit(model, batch, visits, cache, coarse)
    assert logit == pytest.approx(0.1, rel=0.02)
    with pytest.raises(BadInput, match=r"largest .u. before the first step is 0\.100, above 0\.05"):
        require_small_logit(logit, coarse)
    assert first_logit(model, batch, visits, cache, mild) == pytest.approx(0.01, rel=0.02)
    require_small_logit(0.05, mild)


def test_the_clip_and_the_dense_run_fill_the_cache_once(labelled: Project, toy_model_dir: Path):
    few = {"num_steps": 12, "batch_pairs": 2, "draws": 2, "lora_rank": 2} | {"eval_pairs": 2, "eval_draws": 1}
    files = []
    for name in ("dense_dpo", "dpo"):
        config = LearnConfig.model_validate(few | {"objective": name})
        folder = learn_offline(
            labelled, name.replace("_", "-"), pairs="toy", preferences="toy", model=toy_model_dir, config=config
        )
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        assert summary["first_logit_max"] < 1e-3
        files.append({path.name for path in labelled.pairs("toy").glob("reference_cache/*/draw-*")})
    assert files[0] == files[1]
    assert len(files[0]) == 3  # two draws of 12 training pairs, one of the validation pairs
