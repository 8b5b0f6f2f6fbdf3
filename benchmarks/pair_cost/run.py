"""What making a pair costs above the denoiser's own forwards, and what the autoencoder adds, apart.

    python benchmarks/pair_cost/run.py                 # the shipped model, a minute or two
    python benchmarks/pair_cost/run.py --quick         # the machinery only
    python benchmarks/pair_cost/run.py --stage 32      # also `generate` as a whole: videos apart against here
    python benchmarks/pair_cost/run.py --model FOLDER  # any model, on the CPU

Guided pairs of random latents, all with the same eta, so that every forward has the same shape. Each round makes the
pairs as `generate guided` does (start, schedule, sampler with guidance) and then runs as many forwards of that shape
with nothing around them; the ratio is the median over rounds. `encode`, `decode` and `video` (H.264) are of both clips
of a pair, each by itself. `--clock cpu` counts processor time, for a machine that others use too; it takes one thread.

`--stage N` makes N independent pairs with all that `generate` does, by turns with the videos written in the same
process and by one beside it, and tells the ratio of the two. It counts wall time, so it says something only on a quiet
machine with processors for both.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from densedpo.adapters import load
from densedpo.adapters.base import TextCondition, VideoModel
from densedpo.core import seeds
from densedpo.core.media import write_pair_mp4
from densedpo.core.paths import noised
from densedpo.core.progress import set_quiet
from densedpo.core.provenance import provenance
from densedpo.core.records import Prompt, write_jsonl
from densedpo.core.workspace import init_project, write_stamp
from densedpo.generate.config import IndependentConfig
from densedpo.generate.pairs import generate_pairs
from densedpo.generate.plan import pixel_scale, plan_independent
from densedpo.generate.sampler import guided_sigmas, sample
from densedpo.world.scene import draw_scene


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """How much is measured."""

    num_pairs: int
    num_steps: int
    rounds: int
    eta: float = 0.75
    clock: str = "wall"


@dataclass(frozen=True, kw_only=True, slots=True)
class PairCost:
    """Seconds for one pair, medians over rounds, and how many forwards of the denoiser it takes."""

    forwards: int
    made_s: float
    forwards_s: float
    times_forwards: float
    encode_s: float
    decode_s: float
    video_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class StageCost:
    """Wall seconds for one pair of a whole set, by who writes the videos; the ratio is the median over rounds."""

    num_pairs: int
    here_s: float
    apart_s: float
    apart_times_here: float


CLOCKS: Final = {"wall": time.perf_counter, "cpu": time.process_time}


def measure(model: VideoModel, scale: Scale) -> PairCost:
    """Times the making of pairs, the bare forwards and the autoencoder, in turn."""
    text, null = model.encode_text(["a red circle moves"] * (2 * scale.num_pairs)), model.encode_text([""])
    sigmas = guided_sigmas(model.sigmas(scale.num_steps).cpu(), scale.eta)
    calls = _calls(model, lambda: _make(model, scale, sigmas, text, null))
    made, bare, encode, decode, video = [], [], [], [], []
    latents = _make(model, scale, sigmas, text, null)  # to warm up
    frames = model.decode_latents(latents[:2])
    fps, clock = model.geometry.fps, CLOCKS[scale.clock]
    enlarged = pixel_scale(model.geometry)

    def seconds(call: Callable[[], object]) -> float:
        started = clock()
        call()
        return clock() - started

    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "pair.mp4"
        for _ in range(scale.rounds):
            made.append(seconds(lambda: _make(model, scale, sigmas, text, null)))
            bare.append(seconds(lambda: _forwards(model, calls)))
            decode.append(seconds(lambda: model.decode_latents(latents[:2])))
            encode.append(seconds(lambda: model.encode_video(frames)))
            video.append(seconds(lambda: write_pair_mp4(file, frames[0], frames[1], fps=fps, pixel_scale=enlarged)))
    return PairCost(
        forwards=len(calls),
        made_s=statistics.median(made) / scale.num_pairs,
        forwards_s=statistics.median(bare) / scale.num_pairs,
        times_forwards=statistics.median(one / other for one, other in zip(made, bare, strict=True)),
        encode_s=statistics.median(encode),
        decode_s=statistics.median(decode),
        video_s=statistics.median(video),
    )


def measure_stage(name: str, num_pairs: int, rounds: int) -> StageCost:
    """Times `generate independent` as a whole, the two ways by turns, in a project of its own."""
    found: dict[str, list[float]] = {"here": [], "apart": []}
    set_quiet(True)
    with tempfile.TemporaryDirectory() as folder:
        project = init_project(Path(folder) / "project")
        project.clips.mkdir()
        captions = [draw_scene(index, split="train").caption for index in range(num_pairs)]
        write_jsonl(
            project.clips / "prompts.jsonl",
            [Prompt(id=f"p{i}", caption=caption, split="train") for i, caption in enumerate(captions)],
        )
        write_jsonl(project.clips / "clips.jsonl", [])
        write_stamp(project.clips, [], project)
        for number in range(rounds):
            for decode in ("here", "apart") if number % 2 == 0 else ("apart", "here"):
                config = IndependentConfig.model_validate({"num_pairs": num_pairs, "decode": decode})
                plan = plan_independent(project, f"{decode}{number}", model=name, config=config)
                started = time.perf_counter()
                generate_pairs(plan)
                found[decode].append((time.perf_counter() - started) / num_pairs)
    return StageCost(
        num_pairs=num_pairs,
        here_s=statistics.median(found["here"]),
        apart_s=statistics.median(found["apart"]),
        apart_times_here=statistics.median(a / h for a, h in zip(found["apart"], found["here"], strict=True)),
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


def main() -> None:
    """Prints a line and writes results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--pairs", type=int, default=4, help="made together")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--stage", type=int, default=0, metavar="N", help="also make N pairs as `generate` does")
    parser.add_argument("--quick", action="store_true", help="one pair, three steps, one round")
    parser.add_argument("--out", type=Path, default=Path("build/pair_cost"))
    options = parser.parse_args()
    if options.clock == "cpu" and torch.get_num_threads() > 1:
        parser.error("--clock cpu counts the time of all threads: set OMP_NUM_THREADS=1")
    model = load(options.model)
    num_pairs, num_steps, rounds = options.pairs, model.defaults.num_steps, options.rounds
    if options.quick:
        num_pairs, num_steps, rounds = 1, 3, 1
    scale = Scale(num_pairs=num_pairs, num_steps=num_steps, rounds=rounds, clock=options.clock)
    cost = measure(model, scale)
    stage = measure_stage(options.model, options.stage, options.rounds) if options.stage else None
    options.out.mkdir(parents=True, exist_ok=True)
    row = {
        "model": options.model,
        "scale": {"pairs": scale.num_pairs, "steps": scale.num_steps, "rounds": scale.rounds, "eta": scale.eta,
                  "clock": scale.clock},
        "threads": torch.get_num_threads(),
        "seconds_for_a_pair": {
            "made": cost.made_s, "forwards": cost.forwards_s, "encode": cost.encode_s, "decode": cost.decode_s,
            "video": cost.video_s,
        },
        "stage": None if stage is None else dataclasses.asdict(stage),
        "times_forwards": cost.times_forwards,
        "made": provenance(),
    }  # fmt: skip
    (options.out / "results.json").write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
    print(
        f"{cost.forwards} forwards; a pair takes {cost.made_s:.3f} s, {cost.times_forwards:.3f} times its bare "
        f"forwards ({cost.forwards_s:.3f} s); besides, encode {cost.encode_s:.3f} s, decode {cost.decode_s:.3f} s "
        f"and video {cost.video_s:.3f} s"
    )
    if stage is not None:
        print(
            f"{stage.num_pairs} pairs as a whole: {stage.here_s:.3f} s each with videos written in turns, "
            f"{stage.apart_s:.3f} s with a process beside; the ratio is {stage.apart_times_here:.3f}"
        )


if __name__ == "__main__":
    main()
