"""What a training step costs against its floor and against a plain script: time and peak memory, ratios in one run.

    python benchmarks/step_cost/run.py                    # 10M parameters on CPU, some minutes
    python benchmarks/step_cost/run.py --device cuda --size 1.3b
    python benchmarks/step_cost/run.py --quick            # the machinery only, seconds

Random weights and random latents; time and memory do not depend on their values. The variants, on the same pairs:

    floor    the policy's own forward and backward on the same clips, with LoRA, clipping and AdamW; no loss of pairs
    packed   our step: both clips in one forward, the reference's errors from the cache
    apart    our step with memory = "apart": one clip after the other, for one forward of each clip more
    live     our step with fresh draws: the reference is run in each step
    plain    a second copy of the model as the reference and four separate forwards, as public scripts have it

The fill of the cache is timed beside them, for one draw of the same pairs, as a run makes it: with as many clips in a
forward as a step has. A whole run fills it for K draws of each pair and visits a pair 26 times (the paper's 1000 steps
of 256 over 10,000 pairs), so a step of it is a packed one and K / 26 of a fill.

Time: every round runs each variant once, in an order that turns by one each round; the median over rounds, and the
median of the ratios within a round. `--clock cpu` counts processor time, for a machine that others use too; it takes
one thread. Memory: each variant alone in a fresh process; the peak above what the process held before its model was
built, and the parameters' share of it. Memory that was freed does not count, as on a GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from random_model import SIZES, RandomModel, random_pairs

from densedpo.core.progress import set_quiet
from densedpo.core.provenance import provenance
from densedpo.learn.cache import CachedReference
from densedpo.learn.config import LearnConfig
from densedpo.learn.errors import beside_reference, frame_errors
from densedpo.learn.feed.batch import Draws, PairBatch, Source
from densedpo.learn.feed.inputs import LabelledPair
from densedpo.learn.feed.order import TimeDensity
from densedpo.learn.memory import pairs_in_fill, recompute_activations
from densedpo.learn.objectives import dense_dpo
from densedpo.learn.reference import attach_lora
from densedpo.learn.step import build_optimizer, take_step
from densedpo.learn.task.preference import PreferenceTask

VARIANTS: Final = ("floor", "packed", "apart", "live", "plain")
_M_MMAP_THRESHOLD: Final = -3  # of malloc.h
CLOCKS: Final = {"wall": time.perf_counter, "cpu": time.process_time}
VISITS: Final = 26
DRAWS: Final = (1, 4, 16, VISITS)  # K for which the whole run is told


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """How much is measured."""

    size: str
    num_pairs: int
    rounds: int
    device: str
    clock: str = "wall"
    lora_rank: int = 16
    recompute: bool = False  # activations in the backward


class Bench:
    """One variant with its model and its optimizer; `step` runs it once."""

    def __init__(self, variant: str, scale: Scale, pairs: tuple[LabelledPair, ...], folder: Path) -> None:
        self._variant, self._clock = variant, CLOCKS[scale.clock]
        self.config = LearnConfig(
            batch_pairs=scale.num_pairs, draws="fresh" if variant == "live" else 1, lora_rank=scale.lora_rank,
            memory="apart" if variant == "apart" else "packed", device=scale.device,
        )  # fmt: skip
        self._in_fill = pairs_in_fill(self.config, scale.num_pairs, num_processes=1)
        self.model = RandomModel(SIZES[scale.size], device=scale.device)
        if scale.recompute:
            recompute_activations(self.model.denoiser)
        self.parameters = attach_lora(self.model, self.config)
        self._optimizer = build_optimizer(self.parameters, self.config)
        source, density = Source(self.model), TimeDensity.of(self.config)
        self._draws = Draws(noise_seed=0, count=self.config.draws, density=density)
        self._cache = None
        if variant in ("packed", "apart"):
            self._cache = CachedReference(pairs, self._draws, folder)
            self._cache.fill(self.model, source, 1, poll=lambda: None, in_forward=self._in_fill)
        self._task = PreferenceTask(self.model, source, pairs, self._draws, self.config, self._cache)
        self._source, self._pairs, self._number, self._folder = source, pairs, 0, folder
        self._reference = RandomModel(SIZES[scale.size], device=scale.device) if variant == "plain" else None

    def step(self) -> float:
        """Seconds of one whole step."""
        self._number += 1
        return self._timed(self._step)

    def _timed(self, call: Callable[[], object]) -> float:
        settle(self.config.device)
        started = self._clock()
        call()
        settle(self.config.device)
        return self._clock() - started

    def _step(self) -> None:
        if self._variant == "floor":
            self._by_hand(self._floor)
        elif self._variant == "plain":
            self._by_hand(self._plain)
        else:
            take_step(
                self._task, self._optimizer, self.config, step=self._number, update=self._number, poll=lambda: None
            )

    def fill(self, number: int) -> float:
        """Seconds of the reference's errors for one draw of the pairs, as a run fills its cache."""
        draws = Draws(noise_seed=number + 1, count=1, density=TimeDensity.of(self.config))
        cache = CachedReference(self._pairs, draws, self._folder / f"fill-{number}")
        return self._timed(lambda: cache.fill(self.model, self._source, 1, poll=lambda: None, in_forward=self._in_fill))

    def _by_hand(self, loss: Callable[[], torch.Tensor]) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        loss().backward()
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.config.clip_norm)
        self._optimizer.step()

    def _batch(self) -> PairBatch:
        return self._source.pairs(self._pairs, self._task.window(self._number)[0], self._draws)

    def _floor(self) -> torch.Tensor:
        return frame_errors(self.model, self._batch().packed()).mean()

    def _plain(self) -> torch.Tensor:
        batch, reference = self._batch(), self._reference
        assert reference is not None
        policy = torch.cat([frame_errors(self.model, clip) for clip in batch.apart()])
        with torch.no_grad():
            known = torch.cat([frame_errors(reference, clip) for clip in batch.apart()])
        errors = beside_reference(policy, known, batch)
        output = dense_dpo(errors, batch.field.to(policy.device), beta=self.config.beta)
        return output.loss.sum() / output.weight.sum()


