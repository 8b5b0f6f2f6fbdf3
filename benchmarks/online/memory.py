"""The peak of memory of an online round's sampling and learning, at different numbers of sampling steps.

    python benchmarks/online/memory.py                    # the shipped model on the CPU, 4, 16 and 64 steps
    python benchmarks/online/memory.py --model FOLDER --device cuda --steps 10 50

No gradient goes through the sampler, so the peak must not depend on how many steps it takes. Each number of steps has a
process of its own, since a peak is of a whole process; on CUDA it is what the allocator held, else the resident set.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys

import torch

from densedpo.adapters import load
from densedpo.core import seeds
from densedpo.generate.sampler import sample
from densedpo.learn.config import LearnConfig
from densedpo.learn.errors import frame_errors
from densedpo.learn.feed.batch import ClipBatch
from densedpo.learn.online.reference import SecondAdapter
from densedpo.learn.reference import attach_lora

CLIPS = 4


def peak_mib(model_name: str, device: str, num_steps: int) -> float:
    """The peak of sampling some clips with the policy in force, and one backward over them."""
    model = load(model_name, device=device)
    attach_lora(model, LearnConfig())
    reference = SecondAdapter(model)
    shape = model.geometry.latent_shape
    noise = torch.stack([seeds.noise(shape, "memory", index) for index in range(CLIPS)])
    text = model.encode_text(["a red circle moves"] * CLIPS)
    latents = sample(
        model,
        start=noise,
        sigmas=model.sigmas(num_steps).cpu(),
        text=text,
        null_text=model.encode_text([""]),
        guidance_scale=model.defaults.guidance_scale,
    )
    batch = ClipBatch(latents=latents.cpu(), noise=noise, t=torch.full((CLIPS,), 0.5), text=text)
    reference.residuals(batch)
    frame_errors(model, batch).sum().backward()
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(peak_mib(options.model, options.device, options.one))
        return
    found = {}
    for num_steps in options.steps:
        command = [sys.executable, __file__, "--model", options.model, "--device", options.device]
        done = subprocess.run([*command, "--one", str(num_steps)], check=True, capture_output=True, text=True)
        found[num_steps] = round(float(done.stdout.split()[-1]), 1)
        print(f"{num_steps} sampling steps: peak {found[num_steps]} MiB", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
