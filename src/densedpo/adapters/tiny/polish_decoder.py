"""The last part of the recipe: the autoencoder's decoder goes on learning while its encoder stands still.

    python -m densedpo.adapters.tiny.polish_decoder --out build/tiny --steps 600

Latents do not change, so a denoiser that was trained on them stays valid; only what is seen of them gets sharper.
Reads and rewrites `build/tiny/vae`, and the autoencoder of `build/tiny/model` if it is there. Resumes like the others.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan

from densedpo.adapters.tiny.resumable import cosine_lr, descend, resume, save_training
from densedpo.adapters.tiny.train_autoencoder import POSTERIOR_NOISE, reconstruction_error, training_windows
from densedpo.core.seeds import generator
from densedpo.world.render import NUM_FRAMES

PEAK_LR = 4e-4
BATCH = 2
SAVE_EVERY = 100


def polish(out: Path, num_steps: int) -> None:
    """Trains the decoder of `out/vae` on whole clips, resuming from `out/decoder.safetensors`."""
    vae = AutoencoderKLWan.from_pretrained(out / "vae", torch_dtype=torch.float32)
    parts = torch.nn.ModuleList([vae.decoder, vae.post_quant_conv])
    optimizer = torch.optim.AdamW(parts.parameters(), lr=PEAK_LR, betas=(0.9, 0.95), weight_decay=1e-4)
    first = resume(out / "decoder.safetensors", parts, optimizer)
    started = time.monotonic()
    for step in range(first, num_steps):
        video, weight = training_windows(1_000_000 + step, batch=BATCH, window=NUM_FRAMES)
        with torch.no_grad():
            latents = vae.encode(video).latent_dist.mode()
        eps = torch.from_numpy(generator("polish", step).standard_normal(latents.shape).astype("float32"))
        # a little noise: the latents that a denoiser makes are not the encoder's to the last digit
        decoded = vae.decode(latents + POSTERIOR_NOISE * eps).sample
        loss, error = reconstruction_error(decoded, video, weight)
        lr = cosine_lr(step, num_steps=num_steps, peak=PEAK_LR, num_warmup=20)
        descend(loss, parts, optimizer, lr=lr)
        if step % 25 == 0:
            pace = (time.monotonic() - started) / (step - first + 1)
            print(f"step {step} l1 {error:.4f} weighted {loss.item():.4f} {pace:.2f} s/step", flush=True)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == num_steps:
            save_training(out / "decoder.safetensors", parts, optimizer, step=step + 1)
    _replace(vae, out / "vae")
    if (out / "model").exists():
        _replace(vae.to(torch.float16), out / "model" / "vae")


def _replace(vae: AutoencoderKLWan, folder: Path) -> None:
    """Saves beside and swaps: the weights in memory may still be mapped from the file that is replaced."""
    part = folder.with_name(folder.name + ".part")
    vae.save_pretrained(part)
    shutil.rmtree(folder)
    part.rename(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    arguments = parser.parse_args()
    polish(arguments.out, arguments.steps)
