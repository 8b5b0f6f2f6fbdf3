"""What is the same for every family, or Wan's own, and so is not asked of each: on a real `WanPipeline` at toy size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from densedpo.adapters import VideoModel, load
from toy import add_lora, toy_scene

CAPTIONS = [toy_scene(0).caption, toy_scene(1).caption]


@pytest.fixture
def model(toy_model_dir: Path) -> VideoModel:
    return load(toy_model_dir)


def test_an_adapter_is_the_same_file_in_every_process_under_any_name(model: VideoModel, tmp_path: Path) -> None:
    """What peft holds as a set, whose order hangs on the process, is sorted in the file."""
    add_lora(model)
    named, usual = model.save_adapter(tmp_path / "named" / "adapter.safetensors"), model.save_adapter(tmp_path)
    assert named.read_bytes() == usual.read_bytes()
    with safe_open(usual, "pt") as file:
        metadata = json.loads(file.metadata()["lora_adapter_metadata"])
    assert metadata["transformer.target_modules"] == sorted(model.lora_targets)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["pytorch_lora_weights.safetensors"]


def test_words_outside_the_vocabulary_are_warned_of_once(model: VideoModel, caplog: pytest.LogCaptureFixture) -> None:
    model.encode_text([toy_scene(0).caption, ""])
    assert not caplog.records
    model.encode_text(["a small red dragon slides home", "a dragon falls"])
    model.encode_text(["a dragon"])
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == ["dragon, home"]


def test_text_is_zero_after_its_last_token(model: VideoModel, toy_model_dir: Path) -> None:
    pipeline = WanPipeline.from_pretrained(toy_model_dir, local_files_only=True)
    with torch.no_grad():
        expected, _ = pipeline.encode_prompt(CAPTIONS, None, do_classifier_free_guidance=False, max_sequence_length=24)
    embeds = model.encode_text(CAPTIONS).embeds
    assert embeds.shape[1] == model.geometry.max_sequence_length
    torch.testing.assert_close(embeds, expected)
    assert bool((embeds[0, len(CAPTIONS[0].split()) + 1 :] == 0).all())


def test_zeros_behind_the_last_token_are_not_kept(toy_model_dir: Path, tmp_path: Path) -> None:
    """The caption's words and the end, of 24 rows."""
    load(toy_model_dir, captions=tmp_path).encode_ahead(CAPTIONS[:1])
    (file,) = tmp_path.glob("*/*.safetensors")
    assert load_file(file)["embeds"].shape[0] == len(CAPTIONS[0].split()) + 1


def test_a_damaged_embedding_is_made_again(
    toy_model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = load(toy_model_dir, captions=tmp_path)
    expected = model.encode_text(CAPTIONS[:1]).embeds
    (file,) = tmp_path.glob("*/*.safetensors")
    file.write_bytes(file.read_bytes()[:40])
    assert torch.equal(model.encode_text(CAPTIONS[:1]).embeds, expected)
    assert "is damaged" in caplog.text
    assert torch.equal(load(toy_model_dir, captions=tmp_path).encode_text(CAPTIONS[:1]).embeds, expected)
