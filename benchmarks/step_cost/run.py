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

Time: every round runs each variant once, in an order that turns by one each round; the median over rounds, and the
median of the ratios within a round. Memory: each variant alone in a fresh process; the peak above what the process held
before its model was built, and the parameters' share of it.
"""

from __future__ import annotations

import argparse
import json
import resource
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

from densedpo.core.provenance import provenance
from densedpo.learn.cache import CachedReference
from densedpo.learn.config import LearnConfig
from densedpo.learn.errors import beside_reference, frame_errors
from densedpo.learn.feed.batch import Draws, PairBatch, Source
from densedpo.learn.feed.inputs import LabelledPair
from densedpo.learn.feed.order import TimeDensity
from densedpo.learn.objectives import dense_dpo
from densedpo.learn.reference import attach_lora
from densedpo.learn.step import build_optimizer, take_step
from densedpo.learn.tasks import PreferenceTask

VARIANTS: Final = ("floor", "packed", "apart", "live", "plain")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """How much is measured."""

    size: str
    num_pairs: int
    rounds: int
    device: str


class Bench:
    """One variant with its model and its optimizer; `step` runs it once."""

    def __init__(self, variant: str, scale: Scale, pairs: tuple[LabelledPair, ...], folder: Path) -> None:
        self._variant = variant
        self.config = LearnConfig(
            batch_pairs=scale.num_pairs, draws="fresh" if variant == "live" else 1, lora_rank=16,
            memory="apart" if variant == "apart" else "packed", device=scale.device,
        )  # fmt: skip
        self.model = RandomModel(SIZES[scale.size], device=scale.device)
        self.parameters = attach_lora(self.model, self.config)
        self._optimizer = build_optimizer(self.parameters, self.config)
        source, density = Source(self.model), TimeDensity.of(self.config)
        self._draws = Draws(noise_seed=0, count=self.config.draws, density=density)
        self._cache = None
        if variant in ("packed", "apart"):
            self._cache = CachedReference(pairs, self._draws, folder)
            self._cache.fill(self.model, source, 1, poll=lambda: None)
        self._task = PreferenceTask(self.model, source, pairs, self._draws, self.config, self._cache)
        self._source, self._pairs, self._number = source, pairs, 0
        self._reference = RandomModel(SIZES[scale.size], device=scale.device) if variant == "plain" else None

    def step(self) -> float:
        """Seconds of one whole step."""
        self._number += 1
        _settle(self.config.device)
        started = time.perf_counter()
        if self._variant == "floor":
            self._by_hand(self._floor)
        elif self._variant == "plain":
            self._by_hand(self._plain)
        else:
            take_step(
                self._task, self._optimizer, self.config, step=self._number, update=self._number, poll=lambda: None
            )
        _settle(self.config.device)
        return time.perf_counter() - started

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


def _settle(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def measure_time(scale: Scale, pairs: tuple[LabelledPair, ...], folder: Path) -> dict[str, dict[str, float]]:
    """The median seconds of a step of each variant, and its ratio to the floor and to the plain script."""
    benches = {variant: Bench(variant, scale, pairs, folder) for variant in VARIANTS}
    for bench in benches.values():
        bench.step()  # to warm up
    rounds = []
    for number in range(scale.rounds):
        turned = VARIANTS[number % len(VARIANTS) :] + VARIANTS[: number % len(VARIANTS)]
        rounds.append({variant: benches[variant].step() for variant in turned})

    def ratio(variant: str, other: str) -> float:
        return statistics.median(row[variant] / row[other] for row in rounds)

    return {
        variant: {
            "seconds": statistics.median(row[variant] for row in rounds),
            "times_floor": ratio(variant, "floor"),
            "times_plain": ratio(variant, "plain"),
        }
        for variant in VARIANTS
    }


def measure_memory(scale: Scale, variant: str, folder: Path) -> dict[str, float]:
    """MB at the peak of two steps of one variant in this process, above what it held before the model was built."""
    pairs = random_pairs(folder, SIZES[scale.size], scale.num_pairs)
    before = _peak(scale.device)
    bench = Bench(variant, scale, pairs, folder / "cache")
    models = [bench.model] if bench._reference is None else [bench.model, bench._reference]
    parameters = sum(p.numel() * p.element_size() for model in models for p in model.denoiser.parameters())
    for _ in range(2):
        bench.step()
    return {"peak_mb": (_peak(scale.device) - before) / 1e6, "parameters_mb": parameters / 1e6}


def _peak(device: str) -> int:
    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Prints a table and writes results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="10m")
    parser.add_argument("--pairs", type=int, default=4, help="in one forward")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="a toy size and two rounds")
    parser.add_argument("--out", type=Path, default=Path("build/step_cost"))
    parser.add_argument("--memory-of", choices=VARIANTS, help="only this variant's memory, as JSON")
    options = parser.parse_args()
    scale = Scale(size=options.size, num_pairs=options.pairs, rounds=options.rounds, device=options.device)
    if options.quick:
        scale = Scale(size="toy", num_pairs=2, rounds=2, device=options.device)
    with tempfile.TemporaryDirectory() as name:
        if options.memory_of is not None:
            print(json.dumps(measure_memory(scale, options.memory_of, Path(name))))
            return
        pairs = random_pairs(Path(name), SIZES[scale.size], scale.num_pairs)
        times = measure_time(scale, pairs, Path(name) / "cache")
    results = {variant: times[variant] | _memory_in_a_process(variant) for variant in VARIANTS}
    options.out.mkdir(parents=True, exist_ok=True)
    row = {"scale": {"size": scale.size, "pairs": scale.num_pairs, "rounds": scale.rounds, "device": scale.device},
           "threads": torch.get_num_threads(), "results": results, "made": provenance()}  # fmt: skip
    (options.out / "results.json").write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
    print("variant   s/step  x floor  x plain  peak MB  of it parameters MB")
    for variant, found in results.items():
        print(
            f"{variant:8} {found['seconds']:7.3f} {found['times_floor']:8.3f} {found['times_plain']:8.3f} "
            f"{found['peak_mb']:8.0f} {found['parameters_mb']:8.0f}"
        )


def _memory_in_a_process(variant: str) -> dict[str, float]:
    command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", variant]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
