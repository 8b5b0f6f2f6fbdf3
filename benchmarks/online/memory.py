"""The peak of memory of an online round at different numbers of sampling steps, beside that of gradients through them.

    python benchmarks/online/memory.py --out benchmarks/online/results/memory.json
    python benchmarks/online/memory.py --model FOLDER --device cuda --steps 10 50

A round samples some clips with guidance, runs the reference on them and takes one backward of the policy: no gradient
goes through the sampler, so the peak must not depend on how many steps it takes. Beside it stands what methods do that
climb a differentiable reward (ReFL, DRaFT): the same sampler with its graph kept, and one backward through all of it
from the mean square of the latents, a stand-in for a reward. Each measurement has a process of its own, since a peak is
of a whole process: on CUDA what the allocator held, else the resident set, above what it was with the model loaded.
"""

from __future__ import annotations

import argparse
import inspect
import json
import multiprocessing
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from densedpo.core.provenance import provenance

CLIPS = 4
CAPTION = "a red circle"


def peak_mib(device: str) -> float:
    """The peak so far."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def measure(model_name: str, device: str, num_steps: int, *, through_sampling: bool) -> dict[str, object]:
    """One row: the peak of a round, or of a gradient through its sampling, above the loaded model."""
    import torch

    from densedpo.adapters import load
    from densedpo.core import seeds
    from densedpo.generate.sampler import sample
    from densedpo.learn.config import LearnConfig
    from densedpo.learn.errors import frame_errors
    from densedpo.learn.feed.batch import ClipBatch
    from densedpo.learn.online.reference import SecondAdapter
    from densedpo.learn.reference import attach_lora

    model = load(model_name, device=device)
    attach_lora(model, LearnConfig())
    reference = SecondAdapter(model)
    noise = torch.stack([seeds.noise(model.geometry.latent_shape, "memory", index) for index in range(CLIPS)])
    text = model.encode_text([CAPTION] * CLIPS)
    given = {
        "start": noise,
        "sigmas": model.sigmas(num_steps).cpu(),
        "text": text,
        "null_text": model.encode_text([""]),
        "guidance_scale": model.defaults.guidance_scale,
    }
    loaded = peak_mib(device)
    if through_sampling:
        inspect.unwrap(sample)(model, **given).square().mean().backward()  # without its no_grad
    else:
        latents = sample(model, **given)
        batch = ClipBatch(latents=latents.cpu(), noise=noise, t=torch.full((CLIPS,), 0.5), text=text)
        reference.residuals(batch)
        frame_errors(model, batch).sum().backward()
    peak = peak_mib(device)
    return {
        "what": "gradient through sampling" if through_sampling else "round",
        "sampling_steps": num_steps,
        "peak_mib": round(peak, 1),
        "above_loaded_mib": round(peak - loaded, 1),
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    # every measurement is forked from a server that has imported what all need, and has no model
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["densedpo.learn.online.reference", "densedpo.adapters.catalogue"])
    rows = []
    for through_sampling in (False, True):
        for num_steps in options.steps:
            with ProcessPoolExecutor(1, mp_context=server) as pool:
                asked = pool.submit(
                    measure, options.model, options.device, num_steps, through_sampling=through_sampling
                )
                rows.append(asked.result())
            print(rows[-1], flush=True)
    result = {
        "model": options.model, "device": options.device, "clips": CLIPS, "rows": rows, "made": provenance(),
    }  # fmt: skip
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
