"""The committed recipe for the shipped model's text encoder and denoiser, by rectified flow.

    python -m densedpo.adapters.tiny.train_denoiser --out build/tiny --steps 24000

Needs `build/tiny/vae` of `train_autoencoder`. The latents of rendered training scenes are encoded once and kept in
shards; then a `WanTransformer3DModel` and a small UMT5 encoder learn velocity eps - x at logit-normal t, with a tenth
of the captions dropped for guidance. Interrupted, each part goes on where it was. The end is `build/tiny/model`, an
ordinary `WanPipeline` directory in half precision.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from safetensors.torch import load_file, save_file
from scipy.special import ndtri
from transformers import UMT5Config, UMT5EncoderModel

from densedpo.adapters.tiny.package import assemble_pipeline
from densedpo.adapters.tiny.resumable import Descent, below, linear_lr, load_state, save_state
from densedpo.adapters.tiny.vocabulary import MAX_SEQUENCE_LENGTH, SPECIALS, build_tokenizer, words
from densedpo.core.seeds import derive_seed, generator, seeded_init
from densedpo.world.render import render
from densedpo.world.scene import Scene, draw_scene

BATCH = 8  # half of 16 at twice the steps: lower error at the same cost
PEAK_LR = 6e-3  # for both optimizers; 2e-3 learns more slowly
ORTHOGONAL_STEPS = 3  # of Muon: 5 give the same error and cost a third of the step's time
# of the logit-normal t: what the caption decides, above all which way the shape goes, it decides above t = 0.95
T_MEAN, T_STD = 1.2, 1.5
T_EDGES = (0.5, 0.8, 0.95)  # the error is printed for each range between them
TEXT_DROPOUT = 0.1
UNKNOWN_WORDS = 0.01  # share of words shown as <unk>, so that its embedding means "some word"
EMA_DECAY = 0.998
SHARD = 256
SAVE_EVERY = 500


def build_denoiser(seed: int = 0) -> WanTransformer3DModel:
    """The untrained denoiser: 1.8M parameters, 6 blocks of width 128, 2x2 patches of latents."""
    with seeded_init(derive_seed("denoiser", seed) % 2**63):
        return WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=4,
            attention_head_dim=32,
            in_channels=16,
            out_channels=16,
            text_dim=64,
            freq_dim=64,
            ffn_dim=512,
            num_layers=6,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=32,
        )


def build_text_encoder(seed: int = 0) -> UMT5EncoderModel:
    """The untrained text encoder: two UMT5 layers of width 64."""
    config = UMT5Config(
        vocab_size=len(SPECIALS) + len(words()),
        d_model=64,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
    )
    with seeded_init(derive_seed("text encoder", seed) % 2**63):
        return UMT5EncoderModel(config)


def world_scene(index: int) -> Scene:
    """The training scene of a dataset index."""
    return draw_scene(derive_seed("denoiser scene", index) % 2**62, split="train")


def encode_world(out: Path, num_clips: int) -> tuple[torch.Tensor, list[str]]:
    """Latents [num_clips, 16, 9, 8, 8], normalised, and captions; a cut costs one shard of the encoding."""
    vae = AutoencoderKLWan.from_pretrained(out / "vae").eval()
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    folder = out / "latents"
    folder.mkdir(exist_ok=True)
    shards = []
    for start in range(0, num_clips, SHARD):
        stop = min(start + SHARD, num_clips)
        path = folder / f"{start:06d}-{stop:06d}.safetensors"
        if not path.exists():
            batches = []
            with torch.no_grad():
                for first in range(start, stop, 8):
                    frames = np.stack([render(world_scene(i)) for i in range(first, min(first + 8, stop))])
                    video = torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
                    batches.append((vae.encode(video).latent_dist.mode() - mean) / std)
            part = path.with_suffix(".part")
            save_file({"latents": torch.cat(batches).contiguous()}, part)
            part.replace(path)
            print(f"encoded {stop} clips", flush=True)
        shards.append(load_file(path)["latents"])
    return torch.cat(shards), [world_scene(i).caption for i in range(num_clips)]


def is_hidden(name: str, parameter: torch.nn.Parameter) -> bool:
    """The blocks' matrices; embeddings, norms, in and out are not."""
    return parameter.ndim == 2 and "block" in name and "embed" not in name and "bias" not in name


