"""What sparse-causal attention costs against full attention as clips get longer: time and peak memory by frames.

    OMP_NUM_THREADS=1 python benchmarks/sparse_causal/run.py            # a few minutes; writes build/sparse_causal
    OMP_NUM_THREADS=1 python benchmarks/sparse_causal/run.py --quick    # the machinery only

One layer's attention on random queries, keys and values, on the CPU. `full` is every token seeing every token, by the
fused kernel of torch, which keeps no scores; `full with scores` by the plain one, which does; `masked` is full
attention with the sparse-causal mask; `gathered` is the kernel that models train with. `flex` is the block mask of
FlexAttention: it has to be asked for (`--kernels`), for want of a quick compiler on a CPU.

Every round measures all of them at every length, by turns, and a ratio is of two times of one round; the median over
rounds is told. Time is processor time, memory the growth of the process's peak of resident memory while one call runs
(Linux with glibc), forward and backward. The exponent is the slope of log cost over log frames over all lengths: 1 is
linear, 2 quadratic. `results/` holds two runs beside other work: one as above, and `longer_one_thread.json` with
`--kernels full masked gathered --frames 8 16 32 64`, where full attention is nearer to its limit.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from densedpo.adapters.sparse_causal import attend, sparse_causal_mask
from densedpo.core.provenance import provenance
from densedpo.core.seeds import noise


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """One layer."""

    tokens_per_frame: int
    heads: int
    width: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Of one kernel, by number of frames; medians over rounds."""

    forward_s: dict[int, float]
    both_s: dict[int, float]
    peak_mib: dict[int, float]
    forward_exponent: float
    both_exponent: float
    peak_exponent: float


Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int], torch.Tensor]


def full(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, num_frames: int) -> torch.Tensor:  # noqa: ARG001
    """Every token sees every token, by the kernel that keeps no scores."""
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return scaled_dot_product_attention(q, k, v)


def full_with_scores(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, num_frames: int) -> torch.Tensor:  # noqa: ARG001
    """The same, with the scores of all queries and keys in memory."""
    with sdpa_kernel(SDPBackend.MATH):
        return scaled_dot_product_attention(q, k, v)


KERNELS: Final[dict[str, Kernel]] = {
    "full": full,
    "full with scores": full_with_scores,
    "masked": lambda q, k, v, num_frames: attend(q, k, v, num_frames=num_frames, kernel="masked"),
    "gathered": lambda q, k, v, num_frames: attend(q, k, v, num_frames=num_frames, kernel="gathered"),
    "flex": lambda q, k, v, num_frames: attend(q, k, v, num_frames=num_frames, kernel="flex"),
}
PAGE_MIB: Final = 4 / 1024
WITHOUT_GRADIENTS: Final = ("flex",)


def inputs(shape: Shape, num_frames: int, *, has_gradients: bool) -> list[torch.Tensor]:
    """Queries, keys and values of one clip."""
    size = (1, shape.heads, num_frames * shape.tokens_per_frame, shape.width)
    return [noise(size, name).requires_grad_(has_gradients) for name in "qkv"]


def seconds(call: Callable[[], object]) -> float:
    """Processor time of the quickest of three calls: what else runs only ever adds to it."""
    found = []
    for _ in range(3):
        started = time.process_time()
        call()
        found.append(time.process_time() - started)
    return min(found)


def peak_mib(call: Callable[[], object]) -> float:
    """By how much the peak of resident memory stands above what was resident before the call."""
    ctypes.CDLL(None).malloc_trim(0)  # else the call is served from what was freed before, and nothing grows
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back
    before = _resident("VmRSS")
    call()
    return max(PAGE_MIB, _resident("VmHWM") - before)


