"""The second gate of the shipped model: what it makes of held-out captions, by the oracle.

    python benchmarks/shipped_model/gates.py --model tiny --clips 96

Prints the share of clips in which the oracle sees the asked shape, colour and direction, and the mean of the four
scores, each with a 95 % interval (bootstrap over clips; one clip a caption), overall and for slow and fast motion.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import torch
from reconstruction import SCORES, interval

from densedpo.adapters import load
from densedpo.adapters.base import VideoModel
from densedpo.core.progress import track
from densedpo.core.seeds import derive_seed, noise
from densedpo.generate.sampler import sample
from densedpo.world.oracle import score_clip
from densedpo.world.scene import Scene, draw_scene


def clips_of(model: VideoModel, scenes: list[Scene], first: int, num_steps: int, guidance: float) -> np.ndarray:
    """One clip per scene's caption, uint8 [B, F, H, W, 3]."""
    start = torch.stack([noise(model.geometry.latent_shape, "gates", first + i) for i in range(len(scenes))])
    latents = sample(
        model,
        start=start,
        sigmas=model.sigmas(num_steps),
        text=model.encode_text([scene.caption for scene in scenes]),
        null_text=model.encode_text([""]),
        guidance_scale=guidance,
    )
    return model.decode_latents(latents)


def summary(values: np.ndarray) -> dict[str, float]:
    """Mean, interval and n."""
    low, high = interval(values)
    return {"mean": float(values.mean()), "low": low, "high": high, "n": len(values)}


def main() -> None:
    """Samples, scores and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--clips", type=int, default=96)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--split", default="held_out")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet of the first 16 clips")
    arguments = parser.parse_args()
    model = load(arguments.model)
    num_steps = arguments.steps or model.defaults.num_steps
    guidance = arguments.guidance if arguments.guidance is not None else model.defaults.guidance_scale
    rows: dict[str, list[float]] = {}
    pictures = []
    for first in track(range(0, arguments.clips, 8), what="sampling"):
        scenes = [draw_scene(derive_seed("gates", first + i) % 2**62, split=arguments.split) for i in range(8)]
        for scene, frames in zip(scenes, clips_of(model, scenes, first, num_steps, guidance), strict=True):
            seen = score_clip(frames, scene)
            values = {name: getattr(seen.clip, name) for name in SCORES}
            values["shape and colour found"] = seen.found.shape == scene.shape and seen.found.colour == scene.colour
            values["motion found"] = seen.found.motion == scene.motion
            values["direction found"] = seen.found.direction == scene.direction
            values["fast"] = scene.speed == "fast"
            for name, value in values.items():
                rows.setdefault(name, []).append(float(value))
            if len(pictures) < 16:
                pictures.append(np.concatenate(list(frames[::4]), 1))
    table = {name: np.array(values) for name, values in rows.items()}
    fast = table.pop("fast") == 1
    report = {"model": arguments.model, "split": arguments.split, "num_steps": num_steps, "guidance": guidance}
    report |= {name: summary(values) for name, values in table.items()}
    report["slow"] = {name: summary(table[name][~fast]) for name in SCORES}
    report["fast"] = {name: summary(table[name][fast]) for name in SCORES}
    print(json.dumps(report, indent=2))
    if arguments.sheet:
        cv2.imwrite(str(arguments.sheet), np.concatenate(pictures, 0)[..., ::-1])


if __name__ == "__main__":
    main()