class Trainer:
    """The recipe's moving parts, so that one place saves and restores all of them."""

    def __init__(self, latents: torch.Tensor, captions: list[str], *, num_steps: int, compiled: bool = False) -> None:
        self.latents = latents
        self.denoiser, self.text_encoder = build_denoiser(), build_text_encoder()
        self.forward = torch.compile(self.denoiser) if compiled else self.denoiser
        tokens = build_tokenizer()([*captions, ""], padding="max_length", max_length=MAX_SEQUENCE_LENGTH)
        self.ids = torch.tensor(tokens["input_ids"])
        self.mask = torch.tensor(tokens["attention_mask"])
        self.modules = torch.nn.ModuleDict({"transformer": self.denoiser, "text_encoder": self.text_encoder})
        self.average = {k: v.detach().clone() for k, v in self.modules.state_dict().items()}
        self.descent = Descent(
            self.modules,
            hidden=is_hidden,
            schedule=partial(linear_lr, num_steps=num_steps, peak=PEAK_LR, num_warmup=200),
            orthogonal_steps=ORTHOGONAL_STEPS,
        )

    def loss(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean squared velocity error of a batch, and it per range of t (NaN where the batch has none)."""
        rng = generator("denoiser", step)
        rows = rng.integers(len(self.latents), size=BATCH)
        x0 = self.latents[rows]
        eps = torch.from_numpy(rng.standard_normal(x0.shape, dtype=np.float32))
        # one draw in each of the batch's equal shares of the distribution: the loss varies less from step to step
        quantiles = (np.arange(BATCH) + rng.random(BATCH)) / BATCH
        t = torch.sigmoid(torch.from_numpy(T_MEAN + T_STD * ndtri(quantiles)).float())
        rows[rng.random(BATCH) < TEXT_DROPOUT] = len(self.latents)  # the last row is the empty caption
        ids, mask = self.ids[rows], self.mask[rows]
        ids = torch.where((torch.from_numpy(rng.random(ids.shape)) < UNKNOWN_WORDS) & (ids > 1), 2, ids)
        # as WanPipeline does: states after the end are zero
        text = self.text_encoder(ids, mask).last_hidden_state * mask[..., None]
        t_BCFHW = t.view(-1, 1, 1, 1, 1)
        x_t = (1 - t_BCFHW) * x0 + t_BCFHW * eps
        predicted = self.forward(hidden_states=x_t, timestep=t * 1000, encoder_hidden_states=text, return_dict=False)[0]
        error = (predicted - (eps - x0)).pow(2).mean((1, 2, 3, 4))
        place = torch.bucketize(t, torch.tensor(T_EDGES))
        return error.mean(), torch.stack([error.detach()[place == i].mean() for i in range(len(T_EDGES) + 1)])

    def update(self, step: int) -> torch.Tensor:
        """One step and one of the moving average; returns the error per range of t."""
        loss, ranges = self.loss(step)
        self.descent.step(loss, step)
        decay = min(EMA_DECAY, (step + 1) / (step + 10))
        for name, value in self.modules.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)
        return ranges

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that a resumed run needs, flat."""
        return self.descent.state() | {f"average.{k}": v for k, v in self.average.items()}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Puts `state` back; an empty state is a fresh start."""
        self.descent.restore(tensors)
        self.average |= below(tensors, "average")


def train(out: Path, num_steps: int, num_clips: int, *, compiled: bool = False, stop_after: int | None = None) -> None:
    """Runs the recipe into `out/model`, resuming from `out/denoiser.safetensors`.

    Args:
        compiled: compile the denoiser first: over a minute, then 1.3 times as fast on a CPU.
        stop_after: leave after this step, as a cut run would; the schedule stays that of `num_steps`.
    """
    trainer = Trainer(*encode_world(out, num_clips), num_steps=num_steps, compiled=compiled)
    tensors, first = load_state(out / "denoiser.safetensors")
    trainer.restore(tensors)
    started, recent = time.monotonic(), []
    for step in range(first, num_steps):
        recent.append(trainer.update(step))
        if (step + 1) % 100 == 0:
            ranges = " ".join(f"{v:.4f}" for v in torch.stack(recent).nanmean(0).tolist())
            pace = (time.monotonic() - started) / (step - first + 1)
            print(f"step {step + 1} error by range of t {ranges} {pace:.3f} s/step", flush=True)
            recent.clear()
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == num_steps:
            save_state(out / "denoiser.safetensors", trainer.state(), step=step + 1)
        if step + 1 == stop_after:
            return
    trainer.modules.load_state_dict(trainer.average)
    assemble_pipeline(out, transformer=trainer.denoiser, text_encoder=trainer.text_encoder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=24000)
    parser.add_argument("--clips", type=int, default=8192)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    train(arguments.out, arguments.steps, arguments.clips, compiled=arguments.compile)