def _resident(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def exponent(costs: dict[int, float]) -> float:
    """The slope of log cost over log frames, by least squares."""
    slope, _ = np.polyfit(np.log(list(costs)), np.log(list(costs.values())), 1)
    return float(slope)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounds:
    """What was found, by kernel and frames, one number for each round."""

    forward: dict[tuple[str, int], list[float]]
    both: dict[tuple[str, int], list[float]]
    peak: dict[tuple[str, int], list[float]]

    def cost(self, name: str, frames: list[int]) -> Cost:
        """Medians and exponents of one kernel."""
        medians = [
            {each: statistics.median(found[name, each]) for each in frames}
            for found in (self.forward, self.both, self.peak)
        ]
        slopes = [exponent(costs) for costs in medians]
        return Cost(
            forward_s=medians[0],
            both_s=medians[1],
            peak_mib=medians[2],
            forward_exponent=slopes[0],
            both_exponent=slopes[1],
            peak_exponent=slopes[2],
        )

    def ratios(self, name: str, other: str, num_frames: int) -> dict[str, float]:
        """Of two kernels' times in the same round, the median over rounds."""
        return {
            kind: statistics.median(
                a / b for a, b in zip(found[name, num_frames], found[other, num_frames], strict=True)
            )
            for kind, found in (("forward", self.forward), ("forward_and_backward", self.both))
        }


def measure(names: list[str], shape: Shape, frames: list[int], rounds: int) -> Rounds:
    """All kernels at all lengths, by turns."""
    found = Rounds(forward={}, both={}, peak={})
    for _ in range(rounds):
        for num_frames in frames:
            for name in names:
                one = _measure_once(name, shape, num_frames)
                for kept, value in zip((found.forward, found.both, found.peak), one, strict=True):
                    kept.setdefault((name, num_frames), []).append(value)
    return found


def _measure_once(name: str, shape: Shape, num_frames: int) -> tuple[float, float, float]:
    """Seconds forward, seconds forward and backward, MiB; of a kernel without gradients, forward alone."""
    has_gradients = name not in WITHOUT_GRADIENTS
    tensors = inputs(shape, num_frames, has_gradients=has_gradients)

    def forwards() -> None:
        with torch.no_grad():
            KERNELS[name](*tensors, num_frames)

    def both() -> None:
        KERNELS[name](*tensors, num_frames).sum().backward()

    whole = both if has_gradients else forwards
    whole()  # to warm up, and to have the gradients' memory
    return seconds(forwards), seconds(whole), peak_mib(whole)


def check(shape: Shape) -> float:
    """The largest difference of `gathered` from the mask written out, before anything is timed."""
    q, k, v = inputs(shape, 4, has_gradients=False)
    mask = sparse_causal_mask(4, shape.tokens_per_frame)
    expected = scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return float((attend(q, k, v, num_frames=4, kernel="gathered") - expected).abs().max())


def main() -> None:
    """Prints a line for each kernel and writes results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--tokens", type=int, default=128, help="of a frame")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kernels", nargs="+", choices=KERNELS, default=[*KERNELS][:-1])
    parser.add_argument("--quick", action="store_true", help="short clips of small frames, one round")
    parser.add_argument("--out", type=Path, default=Path("build/sparse_causal"))
    options = parser.parse_args()
    if torch.get_num_threads() > 1:
        parser.error("processor time is of all threads: set OMP_NUM_THREADS=1")
    frames, tokens, rounds = options.frames, options.tokens, options.rounds
    if options.quick:
        frames, tokens, rounds = [2, 4, 8], 32, 1
    shape = Shape(tokens_per_frame=tokens, heads=2, width=32)
    difference = check(shape)
    if difference > 1e-5:
        raise SystemExit(f"gathered is off the masked reference by {difference:.1e}: nothing was measured")
    found = measure(options.kernels, shape, frames, rounds)
    costs, longest = {name: found.cost(name, frames) for name in options.kernels}, frames[-1]
    row = {
        "shape": dataclasses.asdict(shape),
        "frames": frames,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "off_the_reference": difference,
        "kernels": {name: dataclasses.asdict(cost) for name, cost in costs.items()},
        "times_gathered_at_the_longest": {
            name: found.ratios(name, "gathered", longest) for name in costs if "gathered" in costs
        },
        "made": provenance(),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
    for name, cost in costs.items():
        print(
            f"{name}: {cost.forward_s[longest]:.3f} s forward, {cost.both_s[longest]:.3f} s with backward, "
            f"{cost.peak_mib[longest]:.0f} MiB at {longest} frames; exponents {cost.forward_exponent:.2f}, "
            f"{cost.both_exponent:.2f}, {cost.peak_exponent:.2f}"
        )


if __name__ == "__main__":
    main()
