"""The first gate of the shipped model: what the autoencoder does to held-out truth, by the oracle.

    python benchmarks/shipped_model/reconstruction.py --vae build/tiny/vae --clips 200

Prints the mean of the four scores with a 95 % interval (bootstrap over clips), and the share of clips under 0.93.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKLWan

from densedpo.core.seeds import derive_seed
from densedpo.world.oracle import score_clip
from densedpo.world.render import render
from densedpo.world.scene import draw_scene

SCORES = ("text_alignment", "visual_quality", "temporal_consistency", "dynamic_degree")


def reconstruct(vae: AutoencoderKLWan, frames: np.ndarray) -> np.ndarray:
    """Clips uint8 [B, F, H, W, 3] through the autoencoder's mode and back."""
    video = torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    with torch.no_grad():
        decoded = vae.decode(vae.encode(video).latent_dist.mode()).sample
    return ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 4, 1).numpy()


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of the mean, 2000 bootstrap draws over clips."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, (2000, len(values))).mean(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def main() -> None:
    """Reconstructs, scores and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--sheet", type=Path, help="write truth and reconstruction of 8 clips as a picture")
    arguments = parser.parse_args()
    vae = AutoencoderKLWan.from_pretrained(arguments.vae, torch_dtype=torch.float32).eval()
    rows, pictures, psnr = [], [], []
    for first in range(0, arguments.clips, 8):
        scenes = [draw_scene(derive_seed("gate", first + i) % 2**62, split="held_out") for i in range(8)]
        truth = np.stack([render(scene) for scene in scenes])
        decoded = reconstruct(vae, truth)
        for scene, true, made in zip(scenes, truth, decoded, strict=True):
            clip = score_clip(made, scene).clip
            rows.append([clip.text_alignment, clip.visual_quality, clip.temporal_consistency, clip.dynamic_degree])
            psnr.append(10 * np.log10(255**2 / ((true.astype(float) - made) ** 2).mean()))
            if len(pictures) < 16:
                pictures += [np.concatenate(list(true[::4]), 1), np.concatenate(list(made[::4]), 1)]
    scores = np.array(rows)
    report = {"clips": len(scores), "psnr_db": float(np.mean(psnr))}
    for index, name in enumerate(SCORES):
        low, high = interval(scores[:, index])
        report[name] = {
            "mean": float(scores[:, index].mean()),
            "low": low,
            "high": high,
            "share_under_0.93": float((scores[:, index] < 0.93).mean()),
        }
    print(json.dumps(report, indent=2))
    if arguments.sheet:
        cv2.imwrite(str(arguments.sheet), np.concatenate(pictures, 0)[..., ::-1])


if __name__ == "__main__":
    main()
