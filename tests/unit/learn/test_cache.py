"""The reference is never computed twice: by which runs its errors are shared, and what makes them invalid."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from densedpo.adapters import VideoModel, load
from densedpo.core.errors import BadInput, Interrupted
from densedpo.core.workspace import Project
from densedpo.learn.cache import CachedReference, cache_folder, first_logit, require_small_logit
from densedpo.learn.config import LearnConfig
from densedpo.learn.feed.batch import Source
from densedpo.learn.feed.inputs import LabelledPair, read_pairs
from densedpo.learn.feed.order import TimeDensity, Visit
from densedpo.learn.memory import pairs_in_fill
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


def filled(
    model: VideoModel, pairs, folder: Path, num_draws: int = 2, in_forward: int = 1
) -> tuple[CachedReference, float]:
    cache = CachedReference(pairs, FIXED, folder)
    return cache, cache.fill(model, Source(model), num_draws, poll=lambda: None, in_forward=in_forward)


def visits_of(num_pairs: int) -> list[Visit]:
    return [Visit(index=index, draw=draw) for draw in (0, 1) for index in range(num_pairs)]


@contextmanager
def clips_of_forwards(model: VideoModel) -> Iterator[list[int]]:
    seen: list[int] = []
    hook = model.denoiser.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len(kwargs["hidden_states"])), with_kwargs=True
    )
    yield seen
    hook.remove()


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


def test_several_pairs_and_draws_in_a_forward_give_the_live_errors(pairs, model: VideoModel, tmp_path: Path):
    """3 pairs x 2 draws, 4 of them in a forward: the second draw of pair 0 is in the first forward, of 8 clips."""
    with clips_of_forwards(model) as clips:
        cache, share = filled(model, pairs[:3], tmp_path, in_forward=4)
    assert (clips, share) == ([8, 4], 1)
    for visit in visits_of(3):
        live = live_reference(model, Source(model).pairs(pairs, [visit], FIXED))
        assert float((cache.of([visit]) - live).abs().max()) < 1e-6
    assert filled(model, pairs[:3], tmp_path)[1] == 0


def test_a_batched_fill_that_is_cut_ends_with_the_bits_of_one_that_was_not(pairs, model: VideoModel, tmp_path: Path):
    """Of the 10 visits, 3 in a forward, two forwards are made; then all but 4 of what they gave is lost."""
    whole, _ = filled(model, pairs[:5], tmp_path / "whole", in_forward=3)
    polls = iter((None, None, Interrupted("asked to stop")))

    def poll() -> None:
        if (answer := next(polls)) is not None:
            raise answer

    with pytest.raises(Interrupted):
        CachedReference(pairs[:5], FIXED, tmp_path / "cut").fill(model, Source(model), 2, poll, in_forward=3)
    path = next((tmp_path / "cut").glob("draw-0000-*"))
    rows = load_file(path)
    path.write_bytes(save({pair.id: rows[pair.id] for pair in pairs[:4]}))
    for lost in (tmp_path / "cut").glob("draw-0001-*"):
        lost.unlink()
    with clips_of_forwards(model) as clips:
        cut, share = filled(model, pairs[:5], tmp_path / "cut", in_forward=3)
    assert (clips, share) == ([6, 6, 2], 6 / 10)  # the second forward runs whole though its first visit is known
    assert torch.equal(cut.of(visits_of(5)), whole.of(visits_of(5)))


def test_what_a_fill_of_other_forwards_left_is_never_replaced(pairs, model: VideoModel, tmp_path: Path):
    """Two of four pairs are there, made apart and marked; a fill of three in a forward computes only the others'."""
    first, _ = filled(model, pairs[:2], tmp_path)
    for path in tmp_path.glob("draw-*"):
        path.write_bytes(save({name: row + 1 for name, row in load_file(path).items()}))
    both, share = filled(model, pairs[:4], tmp_path, in_forward=3)
    assert share == 0.5
    assert torch.equal(both.of(visits_of(2)), first.of(visits_of(2)) + 1)


def test_the_oldest_of_two_values_is_taken(pairs, model: VideoModel, tmp_path: Path):
    """As two runs that fill at once leave them: whoever reads then, or goes on later, takes the same one."""
    cache, _ = filled(model, pairs[:2], tmp_path)
    made = next(tmp_path.glob("draw-0000-*"))
    older, newer = tmp_path / "draw-0000-z.safetensors", tmp_path / "draw-0000-a.safetensors"
    for path, shift, second in ((older, 1, 10), (newer, 2, 20)):
        path.write_bytes(save({name: row + shift for name, row in load_file(made).items()}))
        os.utime(path, (second, second))
    again, _ = filled(model, pairs[:2], tmp_path)
    first = [Visit(index=0, draw=0)]
    assert torch.equal(again.of(first), cache.of(first) + 1)


def test_a_pair_whose_errors_are_not_finite_is_named(pairs, model: VideoModel, tmp_path: Path):
    class Overflowing:
        is_live = True

        def residuals(self, batch):
            return torch.full_like(batch.latents, torch.inf)

    cache = CachedReference(pairs[:2], FIXED, tmp_path)
    with pytest.raises(BadInput, match=f"pair {pairs[0].id}, draw 0: the reference's errors are not finite"):
        cache.fill(model, Source(model), 1, lambda: None, reference=Overflowing())


@pytest.mark.parametrize(
    ("memory", "num_processes", "pairs"), [("packed", 1, 8), ("packed", 4, 2), ("apart", 1, 4), ("apart", 8, 1)]
)
def test_a_forward_of_the_fill_has_the_clips_of_a_forward_of_a_step(memory: str, num_processes: int, pairs: int):
    """8 pairs in a forward, both clips at once or one after the other, over so many processes."""
    assert pairs_in_fill(LearnConfig(memory=memory), 8, num_processes) == pairs


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
