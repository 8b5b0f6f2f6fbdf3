"""A training step at the shapes of real models: seconds for a pair, peak memory, model FLOPs utilisation.

    python benchmarks/step_cost/shapes.py                              # on a GPU: 1.3B and 14B parameters
    python benchmarks/step_cost/shapes.py --device cpu --sizes toy     # the machinery only, a minute

Random weights and latents in the shapes of Wan 2.1 at 480x832 and 81 frames, bfloat16 with a float32 LoRA of rank
128, one pair in a step, activations computed again in the backward, the reference from the cache. `packed` has both
clips in one forward, `apart` one after the other.

FLOPs are counted, not estimated: torch's counter over one forward and backward of both clips on the meta device, where
every product is seen and nothing is computed. What is computed twice for memory's sake counts once. The ceiling is the
best rate of one large product of square matrices in the same precision on the same device; utilisation is FLOPs over
seconds times ceiling. Each shape and mode has a process of its own, so that one that does not fit is told as such.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from random_model import CHANNELS, SIZES, RandomModel, Size, random_pairs
from run import Bench, Scale, peak_bytes, settle
from torch.utils.flop_counter import FlopCounterMode

from densedpo.adapters.base import TextCondition
from densedpo.core.progress import set_quiet
from densedpo.core.provenance import provenance
from densedpo.learn.config import LearnConfig
from densedpo.learn.reference import attach_lora

RANK: Final = 128
MODES: Final = ("packed", "apart")
DOES_NOT_FIT: Final = 3  # exit code of a process that ran out of memory


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One shape in one mode: medians over steps, and the peak of what was held."""

    seconds: float
    peak_gib: float


def step_flops(size: Size, rank: int) -> int:
    """FLOPs of the forward and backward of both clips of a pair; the frozen weights have no gradient of their own."""
    model = RandomModel(size, device="meta")
    attach_lora(model, LearnConfig(lora_rank=rank))
    model.denoiser.to("meta")
    x = torch.empty(2, CHANNELS, *size.latents, device="meta")
    text = TextCondition(embeds=torch.empty(2, size.text_tokens, size.text_width, device="meta"))
    with FlopCounterMode(display=False) as counter:
        model.predict(x, torch.empty(2, device="meta"), text).sum().backward()
    return int(counter.get_total_flops())


def ceiling(device: str, *, side: int, repeats: int) -> float:
    """FLOP/s of a product of square matrices, the best of some."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    one, other = (torch.ones(side, side, dtype=dtype, device=device) for _ in "ab")
    best = 0.0
    for _ in range(repeats):
        settle(device)
        started = time.perf_counter()
        one @ other
        settle(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - started))
    return best


def measure(size: str, mode: str, *, device: str, steps: int) -> Measured:
    """Times some steps in this process, after one to warm up."""
    scale = Scale(size=size, num_pairs=1, rounds=steps, device=device, lora_rank=RANK, recompute=True)
    with tempfile.TemporaryDirectory() as name:
        pairs = random_pairs(Path(name), SIZES[size], 1)
        bench = Bench(mode, scale, pairs, Path(name) / "cache")
        bench.step()
        seconds = statistics.median(bench.step() for _ in range(steps))
    return Measured(seconds=seconds, peak_gib=peak_bytes(device) / 2**30)


def _measured_apart(size: str, mode: str, options: argparse.Namespace) -> Measured | None:
    """In a process of its own; None where it does not fit."""
    command = [sys.executable, __file__, "--device", options.device, "--steps", str(options.steps)]
    done = subprocess.run([*command, "--only", size, mode], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode == DOES_NOT_FIT:
        return None
    done.check_returncode()
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Prints a table and writes shapes.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["1.3b", "14b"])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("build/step_cost"))
    parser.add_argument("--only", nargs=2, metavar=("SIZE", "MODE"), help="only this one, as JSON")
    options = parser.parse_args()
    if torch.device(options.device).type != "cpu" and not torch.cuda.is_available():
        sys.exit("no GPU here: nothing was measured; --device cpu --sizes toy tries the machinery")
    set_quiet(True)
    if options.only:
        try:
            found = measure(*options.only, device=options.device, steps=options.steps)
        except torch.OutOfMemoryError:
            sys.exit(DOES_NOT_FIT)
        print(json.dumps({"seconds": found.seconds, "peak_gib": found.peak_gib}))
        return
    rate = ceiling(options.device, side=512 if options.device == "cpu" else 8192, repeats=20)
    rows = []
    print(f"ceiling of a matrix product: {rate / 1e12:.2f} TFLOP/s\nshape  mode    s/pair  peak GiB  TFLOP/pair  MFU")
    for size in options.sizes:
        flops = step_flops(SIZES[size], RANK)
        for mode in MODES:
            one = _measured_apart(size, mode, options)
            row: dict[str, object] = {"size": size, "mode": mode, "flops": flops, "fits": one is not None}
            told = "does not fit"
            if one is not None:
                utilisation = flops / one.seconds / rate
                row |= {"seconds": one.seconds, "peak_gib": one.peak_gib, "utilisation": utilisation}
                told = f"{one.seconds:6.2f} {one.peak_gib:9.2f} {flops / 1e12:11.3f} {utilisation:5.1%}"
            rows.append(row)
            print(f"{size:6} {mode:7} {told}", flush=True)
    device = "cpu" if options.device == "cpu" else torch.cuda.get_device_name()
    written = {"device": device, "rank": RANK, "steps": options.steps, "ceiling_flop_per_s": rate, "rows": rows,
               "made": provenance()}  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "shapes.json").write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
