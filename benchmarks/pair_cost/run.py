"""What making a pair costs above the denoiser's own forwards, and what the autoencoder adds, apart.

    python benchmarks/pair_cost/run.py                 # the shipped model, a minute or two
    python benchmarks/pair_cost/run.py --quick         # the machinery only
    python benchmarks/pair_cost/run.py --model FOLDER  # any model, on the CPU

Guided pairs of random latents, all with the same eta, so that every forward has the same shape. Each round makes the
pairs as `generate guided` does (start, schedule, sampler with guidance) and then runs as many forwards of that shape
with nothing around them; the ratio is the median over rounds. `encode` and `decode` are of both clips of a pair.

`generate` runs the autoencoder in the same process as the sampler; nothing overlaps the two yet.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from densedpo.adapters import load
from densedpo.adapters.base import TextCondition, VideoModel
from densedpo.core import seeds
from densedpo.core.paths import noised
from densedpo.core.provenance import provenance
from densedpo.generate.sampler import guided_sigmas, sample


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """How much is measured."""

    num_pairs: int
    num_steps: int
    rounds: int
    eta: float = 0.75


@dataclass(frozen=True, kw_only=True, slots=True)
class PairCost:
    """Seconds for one pair, medians over rounds, and how many forwards of the denoiser it takes."""

    forwards: int
    made_s: float
    forwards_s: float
    times_forwards: float
    encode_s: float
    decode_s: float


def measure(model: VideoModel, scale: Scale) -> PairCost:
    """Times the making of pairs, the bare forwards and the autoencoder, in turn."""
    text, null = model.encode_text(["a red circle moves"] * (2 * scale.num_pairs)), model.encode_text([""])
    sigmas = guided_sigmas(model.sigmas(scale.num_steps).cpu(), scale.eta)
    calls = _calls(model, lambda: _make(model, scale, sigmas, text, null))
    made, bare, encode, decode = [], [], [], []
    latents = _make(model, scale, sigmas, text, null)  # to warm up
    frames = model.decode_latents(latents[:2])
    for _ in range(scale.rounds):
        made.append(_seconds(lambda: _make(model, scale, sigmas, text, null)))
        bare.append(_seconds(lambda: _forwards(model, calls)))
        decode.append(_seconds(lambda: model.decode_latents(latents[:2])))
        encode.append(_seconds(lambda: model.encode_video(frames)))
    return PairCost(
        forwards=len(calls),
        made_s=statistics.median(made) / scale.num_pairs,
        forwards_s=statistics.median(bare) / scale.num_pairs,
        times_forwards=statistics.median(one / other for one, other in zip(made, bare, strict=True)),
        encode_s=statistics.median(encode),
        decode_s=statistics.median(decode),
    )


Call = tuple[torch.Tensor, torch.Tensor, TextCondition]


def _make(
    model: VideoModel, scale: Scale, sigmas: torch.Tensor, text: TextCondition, null: TextCondition
) -> torch.Tensor:
    """Both clips of every pair, from one random real clip each."""
    shape = model.geometry.latent_shape
    clips = torch.stack([seeds.noise(shape, "clip", index // 2) for index in range(2 * scale.num_pairs)])
    eps = torch.stack([seeds.noise(shape, "eps", index) for index in range(2 * scale.num_pairs)])
    start = noised(clips, eps, sigmas[:1].expand(len(clips)))
    return sample(
        model,
        start=start,
        sigmas=sigmas,
        text=text,
        null_text=null,
        guidance_scale=model.defaults.guidance_scale,
    )


def _calls(model: VideoModel, make: Callable[[], torch.Tensor]) -> list[Call]:
    """What the denoiser is asked while pairs are made, in order."""
    seen: list[Call] = []
    predict = type(model).predict

    def recorded(self: VideoModel, x_t: torch.Tensor, t: torch.Tensor, text: TextCondition) -> torch.Tensor:
        seen.append((x_t, t, text))
        return predict(self, x_t, t, text)

    type(model).predict = recorded  # type: ignore[method-assign]
    try:
        make()
    finally:
        type(model).predict = predict  # type: ignore[method-assign]
    return seen


@torch.no_grad()
def _forwards(model: VideoModel, calls: list[Call]) -> None:
    for x_t, t, text in calls:
        model.predict(x_t, t, text)


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    """Prints a line and writes results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--pairs", type=int, default=4, help="made together")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one pair, three steps, one round")
    parser.add_argument("--out", type=Path, default=Path("build/pair_cost"))
    options = parser.parse_args()
    model = load(options.model)
    scale = Scale(num_pairs=options.pairs, num_steps=model.defaults.num_steps, rounds=options.rounds)
    if options.quick:
        scale = Scale(num_pairs=1, num_steps=3, rounds=1)
    cost = measure(model, scale)
    options.out.mkdir(parents=True, exist_ok=True)
    row = {
        "model": options.model,
        "scale": {"pairs": scale.num_pairs, "steps": scale.num_steps, "rounds": scale.rounds, "eta": scale.eta},
        "threads": torch.get_num_threads(),
        "seconds_for_a_pair": {
            "made": cost.made_s, "forwards": cost.forwards_s, "encode": cost.encode_s, "decode": cost.decode_s
        },
        "times_forwards": cost.times_forwards,
        "made": provenance(),
    }  # fmt: skip
    (options.out / "results.json").write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
    print(
        f"{cost.forwards} forwards; a pair takes {cost.made_s:.3f} s, {cost.times_forwards:.3f} times its bare "
        f"forwards ({cost.forwards_s:.3f} s); besides, encode {cost.encode_s:.3f} s and decode {cost.decode_s:.3f} s"
    )


if __name__ == "__main__":
    main()
