"""Each option does what it says, and where none is set a step is the plain composition, bit for bit."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from densedpo.adapters import VideoModel
from densedpo.core import seeds
from densedpo.core.errors import BadInput
from densedpo.core.records import Clip, Pair, Preference, read_jsonl, write_jsonl
from densedpo.core.workspace import Project
from densedpo.generate.guided import guided_start
from densedpo.learn.cache import cache_folder
from densedpo.learn.config import LearnConfig
from densedpo.learn.errors import frame_errors, pair_errors
from densedpo.learn.feed.batch import Source
from densedpo.learn.feed.inputs import LabelledPair, read_pairs
from densedpo.learn.feed.order import Visit
from densedpo.learn.feed.splits import split_pairs
from densedpo.learn.objectives import PairErrors, dense_dpo
from densedpo.learn.reference import live_reference
from densedpo.learn.task.objective import label_weight
from densedpo.learn.task.safeguard import loser_scale, with_scaled_gradient
from learn_bench import FRESH, Bench

VISITS = tuple(Visit(index=index, draw=0) for index in range(3))


def read(project: Project, model: VideoModel, clips: Path | None = None) -> tuple[LabelledPair, ...]:
    toy = (project.pairs("toy"), project.preferences("toy"))
    return read_pairs(*toy, model.geometry, model.fingerprint, clips=clips)


@pytest.fixture
def pairs(labelled: Project, toy_model: VideoModel) -> tuple[LabelledPair, ...]:
    return read(labelled, toy_model)


def moved(bench: Bench) -> Bench:
    """With an adapter that is no longer fresh, so that margins and gradients are not 0."""
    for name, parameter in bench.parameters.items():
        if "lora_B" in name:
            noise = seeds.noise(tuple(parameter.shape), "moved", name)
            with torch.no_grad():
                parameter.copy_(0.02 * noise)
    return bench


def gradients(bench: Bench, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss.sum(), list(bench.parameters.values())))


def plain_errors(bench: Bench, pairs: tuple[LabelledPair, ...]) -> tuple[PairErrors, torch.Tensor]:
    batch = Source(bench.model).pairs(pairs, VISITS, FRESH)
    packed = batch.packed()
    assert torch.equal(packed.noise[:3], packed.noise[3:])
    assert torch.equal(packed.noise[1], seeds.noise(tuple(packed.noise[1].shape), 0, pairs[1].id, 0))
    return pair_errors(bench.model, batch, live_reference(bench.model, batch)), batch.field


def test_with_no_option_set_a_step_is_the_plain_composition(pairs, toy_model_dir: Path):
    bench = moved(Bench(toy_model_dir, pairs[:3]))
    outcome = bench.task.outcome(VISITS)
    errors, field = plain_errors(bench, pairs[:3])
    plain = dense_dpo(errors, field, beta=bench.config.beta)
    assert torch.equal(outcome.loss, plain.loss)
    assert all(map(torch.equal, gradients(bench, outcome.loss), gradients(bench, plain.loss)))


def test_cells_are_weighted_by_how_much_the_clips_differ(pairs, toy_model: VideoModel, toy_model_dir: Path):
    """|a - b| is 1, 2 and 6 in the three latent frames: weights 1/3, 2/3 and 2."""
    a = load_file(pairs[0].latents)["a"]
    save_file({"a": a, "b": a + torch.tensor([1.0, -2.0, 6.0]).view(1, 3, 1, 1)}, pairs[0].latents)
    weights = Source(toy_model).differences(pairs[:3])[:, :, 0, 0]
    torch.testing.assert_close(weights[0], torch.tensor([1 / 3, 2 / 3, 2]), rtol=1e-5, atol=0)
    torch.testing.assert_close(weights.mean(1), torch.ones(3))
    bench = moved(Bench(toy_model_dir, pairs[:3], cell_weight="difference"))
    outcome = bench.task.outcome(VISITS)
    errors, field = plain_errors(bench, pairs[:3])
    expected = dense_dpo(errors, field, beta=bench.config.beta, cell_weight=weights[:, :, None, None])
    assert torch.equal(outcome.loss, expected.loss)
    assert not torch.equal(outcome.loss, dense_dpo(errors, field, beta=bench.config.beta).loss)
    assert bench.task.weight(VISITS) == pytest.approx(outcome.weight.sum().item(), rel=1e-6)


def test_two_equal_clips_have_even_weights(pairs, toy_model: VideoModel):
    a = load_file(pairs[0].latents)["a"]
    save_file({"a": a, "b": a.clone()}, pairs[0].latents)
    assert torch.equal(Source(toy_model).differences(pairs[:1]), torch.ones(1, 3, 1, 1))


def residual_pair(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Residuals of two clips that have much in common, the loser's larger: [4 2 3 2 2]."""
    shared, own_a, own_b = (seeds.noise((4, 2, 3, 2, 2), "residual", seed, name).double() for name in "sab")
    return shared + 0.3 * own_a, 2 * shared + 0.3 * own_b


