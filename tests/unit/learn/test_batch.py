"""Batches are the same whether what they are made of is kept in memory or read anew."""

from __future__ import annotations

import logging

import pytest
import torch
from safetensors.torch import load_file, save_file

from densedpo.adapters import VideoModel
from densedpo.core.workspace import Project
from densedpo.learn.feed import batch
from densedpo.learn.feed.batch import PairBatch, Source
from densedpo.learn.feed.inputs import read_pairs
from densedpo.learn.feed.order import Visit
from learn_bench import FRESH


def test_latents_and_captions_are_kept_while_there_is_room_and_read_anew_beyond(
    labelled: Project, toy_model: VideoModel, monkeypatch: pytest.MonkeyPatch, caplog
):
    """Three pairs of two clips of 16 x 3 x 4 x 4 float32, 6144 bytes a pair: there is room for two of them."""
    pairs = read_pairs(labelled.pairs("toy"), labelled.preferences("toy"), toy_model.geometry, toy_model.fingerprint)
    clip = load_file(pairs[2].latents)["a"]
    save_file({"a": clip, "b": clip.clone()}, pairs[2].latents)
    reads: list[str] = []

    def counted(path):
        reads.append(path.name)
        return load_file(path)

    def twice(source: Source) -> PairBatch:
        visits = [Visit(index=index, draw=0) for index in range(3)]
        assert torch.equal(source.pairs(pairs, visits, FRESH).latents_a, source.pairs(pairs, visits, FRESH).latents_a)
        return source.pairs(pairs, visits, FRESH)

    monkeypatch.setattr(batch, "load_file", counted)
    caplog.set_level(logging.WARNING, logger="densedpo")
    kept = twice(Source(toy_model))
    assert len(reads) == 3
    short = twice(Source(toy_model, kept_latents_bytes=2 * 6144, kept_captions_bytes=0))
    assert reads[3:] == [pair.latents.name for pair in (*pairs[:3], pairs[2], pairs[2])]
    assert torch.equal(short.latents_b, kept.latents_b)
    assert torch.equal(short.text.embeds, kept.text.embeds)
    assert caplog.text.count("both clips are the same") == 2  # once for each source
