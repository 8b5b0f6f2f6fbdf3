"""The shipped video-quality network: a few convolutions per frame and over time, and the file that it lies in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from densedpo.core.errors import BadInput

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

WIDTHS: Final = (24, 48, 64, 96)
HIDDEN: Final = 128
MIN_FRAMES: Final = 3


class QualityNetwork(nn.Module):
    """Scores a segment: about 0 for a clean one, lower the worse it is.

    A frame is seen with its change from the frame before and to the frame after, so the first and the last frame of a
    segment are neighbours only. Frames' features pass a convolution over time; the score is read from their mean and
    their extremes, so a segment may have any number of frames from three, and any size from 16x16.
    """

    def __init__(self) -> None:
        super().__init__()
        # 4 pixels x 3 colours, and two changes x 3 colours at half the size
        sizes = (18, *WIDTHS)
        self.frame = nn.ModuleList(
            nn.Conv2d(inside, outside, 3, stride=1 if i == 0 else 2, padding=1)
            for i, (inside, outside) in enumerate(pairwise(sizes))
        )
        self.time = nn.Conv1d(2 * WIDTHS[-1], HIDDEN, 3, padding=1)
        self.norm = nn.LayerNorm(3 * HIDDEN)
        self.mix = nn.Linear(3 * HIDDEN, HIDDEN)
        self.score = nn.Linear(HIDDEN, 1)

    def forward(self, frames: Float[Tensor, "batch frame 3 row column"]) -> Float[Tensor, "batch"]:
        """Scores of segments whose colours are in [0, 1]."""
        x = frames - 0.5
        size, length = x.shape[:2]
        fine = functional.pixel_unshuffle(x[:, 1:-1].flatten(0, 1), 2)
        change = functional.avg_pool2d((x[:, 1:] - x[:, :-1]).flatten(0, 1), 2)
        change = change.reshape(size, length - 1, *change.shape[1:])
        before, after = change[:, :-1].flatten(0, 1), change[:, 1:].flatten(0, 1)
        # changes are small beside colours
        features = torch.cat([fine, 4 * before, 4 * after], dim=1)
        for layer in self.frame:
            features = functional.silu(layer(features))
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1)
        over_time = functional.silu(self.time(pooled.reshape(size, length - 2, -1).transpose(1, 2)))
        summary = torch.cat([over_time.mean(2), over_time.amax(2), over_time.amin(2)], dim=1)
        hidden = functional.silu(self.mix(self.norm(summary)))
        result: Tensor = self.score(hidden)[:, 0]
        return result


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedReward:
    """A network with what was found out about it: `margin` is the difference of scores below which two clips tie."""

    network: QualityNetwork
    margin: float
    num_steps: int


def save_reward(reward: TrainedReward, path: Path) -> None:
    """Writes the weights as float16, with margin and steps in the file's metadata."""
    about = json.dumps({"margin": reward.margin, "num_steps": reward.num_steps})
    tensors = {name: tensor.detach().half().contiguous() for name, tensor in reward.network.state_dict().items()}
    save_file(tensors, path, metadata={"reward": about})


def load_reward(path: Path) -> TrainedReward:
    """Reads what `save_reward` wrote; the network computes in float32.

    Raises:
        BadInput: no such file, or no weights of this network.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file; train one with `python -m densedpo.judge.reward.train --out FOLDER`")
    network = QualityNetwork()
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["reward"])
            network.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})  # noqa: SIM118
        margin, num_steps = float(about["margin"]), int(about["num_steps"])
    except (KeyError, RuntimeError, SafetensorError, ValueError) as error:
        raise BadInput(f"{path}: not the weights of the reward: {str(error).splitlines()[0]}") from None
    return TrainedReward(network=network.eval(), margin=margin, num_steps=num_steps)