@pytest.mark.parametrize("by_clip", [False, True])
@pytest.mark.parametrize("mu", [0.0, 0.5, 1.0])
def test_under_the_safeguard_the_winners_error_does_not_rise_to_first_order(mu: float, by_clip: bool):
    """An output that both clips share, moved against g_w - lambda g_l: d|r_w|^2 <= -mu |g_w|^2 in each group."""
    axes = (1, 2, 3, 4) if by_clip else (1, 3, 4)
    a, b = residual_pair(0)
    winner = torch.ones(4, 3, 1, 1, dtype=torch.int8)
    scale_a, scale_b = loser_scale(a, b, winner, mu=mu, by_clip=by_clip)
    assert torch.equal(scale_a, torch.ones_like(scale_a))
    step = -(a - scale_b[:, :, 0, 0][:, None, :, None, None] * b)
    assert ((a * step).sum(axes) <= -mu * (a * a).sum(axes) + 1e-12).all()
    unguarded = -(a - b)
    assert ((a * unguarded).sum(axes) > 0).all()  # what it is there for
    swapped = loser_scale(b, a, -winner, mu=mu, by_clip=by_clip)
    assert torch.equal(swapped[0], scale_b)
    assert torch.equal(swapped[1], scale_a)


def test_the_loser_is_left_alone_where_it_does_no_harm_and_where_there_is_none():
    """Opposed residuals: lambda 1. A tie: 1 for both. By hand: r_w = 1, r_l = 2, mu = .5: lambda = .5 * 1/2."""
    a, b = residual_pair(1)
    against = loser_scale(a, -b, torch.ones(4, 3, 1, 1, dtype=torch.int8), mu=0.5, by_clip=False)
    tie = loser_scale(a, b, torch.zeros(4, 3, 1, 1, dtype=torch.int8), mu=0.5, by_clip=False)
    for scale in (*against, *tie):
        assert (scale == 1).all()
    one = torch.ones(1, 1, 1, 2, 2)
    _, by_hand = loser_scale(one, 2 * one, torch.ones(1, 1, 1, 1, dtype=torch.int8), mu=0.5, by_clip=False)
    assert by_hand.item() == pytest.approx(0.25)


def test_a_scaled_gradient_keeps_the_value():
    errors = torch.tensor([0.3, 0.7]).view(1, 2, 1, 1).requires_grad_()
    scaled = with_scaled_gradient(errors, torch.tensor([0.25, 1.0]).view(1, 2, 1, 1))
    assert torch.equal(scaled, errors)
    scaled.sum().backward()
    assert errors.grad.flatten().tolist() == [0.25, 1.0]


@pytest.mark.parametrize("objective", ["dense_dpo", "dpo"])
def test_the_safeguard_changes_gradients_and_no_loss(pairs, toy_model_dir: Path, objective: str):
    plain = moved(Bench(toy_model_dir, pairs[:3], objective=objective))
    guarded = moved(Bench(toy_model_dir, pairs[:3], objective=objective, loser_safeguard=0.9))
    before, after = plain.task.outcome(VISITS), guarded.task.outcome(VISITS)
    assert torch.equal(before.loss, after.loss)
    norms = [sum(float(g.square().sum()) for g in gradients(plain, before.loss))]
    norms.append(sum(float(g.square().sum()) for g in gradients(guarded, after.loss)))
    assert norms[0] != pytest.approx(norms[1], rel=1e-3)


def test_the_pairs_own_noise_is_what_it_was_generated_from(pairs, labelled: Project, toy_model: VideoModel):
    """A guided pair with eta = 1 starts from its noises alone."""
    record = replace(read_jsonl(labelled.pairs("toy") / "pairs.jsonl", Pair)[1], kind="guided", eta=1.0)
    start = guided_start(toy_model, record, torch.zeros(toy_model.geometry.latent_shape))
    own = replace(FRESH, noise="own")
    for draw in (0, 1):
        batch = Source(toy_model).pairs(pairs, [Visit(index=1, draw=draw)], own)
        assert torch.equal(batch.noise_a[0], start.a)
        assert torch.equal(batch.noise_b[0], start.b)
        packed = batch.packed()
        assert torch.equal(packed.noise, torch.stack([start.a, start.b]))
    fresh = Source(toy_model).pairs(pairs, [Visit(index=1, draw=0)], FRESH)
    assert torch.equal(fresh.t, Source(toy_model).pairs(pairs, [Visit(index=1, draw=0)], own).t)
    with torch.no_grad():
        assert not torch.equal(frame_errors(toy_model, packed), frame_errors(toy_model, fresh.packed()))


