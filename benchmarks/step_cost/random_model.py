"""A denoiser with random weights and pairs with random latents: as costly as real ones, made in a moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save_file

from densedpo.adapters.base import Geometry, TextCondition
from densedpo.core import seeds
from densedpo.core.layout import Segments
from densedpo.learn.feed.inputs import LabelledPair, Labels


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """The shape of a denoiser and of its clips' latents (frames, rows, columns)."""

    layers: int
    heads: int
    head_dim: int
    ffn: int
    text_tokens: int
    text_width: int
    latents: tuple[int, int, int]


SIZES: Final = {
    "toy": Size(layers=2, heads=2, head_dim=24, ffn=64, text_tokens=16, text_width=32, latents=(3, 4, 4)),
    "1.5m": Size(layers=6, heads=4, head_dim=24, ffn=384, text_tokens=24, text_width=64, latents=(9, 8, 8)),
    "10m": Size(layers=8, heads=8, head_dim=32, ffn=1024, text_tokens=24, text_width=128, latents=(9, 8, 8)),
    # Wan 2.1's own shapes at 480p and 81 frames
    "1.3b": Size(layers=30, heads=12, head_dim=128, ffn=8960, text_tokens=512, text_width=4096, latents=(21, 60, 104)),
    "14b": Size(layers=40, heads=40, head_dim=128, ffn=13824, text_tokens=512, text_width=4096, latents=(21, 60, 104)),
}
CHANNELS: Final = 16


class RandomModel:
    """What training needs of a `VideoModel`."""

    target = "velocity"
    trained_t = (0.0, 1.0)
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2")

    def __init__(self, size: Size, *, device: str) -> None:
        frames, rows, columns = size.latents
        self.geometry = Geometry(
            num_frames=4 * (frames - 1) + 1, height=8 * rows, width=8 * columns, fps=16.0, temporal_stride=4,
            spatial_stride=8, latent_channels=CHANNELS, max_sequence_length=size.text_tokens,
        )  # fmt: skip
        self._size, self._device = size, torch.device(device)
        self._dtype = torch.float32 if device == "cpu" else torch.bfloat16
        with seeds.seeded_init(0), self._device, default_dtype(self._dtype):
            self.denoiser = WanTransformer3DModel(
                patch_size=(1, 2, 2), num_attention_heads=size.heads, attention_head_dim=size.head_dim,
                in_channels=CHANNELS, out_channels=CHANNELS, text_dim=size.text_width, freq_dim=256,
                ffn_dim=size.ffn, num_layers=size.layers, rope_max_seq_len=1024,
            )  # fmt: skip
        self.denoiser.eval().requires_grad_(False)

    def encode_text(self, captions: list[str]) -> TextCondition:
        """Random embeddings."""
        shape = (self._size.text_tokens, self._size.text_width)
        return TextCondition(embeds=torch.stack([seeds.noise(shape, c) for c in captions]).to(self._device))

    def predict(self, x_t: torch.Tensor, t: torch.Tensor, text: TextCondition) -> torch.Tensor:
        """The random denoiser's output."""
        return self.denoiser(
            hidden_states=x_t.to(self._device, self._dtype), timestep=t.to(self._device) * 1000,
            encoder_hidden_states=text.embeds.to(self._dtype), return_dict=False,
        )[0].float()  # fmt: skip


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """What is made inside the block is in this precision from the start: a second copy of 14B would not fit."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def random_pairs(folder: Path, size: Size, num_pairs: int) -> tuple[LabelledPair, ...]:
    """Pairs whose latents lie in a folder, every latent frame labelled."""
    frames, pairs = size.latents[0], []
    folder.mkdir(parents=True, exist_ok=True)
    num_frames = 4 * (frames - 1) + 1
    for index in range(num_pairs):
        path = folder / f"{index}.safetensors"
        save_file({side: seeds.noise((CHANNELS, *size.latents), side, index) for side in ("a", "b")}, path)
        labels = Labels(
            field=np.where(np.arange(frames) % 2 == 0, 1, -1).astype(np.int8),
            confidence=np.ones(frames, dtype=np.float32), judged=np.ones(frames, dtype=np.bool_), sign=1,
            segments=Segments(ranges=((0, num_frames),)), owner=np.zeros(frames, dtype=np.int64),
        )  # fmt: skip
        pair = LabelledPair(
            id=f"p{index}", split="train", caption=f"caption {index}", source=f"s{index}", latents=path,
            noise_keys=("a", "b"), labels=labels,
        )  # fmt: skip
        pairs.append(pair)
    return tuple(pairs)
