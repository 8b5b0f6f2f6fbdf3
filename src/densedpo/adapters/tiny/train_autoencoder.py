"""The committed recipe for the shipped model's autoencoder: an `AutoencoderKLWan` of 0.67M parameters.

    python -m densedpo.adapters.tiny.train_autoencoder --out build/tiny --steps 2000

It learns windows of rendered training scenes by a weighted L1 and L2 loss with a light KL term. Interrupted, it goes on
from the last state. At the end it measures mean and scale of the latents per channel and stores them in the config, so
that the denoiser sees unit variance.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan

from densedpo.adapters.tiny.resumable import Descent, cosine_lr, load_state, save_state
from densedpo.core.seeds import derive_seed, generator, seeded_init
from densedpo.world.render import NUM_FRAMES, render
from densedpo.world.scene import BACKGROUNDS, draw_scene

LATENT_CHANNELS = 16
SAVE_EVERY = 250
PEAK_LR = 1e-2
KL_WEIGHT = 1e-5
INITIAL_LOG_VARIANCE = -5.0  # at the default of 0 the posterior's noise drowns the signal for the first thousand steps
# share of the run after which a step sees (clips, frames): short windows show more scenes a second, but what the causal
# cache carries past the second latent is only learned from longer ones (a 5-frame run is noise from frame 9 on)
WINDOWS = ((0.0, 8, 5), (0.15, 4, 13), (0.25, 4, 33))


def build_autoencoder(seed: int = 0) -> AutoencoderKLWan:
    """The untrained autoencoder: 8x8 pixels by 4 frames a latent, the first frame alone (causal)."""
    with seeded_init(seed):
        vae = AutoencoderKLWan(
            base_dim=16,
            z_dim=LATENT_CHANNELS,
            dim_mult=[1, 2, 2],
            num_res_blocks=1,
            temperal_downsample=[True, True],
            in_channels=12,
            out_channels=12,
            patch_size=2,
            scale_factor_spatial=8,
            scale_factor_temporal=4,
            latents_mean=[0.0] * LATENT_CHANNELS,
            latents_std=[1.0] * LATENT_CHANNELS,
        )
    with torch.no_grad():
        vae.quant_conv.bias[LATENT_CHANNELS:] = INITIAL_LOG_VARIANCE
        vae.quant_conv.weight[LATENT_CHANNELS:] *= 0.1
    return vae


def is_convolution(_: str, parameter: torch.nn.Parameter) -> bool:
    """Weights of convolutions; the norms' gains have as many axes, all but the first of length one."""
    return parameter.ndim >= 4 and parameter[0].numel() > 1


def training_windows(step: int, *, batch: int, window: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows in [-1, 1], [B, 3, window, 64, 64], and where the loss looks closer, [B, 1, window, 64, 64]."""
    rng = generator("autoencoder", step)
    clips, weights = [], []
    for _ in range(batch):
        scene = draw_scene(int(rng.integers(2**62)), split="train")
        start = int(rng.integers(NUM_FRAMES - window + 1))
        frames = render(scene)[start : start + window]
        background = np.array(BACKGROUNDS[scene.background])
        shape = np.abs(frames.astype(np.int16) - background).max(-1) > 4
        clips.append(frames)
        # the moving shape is a twelfth of the pixels: without a weight its edges are learned last
        weights.append(1.0 + 5.0 * (shape | np.roll(shape, 1, 0) | np.roll(shape, -1, 0)))
    video = torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    return video, torch.from_numpy(np.stack(weights)).float()[:, None]


def reconstruction_error(
    decoded: torch.Tensor, video: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """The weighted L1 and L2 error that is trained on, and the plain L1 error that is logged."""
    error = (decoded - video).abs()
    return ((error + error**2) * weight).sum() / weight.sum() / 3, error.mean().item()


def measure_latents(vae: AutoencoderKLWan, num_clips: int = 64) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the latents per channel over rendered training clips."""
    latents = []
    with torch.no_grad():
        for index in range(num_clips):
            frames = render(draw_scene(derive_seed("latent statistics", index) % 2**62, split="train"))
            video = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
            latents.append(vae.encode(video).latent_dist.mode())
    stacked = torch.cat(latents).transpose(0, 1).flatten(1)
    return stacked.mean(1).tolist(), stacked.std(1).tolist()


def train(out: Path, num_steps: int, *, stop_after: int | None = None) -> None:
    """Runs the recipe into `out/vae`, resuming from `out/autoencoder.safetensors`.

    Args:
        stop_after: leave after this step, as a cut run would; the schedule stays that of `num_steps`.
    """
    out.mkdir(parents=True, exist_ok=True)
    vae = build_autoencoder()
    schedule = partial(cosine_lr, num_steps=num_steps, peak=PEAK_LR, num_warmup=50)
    descent = Descent(vae, hidden=is_convolution, schedule=schedule)
    tensors, first = load_state(out / "autoencoder.safetensors")
    descent.restore(tensors)
    started = time.monotonic()
    for step in range(first, num_steps):
        _, batch, window = [row for row in WINDOWS if step >= row[0] * num_steps][-1]
        video, weight = training_windows(step, batch=batch, window=window)
        posterior = vae.encode(video).latent_dist
        eps = torch.from_numpy(generator("posterior", step).standard_normal(posterior.mean.shape, dtype=np.float32))
        decoded = vae.decode(posterior.mean + posterior.std * eps).sample
        reconstruction, error = reconstruction_error(decoded, video, weight)
        loss = reconstruction + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()
        descent.step(loss, step)
        if step % 50 == 0:
            pace = (time.monotonic() - started) / (step - first + 1)
            print(f"step {step} l1 {error:.4f} weighted {reconstruction.item():.4f} {pace:.2f} s/step", flush=True)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == num_steps:
            save_state(out / "autoencoder.safetensors", descent.state(), step=step + 1)
        if step + 1 == stop_after:
            return
    vae.eval()
    mean, std = measure_latents(vae)
    vae.register_to_config(latents_mean=mean, latents_std=std)
    vae.save_pretrained(out / "vae")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    arguments = parser.parse_args()
    train(arguments.out, arguments.steps)
