"""Clips that the shipped model made again from part way: the faults of a generative model, at graded strengths.

A rendered clip is noised to eta and denoised, as the clips of guided pairs are. The higher eta, the less of the clip is
left and the more of it is the model's own: of the same clip, the one from the higher eta counts as worse. No oracle and
no person is asked. All copies went through the autoencoder, so that its traces tell nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray

from densedpo.adapters import catalogue
from densedpo.core.paths import noised
from densedpo.core.progress import track
from densedpo.core.seeds import generator, noise
from densedpo.core.workspace import write_atomic
from densedpo.generate.sampler import guided_sigmas, sample, stack_schedules
from densedpo.world.render import render
from densedpo.world.scene import draw_scene

if TYPE_CHECKING:
    from pathlib import Path

    from densedpo.adapters.base import VideoModel

Clips = NDArray[np.uint8]

NUM_CLIPS: Final = 256
BATCH: Final = 8
NUM_STEPS: Final = 11
GUIDANCE: Final = 2.0
LEAST_ETA: Final = 0.5
MOST_ETA: Final = 0.97
LEAST_GAP: Final = 0.1  # between the two etas of a clip


def regenerated(folder: Path, num_clips: int = NUM_CLIPS) -> Clips:
    """Clips uint8 [num_clips, 3, F, H, W, 3]: as they are, from a lower eta, from a higher one; made where missing.

    Args:
        folder: keeps a file for every batch, so that a cut call goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{first:05d}.npy" for first in range(0, num_clips, BATCH)]
    missing = [(number, file) for number, file in enumerate(files) if not file.exists()]
    model = catalogue.load("tiny") if missing else None
    for number, file in track(missing, total=len(missing), what="clips made again, batches") if missing else ():
        assert model is not None
        part = file.with_suffix(".part.npy")
        np.save(part, _batch(model, number))
        write_atomic(file, part.read_bytes())
        part.unlink()
    return np.concatenate([np.load(file, allow_pickle=False) for file in files])[:num_clips]


def _batch(model: VideoModel, number: int) -> Clips:
    rng = generator("reward regenerated", number)
    scenes = [draw_scene(int(rng.integers(2**62)), split="train") for _ in range(BATCH)]
    latents = model.encode_video(np.stack([render(scene) for scene in scenes]))
    weak = rng.uniform(LEAST_ETA, MOST_ETA - LEAST_GAP, BATCH)
    strong = rng.uniform(weak + LEAST_GAP, MOST_ETA)
    text, null_text = model.encode_text([scene.caption for scene in scenes]), model.encode_text([""])
    copies = [latents]
    for name, etas in (("weak", weak), ("strong", strong)):
        schedules = [guided_sigmas(model.sigmas(NUM_STEPS).cpu(), float(eta)) for eta in etas]
        eps = torch.stack([noise(tuple(latents.shape[1:]), "reward", name, number, i) for i in range(BATCH)])
        start = noised(latents, eps, torch.stack([schedule[0] for schedule in schedules]))
        copies.append(
            sample(
                model,
                start=start,
                sigmas=stack_schedules(schedules),
                text=text,
                null_text=null_text,
                guidance_scale=GUIDANCE,
            )
        )
    return np.stack([model.decode_latents(each) for each in copies], axis=1)
