"""The committed recipe for the shipped reward: about a quarter of an hour on one core.

    python -m densedpo.judge.reward.train --out build/reward

It ranks synthetic faults of clean clips: of the same clip and the same kind of fault, the stronger one scores lower;
what is equally good scores equally. Interrupted, it goes on from the last state. At the end it measures by how much the
scores of equally good segments differ, which is the margin below which two clips tie.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch.nn import functional

from densedpo.adapters.tiny.resumable import Descent, cosine_lr, load_state, save_state
from densedpo.core.seeds import derive_seed, generator, seeded_init
from densedpo.judge.reward.clean import Frames, Source, clean_clip
from densedpo.judge.reward.degrade import KINDS, degrade
from densedpo.judge.reward.network import QualityNetwork, TrainedReward, save_reward
from densedpo.judge.reward.windows import as_input
from densedpo.world.render import NUM_FRAMES as WORLD_FRAMES
from densedpo.world.render import render
from densedpo.world.scene import draw_scene

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

NUM_STEPS: Final = 1500
NUM_GROUPS: Final = 8  # of four clips each in a step
NUM_FRAMES: Final = 8  # a segment of one second of the shipped model
SAVE_EVERY: Final = 100
PEAK_LR: Final = 4e-3
LEAST: Final = 0.1  # strength of the weaker fault
LEAST_GAP: Final = 0.2  # by how much the other is stronger
MARGIN_SHARE: Final = 0.8  # of clean segments that tie with an equal
CLEAN_WEIGHT: Final = 0.05
EQUAL_WEIGHT: Final = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """One clip four times: clean, with a weak and a strong fault of one kind, and an equal of the clean or weak one."""

    clean: Frames
    weak: Frames
    strong: Frames
    equal: Frames
    equals_clean: bool


def training_group(step: int, index: int) -> Group:
    """The group that a step sees at a place; the kinds of fault take turns."""
    rng = generator("reward", step, index)
    source: Source = "world" if rng.random() < 0.5 else "textured"
    kind = KINDS[(step * NUM_GROUPS + index) % len(KINDS)]
    clean = clean_clip(source, rng, NUM_FRAMES)
    low = float(rng.uniform(LEAST, 1 - LEAST_GAP))
    high = float(rng.uniform(low + LEAST_GAP, 1))
    equals_clean = bool(rng.random() < 0.5)
    weak, strong = (degrade(clean, kind, each, generator("reward fault", step, index)) for each in (low, high))
    if equals_clean:
        equal = seen_otherwise(clean, rng)
    else:
        equal = degrade(seen_otherwise(clean, rng), kind, low, generator("reward other fault", step, index))
    return Group(clean=clean, weak=weak, strong=strong, equal=equal, equals_clean=equals_clean)


def seen_otherwise(clip: Frames, rng: np.random.Generator) -> Frames:
    """A clip of the same quality: mirrored, with its colours exchanged, and forwards or backwards in time."""
    if rng.random() < 0.5:
        clip = clip[:, :, ::-1]
    if rng.random() < 0.5:
        clip = clip[:, ::-1]
    if rng.random() < 0.5:
        clip = clip[::-1]
    return np.ascontiguousarray(clip[..., rng.permutation(3)])


def ranking_loss(
    clean: Float[Tensor, "group"],
    weak: Float[Tensor, "group"],
    strong: Float[Tensor, "group"],
    equal: Float[Tensor, "group"],
    equals_clean: Float[Tensor, "group"],
) -> Float[Tensor, ""]:
    """-log sigmoid of what should be above what, the squares of what should be equal, and clean clips near 0.

    Strong faults are also held against the clean clips of all other groups, so that scores mean the same across clips.
    """
    order = functional.softplus(weak - clean) + functional.softplus(strong - weak)
    across = functional.softplus(strong[None, :] - clean[:, None]).mean()
    twin = torch.where(equals_clean, clean, weak)
    return order.mean() + across + EQUAL_WEIGHT * (equal - twin).square().mean() + CLEAN_WEIGHT * clean.square().mean()


def calibrated_margin(network: QualityNetwork, num_pairs: int = 100) -> float:
    """By how much scores of equally good segments differ: the 80th percentile over clean ones.

    Half of them are the same second of one training scene at two places and phases, as the clips of a pair may be; the
    others are two seconds of one textured clip. A smaller difference is a tie; one in five is larger without a fault.
    """
    apart = []
    for index in range(num_pairs):
        rng = generator("reward margin", index)
        scene, other = (draw_scene(int(rng.integers(2**62)), split="train") for _ in range(2))
        moved = replace(scene, offset_x=other.offset_x, offset_y=other.offset_y, phase=other.phase)
        start = int(rng.integers(WORLD_FRAMES - NUM_FRAMES + 1))
        same = [render(each)[start : start + NUM_FRAMES] for each in (scene, moved)]
        textured = clean_clip("textured", rng, 2 * NUM_FRAMES)
        two = np.stack([*same, textured[:NUM_FRAMES], textured[NUM_FRAMES:]])
        with torch.no_grad():
            scores = network(as_input(two)).reshape(2, 2)
        apart += (scores[:, 0] - scores[:, 1]).abs().tolist()
    return float(np.quantile(apart, MARGIN_SHARE))


def build_network(seed: int = 0) -> QualityNetwork:
    """The untrained network."""
    with seeded_init(derive_seed("reward network", seed) % 2**63):
        return QualityNetwork()


def is_hidden(name: str, parameter: torch.nn.Parameter) -> bool:
    """Weights of all layers but the first and the last: what Muon takes."""
    return parameter.ndim > 1 and not name.startswith(("frame.0.", "score."))


def train(out: Path, num_steps: int = NUM_STEPS, *, stop_after: int | None = None) -> None:
    """Runs the recipe into `out/reward.safetensors`, resuming from `out/state.safetensors`.

    Args:
        stop_after: leave after this step, as a cut run would; the schedule stays that of `num_steps`.
    """
    out.mkdir(parents=True, exist_ok=True)
    network = build_network()
    schedule = partial(cosine_lr, num_steps=num_steps, peak=PEAK_LR, num_warmup=40)
    descent = Descent(network, hidden=is_hidden, schedule=schedule)
    tensors, first = load_state(out / "state.safetensors")
    descent.restore(tensors)
    started, right = time.monotonic(), []
    for step in range(first, num_steps):
        groups = [training_group(step, index) for index in range(NUM_GROUPS)]
        clips = np.stack([clip for g in groups for clip in (g.clean, g.weak, g.strong, g.equal)])
        clean, weak, strong, equal = network(as_input(clips)).reshape(NUM_GROUPS, 4).unbind(1)
        equals_clean = torch.tensor([group.equals_clean for group in groups])
        loss = ranking_loss(clean, weak, strong, equal, equals_clean)
        descent.step(loss, step)
        right.append(torch.cat([clean > weak, weak > strong]).float().mean().item())
        if step % 50 == 0:
            pace = (time.monotonic() - started) / (step - first + 1)
            print(f"step {step} loss {loss.item():.3f} order {np.mean(right[-50:]):.3f} {pace:.2f} s/step", flush=True)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 in (num_steps, stop_after):
            save_state(out / "state.safetensors", descent.state(), step=step + 1)
        if step + 1 == stop_after:
            return
    network.eval()
    network.load_state_dict({name: tensor.half().float() for name, tensor in network.state_dict().items()})
    reward = TrainedReward(network=network, margin=calibrated_margin(network), num_steps=num_steps)
    save_reward(reward, out / "reward.safetensors")
    print(f"margin {reward.margin:.4f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=NUM_STEPS)
    arguments = parser.parse_args()
    train(arguments.out, arguments.steps)