def test_own_and_fresh_noise_share_no_cache(tmp_path: Path):
    fixed = replace(FRESH, count=4)
    named = {"fingerprint": "m", "content": "c", "precision": "float32", "device": "cpu"}
    folders = {cache_folder(tmp_path, draws, **named) for draws in (fixed, replace(fixed, noise="own"))}
    assert len(folders) == 2


def test_ties_are_sampled_where_they_carry_loss(labelled: Project, toy_model: VideoModel):
    """Pair 0 all tied, pair 1 with nothing answered in its first segment and a tie in its second."""
    path = labelled.preferences("toy")
    rows = read_jsonl(path, Preference)
    rows[0] = replace(rows[0], labels=(0, 0))
    rows[1] = replace(rows[1], labels=(0, 0), answered=(False, True))
    rows[12] = replace(rows[12], labels=(0, 0))  # of the validation split
    write_jsonl(path, rows)
    found = read(labelled, toy_model)
    config = LearnConfig(objective="dense_dpo_ties")
    assert [label_weight(config, pair) for pair in found[:2]] == [3.0, 1.0]
    assert [label_weight(LearnConfig(), pair) for pair in found[:2]] == [0.0, 0.0]
    with_ties, without = split_pairs(found, config), split_pairs(found, LearnConfig())
    assert {pair.id for pair in with_ties.train} - {pair.id for pair in without.train} == {"pair-000", "pair-001"}
    assert [pair.id for pair in with_ties.validation] == [pair.id for pair in without.validation]
    few = split_pairs(found, LearnConfig(objective="dense_dpo_ties", min_non_tie_share=0.5))
    assert "pair-001" not in {pair.id for pair in few.train}


def test_folds_cut_the_training_pairs_whole(pairs):
    splits = [split_pairs(pairs, LearnConfig(fold=(index, 3), min_non_tie_share=0.7)) for index in range(3)]
    left_out = Counter(pair.id for split in splits for pair in split.left_out)
    assert left_out == Counter(pair.id for pair in pairs if pair.split == "train")  # those that are too tied, too
    for split in splits:
        assert not {pair.id for pair in split.left_out} & {pair.id for pair in split.train}
        assert len(split.left_out) == 4
        assert split.validation == split_pairs(pairs, LearnConfig(min_non_tie_share=0.7)).validation
    assert split_pairs(pairs, LearnConfig()).left_out == ()
    with pytest.raises(BadInput, match=r"fold = \[0, 13\]: 12 sources of training pairs are too few"):
        split_pairs(pairs, LearnConfig(fold=(0, 13)))


def test_pairs_of_one_video_are_left_out_together(labelled: Project, toy_model: VideoModel):
    """Pairs 0 to 5 were made from clips 0 to 5, which were cut from two videos."""
    clips = labelled.clips / "clips.jsonl"
    write_jsonl(clips, [replace(clip, source=f"video-{n % 2}") for n, clip in enumerate(read_jsonl(clips, Clip))])
    path = labelled.pairs("toy") / "pairs.jsonl"
    records = read_jsonl(path, Pair)
    for index in range(6):
        records[index] = replace(records[index], clip_id=f"clip-{index:04d}")
    write_jsonl(path, records)
    assert read(labelled, toy_model)[2].source == "clip-0002"
    found = read(labelled, toy_model, clips=labelled.clips)
    assert [pair.source for pair in found[:3]] == ["video-0", "video-1", "video-0"]
    assert found[6].source == "prompt-006"
    for index in range(2):
        apart = {pair.id for pair in split_pairs(found, LearnConfig(fold=(index, 2))).left_out}
        assert len(apart & {"pair-000", "pair-002", "pair-004"}) in (0, 3)


def test_a_missing_answer_is_no_tie(labelled: Project, toy_model: VideoModel):
    path = labelled.preferences("toy")
    rows = read_jsonl(path, Preference)
    rows[0] = replace(rows[0], labels=(1, 0), answered=(True, False))
    write_jsonl(path, rows)
    labels = read(labelled, toy_model)[0].labels
    np.testing.assert_array_equal(labels.judged, [True, True, False])
    np.testing.assert_array_equal(labels.owner, [0, 0, 1])
