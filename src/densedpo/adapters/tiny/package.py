"""Puts the trained parts together as an ordinary `WanPipeline` directory in half precision."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from transformers import UMT5EncoderModel

from densedpo.adapters.tiny.vocabulary import MAX_SEQUENCE_LENGTH, build_tokenizer
from densedpo.world.render import FPS, FRAME_SIZE, NUM_FRAMES

DEFAULTS = {
    "num_frames": NUM_FRAMES,
    "height": FRAME_SIZE,
    "width": FRAME_SIZE,
    "fps": FPS,
    "max_sequence_length": MAX_SEQUENCE_LENGTH,
    "num_steps": 16,
    "guidance_scale": 2.0,
    "eta_min": 0.7,
    "eta_max": 0.9,
}
SHIFT = 3.0  # of the noise levels, as Wan has it: more of the steps lie where the layout is decided


def assemble_pipeline(out: Path, *, transformer: WanTransformer3DModel, text_encoder: UMT5EncoderModel) -> Path:
    """Writes `out/model` from the two modules and `out/vae`; returns the folder.

    Half precision halves what the repository carries; it is loaded back to float32.
    """
    pipeline = WanPipeline(
        tokenizer=build_tokenizer(),
        text_encoder=text_encoder.to(torch.float16),
        vae=AutoencoderKLWan.from_pretrained(out / "vae").to(torch.float16),
        transformer=transformer.to(torch.float16),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
    )
    folder = out / "model"
    pipeline.save_pretrained(folder)
    _forget_where_it_came_from(folder / "vae" / "config.json")
    (folder / "densedpo.json").write_text(json.dumps(DEFAULTS, indent=2) + "\n")
    return folder


def _forget_where_it_came_from(config: Path) -> None:
    """A folder of the machine that trained it is no part of a model, nor of its fingerprint."""
    values = json.loads(config.read_text(encoding="utf-8"))
    values.pop("_name_or_path", None)
    config.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
