"""The recipe of the shipped model: cut anywhere, it ends where an uninterrupted run ends."""

import itertools

import pytest
import torch
from safetensors.torch import load_file

from densedpo.adapters import load
from densedpo.adapters.tiny import train_autoencoder, train_denoiser
from densedpo.adapters.tiny.resumable import cosine_lr, linear_lr
from densedpo.adapters.tiny.vocabulary import MAX_SEQUENCE_LENGTH, build_tokenizer
from densedpo.world.scene import all_scenes


def test_each_caption_of_the_world_fits_the_vocabulary_and_the_sequence():
    tokenizer = build_tokenizer()
    captions = sorted({scene.caption for scene in all_scenes()})
    ids = tokenizer(captions).input_ids
    assert max(len(row) for row in ids) <= MAX_SEQUENCE_LENGTH
    assert all(tokenizer.unk_token_id not in row for row in ids)
    assert tokenizer("a plaid circle").input_ids[1] == tokenizer.unk_token_id


def test_learning_rate_rises_then_falls_to_its_floor():
    rates = [cosine_lr(step, num_steps=100, peak=1.0, num_warmup=10, floor=0.1) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[100] == pytest.approx(0.1)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))


def test_a_linear_rate_ends_at_nothing():
    rates = [linear_lr(step, num_steps=100, peak=2.0, num_warmup=2) for step in (0, 1, 50, 99, 100)]
    assert rates == pytest.approx([1.0, 1.98, 1.0, 0.02, 0.0])


@pytest.mark.slow
def test_a_cut_recipe_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.setattr(train_autoencoder, "WINDOWS", ((0.0, 1, 5),))
    monkeypatch.setattr(train_autoencoder, "SAVE_EVERY", 1)
    monkeypatch.setattr(train_denoiser, "BATCH", 2)
    monkeypatch.setattr(train_denoiser, "SAVE_EVERY", 1)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_autoencoder.train(whole, 2)
    train_denoiser.train(whole, 3, 4)
    train_autoencoder.train(cut, 2, stop_after=1)
    train_autoencoder.train(cut, 2)
    train_denoiser.train(cut, 3, 4, stop_after=2)
    assert not (cut / "model").exists()
    train_denoiser.train(cut, 3, 4)
    for part in ("vae", "transformer"):
        name = "diffusion_pytorch_model.safetensors"
        first, second = load_file(whole / "model" / part / name), load_file(cut / "model" / part / name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    model = load(cut / "model")
    assert model.geometry.max_sequence_length == MAX_SEQUENCE_LENGTH
    assert model.defaults.num_steps > 0
