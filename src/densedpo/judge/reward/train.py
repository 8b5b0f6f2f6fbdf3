"""The committed recipe for the shipped reward: about five minutes on one core.

    python -m densedpo.judge.reward.train --out build/reward

It ranks synthetic faults of clean clips: of the same clip and the same kind of fault, the stronger one scores lower;
what is equally good scores equally. Clean clips look a little soft, as an autoencoder gives them back. A fault lies in
all frames or in some, and half of the groups have a fault of another kind in all of their clips, as generated clips do.

Interrupted, it goes on from the last state. At the end it measures by how much the scores of equally good segments
differ, which is the margin below which two clips tie.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from densedpo.adapters.tiny.resumable import Descent, load_state, save_state
from densedpo.core.seeds import derive_seed, generator, seeded_init
from densedpo.judge.reward.clean import Frames, Source, clean_clip
from densedpo.judge.reward.degrade import KINDS, Kind, degrade
from densedpo.judge.reward.network import QualityNetwork, TrainedReward, save_reward
from densedpo.judge.reward.windows import as_input
from densedpo.world.render import NUM_FRAMES as WORLD_FRAMES
from densedpo.world.render import render
from densedpo.world.scene import draw_scene

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

NUM_STEPS: Final = 1200
NUM_WARMUP: Final = 20
NUM_COOLDOWN: Final = 100
NUM_GROUPS: Final = 6  # of three clips each in a step
NUM_FRAMES: Final = 8  # a segment of one second of the shipped model
SAVE_EVERY: Final = 25
PEAK_LR: Final = 4e-3
LEAST: Final = 0.08  # strength of the weaker fault
LEAST_GAP: Final = 0.15  # by how much the other is stronger
PART_SHARE: Final = 0.4  # of groups whose fault is in some frames only
OTHER_FAULT: Final = 0.5  # chance that all clips of a group share a fault of another kind
MARGIN_SHARE: Final = 0.8  # of clean segments that tie with an equal
CLEAN_WEIGHT: Final = 0.05
EQUAL_WEIGHT: Final = 0.5

# a thing's form is a fault only where it is known what forms there are; a bent texture is another texture
FORM_KINDS: Final[tuple[Kind, ...]] = ("deform", "rounded")
# a lost form is most of what an unfinished model gets wrong, so it takes more turns
TURNS: Final[tuple[Kind, ...]] = (*KINDS, "deform", "rounded", "deform", "patch")


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """One clip three times: with a weak and a strong fault of one kind, and either without or an equal of the weak one.

    `is_pristine`: no clip of it has a fault of another kind beside.
    """

    weak: Frames
    strong: Frames
    third: Frames
    third_is_better: bool
    is_pristine: bool


def training_group(step: int, index: int) -> Group:
    """The group that a step sees at a place; the kinds of fault take turns."""
    rng = generator("reward", step, index)
    kind = TURNS[(step * NUM_GROUPS + index) % len(TURNS)]
    source: Source = "world" if kind in FORM_KINDS or rng.random() < 0.7 else "textured"
    low = float(rng.uniform(LEAST, 1 - LEAST_GAP))
    high = float(rng.uniform(low + LEAST_GAP, 1))
    third_is_better, is_pristine = bool(rng.random() < 0.5), bool(rng.random() >= OTHER_FAULT)
    clean = decoded_look(clean_clip(source, rng, NUM_FRAMES), rng)
    if not is_pristine:
        other = KINDS[int(rng.integers(len(KINDS)))]
        clean = degrade(clean, other, float(rng.uniform(0.05, 0.35)), rng)
    frames = faulty_frames(rng)

    def worse(clip: Frames, strength: float, name: str) -> Frames:
        return np.where(frames, degrade(clip, kind, strength, generator(name, step, index)), clip)

    weak, strong = (worse(clean, strength, "reward fault") for strength in (low, high))
    third = clean if third_is_better else worse(seen_otherwise(clean, rng), low, "reward other fault")
    return Group(weak=weak, strong=strong, third=third, third_is_better=third_is_better, is_pristine=is_pristine)


def decoded_look(clip: Frames, rng: np.random.Generator) -> Frames:
    """A clip as an autoencoder may give it back: a little soft, a little grainy; it is no fault."""
    soft = np.stack([cv2.GaussianBlur(frame, (0, 0), rng.uniform(0.2, 1.1)) for frame in clip])
    grain = rng.uniform(0, 2.5) * rng.standard_normal(clip.shape, dtype=np.float32)
    return np.asarray(np.clip(np.rint(soft + grain), 0, 255), dtype=np.uint8)


def faulty_frames(rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which frames a fault is in, [frame, 1, 1, 1]: all, or one run of them."""
    start, stop = 0, NUM_FRAMES
    if rng.random() < PART_SHARE:
        length = int(rng.integers(2, NUM_FRAMES))
        start = int(rng.integers(NUM_FRAMES - length + 1))
        stop = start + length
    index = np.arange(NUM_FRAMES)
    return ((index >= start) & (index < stop))[:, None, None, None]


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
    weak: Float[Tensor, "group"],
    strong: Float[Tensor, "group"],
    third: Float[Tensor, "group"],
    third_is_better: Float[Tensor, "group"],
    is_pristine: Float[Tensor, "group"],
) -> Float[Tensor, ""]:
    """-log sigmoid of what should be above what, the squares of what should be equal, and clean clips near 0.

    Strong faults are also held against the clean clips of all other groups, so that scores mean the same across clips.

    Args:
        third_is_better: 1 where the third clip has no fault, 0 where it is an equal of the weak one.
        is_pristine: 1 where no clip has another fault beside.
    """
    order = functional.softplus(strong - weak) + third_is_better * functional.softplus(weak - third)
    equal = (1 - third_is_better) * (third - weak).square()
    clean = third_is_better * is_pristine
    num_clean = clean.sum().clamp(min=1)
    across = (functional.softplus(strong[None, :] - third[:, None]).mean(1) * clean).sum() / num_clean
    near_0 = (third.square() * clean).sum() / num_clean
    return order.mean() + across + EQUAL_WEIGHT * equal.mean() + CLEAN_WEIGHT * near_0


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
        two = np.stack([decoded_look(clip, rng) for clip in (*same, textured[:NUM_FRAMES], textured[NUM_FRAMES:])])
        with torch.no_grad():
            scores = network(as_input(two)).reshape(2, 2)
        apart += (scores[:, 0] - scores[:, 1]).abs().tolist()
    return float(np.quantile(apart, MARGIN_SHARE))


