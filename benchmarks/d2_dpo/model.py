"""A small masked discrete video model: trained by masking places, sampled by filling them in again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch.nn import functional
from videos import CAPTIONS, NUM_COLOURS, NUM_FRAMES, SIDE, STEPS, VOCABULARY, real_clips

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float, Int
    from torch import Generator, Tensor
    from videos import Caption

    Clips = Int[Tensor, "clip frame row column"]
    Masked = Bool[Tensor, "clip frame row column"]

_WIDTH: Final = 32
_LAYERS: Final = 5


class TokenModel(torch.nn.Module):
    """Each place sees its neighbours in space and time, over the edge of the board, and the caption."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(VOCABULARY + 1, _WIDTH)  # the last one is the mask
        self.colour = torch.nn.Embedding(NUM_COLOURS, _WIDTH)
        self.step = torch.nn.Embedding(len(STEPS), _WIDTH)
        self.frame = torch.nn.Embedding(NUM_FRAMES, _WIDTH)
        self.layers = torch.nn.ModuleList(torch.nn.Conv3d(_WIDTH, _WIDTH, 3) for _ in range(_LAYERS))
        self.head = torch.nn.Conv3d(_WIDTH, VOCABULARY, 1)

    def forward(self, seen: Clips, captions: Int[Tensor, " clip"]) -> Float[Tensor, "clip token frame row column"]:
        """Log probabilities of each token at each place."""
        caption = self.colour(captions // len(STEPS)) + self.step(captions % len(STEPS))
        hidden = self.embed(seen) + caption[:, None, None, None] + self.frame.weight[:, None, None]
        hidden = hidden.movedim(-1, 1)
        for layer in self.layers:
            around = functional.pad(hidden, (1, 1, 1, 1, 0, 0), mode="circular")
            hidden = hidden + functional.silu(layer(functional.pad(around, (0, 0, 0, 0, 1, 1))))
        return self.head(hidden).log_softmax(1)

    def clean_logs(self, clips: Clips, masked: Masked, captions: Int[Tensor, " clip"]) -> Float[Tensor, "clip f h w"]:
        """log p(clean token) at each place of clips with some places masked."""
        logs = self(torch.where(masked, VOCABULARY, clips), captions)
        return logs.gather(1, clips[:, None])[:, 0]


def numbers(captions: Sequence[Caption]) -> Int[Tensor, " clip"]:
    """Captions as the model takes them."""
    return torch.tensor([caption.number for caption in captions])


def draw_masks(t: Float[Tensor, " clip"], rng: Generator) -> Masked:
    """Each place is masked with probability t."""
    return torch.rand((len(t), NUM_FRAMES, SIDE, SIDE), generator=rng) < t[:, None, None, None]


def draw_times(count: int, rng: Generator) -> Float[Tensor, " clip"]:
    """Shares of masked places, uniform; not so small that 1/t becomes a matter of one place."""
    return 0.1 + 0.9 * torch.rand(count, generator=rng)


def denoising_loss(model: TokenModel, clips: Clips, captions: Sequence[Caption], rng: Generator) -> Tensor:
    """The bound that masked diffusion trains by: -log p(clean token)/t over masked places."""
    t = draw_times(len(clips), rng)
    masked = draw_masks(t, rng)
    logs = model.clean_logs(clips, masked, numbers(captions))
    return -(torch.where(masked, logs, 0.0) / t[:, None, None, None]).mean()


def pretrained(*, num_steps: int, batch: int, fault_share: float, seed: int) -> TokenModel:
    """A model of real clips, some of which are faulty, and which it so learns to make."""
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = TokenModel()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=num_steps)
    for _ in range(num_steps):
        captions = [CAPTIONS[int(index)] for index in torch.randint(len(CAPTIONS), (batch,), generator=rng)]
        loss = denoising_loss(model, real_clips(captions, fault_share=fault_share, rng=rng), captions, rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model


@torch.no_grad()
def sample(model: TokenModel, captions: Sequence[Caption], *, num_steps: int, seed: int) -> Clips:
    """Clips from all masked: at each of the steps from t to s a masked place is filled with probability (t - s)/t."""
    rng = torch.Generator().manual_seed(seed)
    clips = torch.full((len(captions), NUM_FRAMES, SIDE, SIDE), VOCABULARY)
    for step in range(num_steps, 0, -1):
        logs = model(clips, numbers(captions))
        noise = -torch.log(-torch.log(torch.rand(logs.shape, generator=rng).clamp(1e-9, 1 - 1e-7)))
        fills = torch.rand(clips.shape, generator=rng) < 1 / step
        clips = torch.where((clips == VOCABULARY) & fills, (logs + noise).argmax(1), clips)
    return clips