def settle(device: str) -> None:
    """Waits for what the device still has to do."""
    if device != "cpu":
        torch.cuda.synchronize()


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """Medians over rounds: of each variant its seconds and ratios, and a step of a whole run by its number of draws."""

    variants: dict[str, dict[str, float]]
    fill_s: float
    whole_run: dict[str, dict[str, float]]


def measure_time(scale: Scale, pairs: tuple[LabelledPair, ...], folder: Path) -> Times:
    """The median seconds of a step of each variant, and its ratio to the floor and to the plain script."""
    benches = {variant: Bench(variant, scale, pairs, folder) for variant in VARIANTS}
    for bench in benches.values():
        bench.step()  # to warm up
    rounds = []
    for number in range(scale.rounds):
        turned = VARIANTS[number % len(VARIANTS) :] + VARIANTS[: number % len(VARIANTS)]
        rounds.append({variant: benches[variant].step() for variant in turned})
        rounds[-1]["fill"] = benches["packed"].fill(number)
    for row in rounds:
        row |= {f"run {draws}": row["packed"] + row["fill"] * draws / VISITS for draws in DRAWS}

    def told(name: str) -> dict[str, float]:
        return {
            "seconds": statistics.median(row[name] for row in rounds),
            "times_floor": statistics.median(row[name] / row["floor"] for row in rounds),
            "times_plain": statistics.median(row[name] / row["plain"] for row in rounds),
        }

    return Times(
        variants={variant: told(variant) for variant in VARIANTS},
        fill_s=statistics.median(row["fill"] for row in rounds),
        whole_run={str(draws): told(f"run {draws}") for draws in DRAWS},
    )


def measure_memory(scale: Scale, variant: str, folder: Path) -> dict[str, float]:
    """MB at the peak of two steps of one variant in this process, above what it held before the model was built."""
    return_what_is_freed()
    pairs = random_pairs(folder, SIZES[scale.size], scale.num_pairs)
    before = peak_bytes(scale.device)
    bench = Bench(variant, scale, pairs, folder / "cache")
    models = [bench.model] if bench._reference is None else [bench.model, bench._reference]
    parameters = sum(p.numel() * p.element_size() for model in models for p in model.denoiser.parameters())
    for _ in range(2):
        bench.step()
    return {"peak_mb": (peak_bytes(scale.device) - before) / 1e6, "parameters_mb": parameters / 1e6}


def return_what_is_freed() -> None:
    """Has glibc give each tensor pages of its own, which go back when it is freed.

    By default it keeps them in one heap, whose holes count as held and came to as much again as the tensors.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 64 * 1024)


def peak_bytes(device: str) -> int:
    """The most that was held so far: on the device, or by this process."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    # not ru_maxrss: a process starts with that of the one that started it
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024


def main() -> None:
    """Prints a table and writes results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="10m")
    parser.add_argument("--pairs", type=int, default=4, help="in one forward")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--recompute", action="store_true", help="each block's activations again in the backward")
    parser.add_argument("--quick", action="store_true", help="a toy size and two rounds")
    parser.add_argument("--out", type=Path, default=Path("build/step_cost"))
    parser.add_argument("--memory-of", choices=VARIANTS, help="only this variant's memory, as JSON")
    options = parser.parse_args()
    if options.clock == "cpu" and (options.device != "cpu" or torch.get_num_threads() > 1):
        parser.error("--clock cpu counts the time of all threads: set OMP_NUM_THREADS=1 and leave --device cpu")
    set_quiet(True)
    size, num_pairs, rounds = ("toy", 2, 2) if options.quick else (options.size, options.pairs, options.rounds)
    scale = Scale(
        size=size, num_pairs=num_pairs, rounds=rounds, device=options.device, clock=options.clock,
        recompute=options.recompute,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        if options.memory_of is not None:
            print(json.dumps(measure_memory(scale, options.memory_of, Path(name))))
            return
        pairs = random_pairs(Path(name), SIZES[scale.size], scale.num_pairs)
        times = measure_time(scale, pairs, Path(name) / "cache")
    results = {variant: times.variants[variant] | _memory_in_a_process(variant) for variant in VARIANTS}
    options.out.mkdir(parents=True, exist_ok=True)
    row = {"scale": {"size": scale.size, "pairs": scale.num_pairs, "rounds": scale.rounds, "device": scale.device,
                     "clock": scale.clock, "recompute": scale.recompute},
           "threads": torch.get_num_threads(), "results": results, "fill_of_a_draw_s": times.fill_s,
           "step_of_a_whole_run_by_draws": times.whole_run, "visits": VISITS, "made": provenance()}  # fmt: skip
    (options.out / "results.json").write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
    print("variant   s/step  x floor  x plain  peak MB  of it parameters MB")
    for variant, found in results.items():
        print(
            f"{variant:8} {found['seconds']:7.3f} {found['times_floor']:8.3f} {found['times_plain']:8.3f} "
            f"{found['peak_mb']:8.0f} {found['parameters_mb']:8.0f}"
        )
    print(f"fill of one draw {times.fill_s:.3f} s; a step with its share of the fill, {VISITS} visits to a pair:")
    for draws, found in times.whole_run.items():
        print(f"{draws:>3} draws {found['seconds']:7.3f} {found['times_floor']:8.3f} {found['times_plain']:8.3f}")


def _memory_in_a_process(variant: str) -> dict[str, float]:
    command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", variant]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