def build_network(seed: int = 0) -> QualityNetwork:
    """The untrained network."""
    with seeded_init(derive_seed("reward network", seed) % 2**63):
        return QualityNetwork()


def learning_rate(step: int, *, num_steps: int) -> float:
    """Learning rate at a step: a warm-up, a level, and a straight line to 0 over the last steps.

    Up to the last `NUM_COOLDOWN` steps it does not depend on `num_steps`: a state from there fits longer runs.
    """
    return PEAK_LR * min(1.0, (step + 1) / NUM_WARMUP, (num_steps - step) / NUM_COOLDOWN)


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
    descent = Descent(network, hidden=is_hidden, schedule=partial(learning_rate, num_steps=num_steps))
    tensors, first = load_state(out / "state.safetensors")
    descent.restore(tensors)
    started, right = time.monotonic(), []
    for step in range(first, num_steps):
        groups = [training_group(step, index) for index in range(NUM_GROUPS)]
        clips = np.stack([clip for g in groups for clip in (g.weak, g.strong, g.third)])
        weak, strong, third = network(as_input(clips)).reshape(NUM_GROUPS, 3).unbind(1)
        third_is_better = torch.tensor([float(group.third_is_better) for group in groups])
        is_pristine = torch.tensor([float(group.is_pristine) for group in groups])
        loss = ranking_loss(weak, strong, third, third_is_better, is_pristine)
        descent.step(loss, step)
        right.append((weak > strong).float().mean().item())
        if step % 50 == 0:
            pace = (time.monotonic() - started) / (step - first + 1)
            print(f"step {step} loss {loss.item():.3f} order {np.mean(right[-50:]):.3f} {pace:.2f} s/step", flush=True)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 in (num_steps, stop_after):
            save_state(out / "state.safetensors", descent.state(), step=step + 1)
        if step + 1 == stop_after:
            return
    network.eval()
    network.load_state_dict({name: tensor.half().float() for name, tensor in network.state_dict().items()})
    reward = TrainedReward(network=network, margin=calibrated_margin(network), num_steps=num_steps, kinds=KINDS)
    save_reward(reward, out / "reward.safetensors")
    print(f"margin {reward.margin:.4f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=NUM_STEPS)
    arguments = parser.parse_args()
    train(arguments.out, arguments.steps)
