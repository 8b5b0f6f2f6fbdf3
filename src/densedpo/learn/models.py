"""The models of a run: the one that moves, with an adapter or all its weights, and the copy that stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from densedpo.adapters import catalogue
from densedpo.adapters.trained import load_trained
from densedpo.learn.execution import use_attention
from densedpo.learn.full import compute_in, offload_blocks, train_all
from densedpo.learn.memory import recompute_activations
from densedpo.learn.processes.shard import shard
from densedpo.learn.reference import attach_lora

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from densedpo.adapters.base import VideoModel
    from densedpo.learn.config import LearnConfig
    from densedpo.learn.processes.team import Team
    from densedpo.learn.run import RunInputs

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_model(inputs: RunInputs, *, captions: Path | None = None) -> tuple[VideoModel, dict[str, torch.nn.Parameter]]:
    """The run's model, with a fresh adapter or as it is, and the parameters that move by name.

    Args:
        captions: where embeddings of captions are kept; those of the run are then there before the first step.
    """
    config = inputs.config
    pairs = (*inputs.splits.train, *inputs.splits.validation, *inputs.splits.left_out)
    ahead = [pair.caption for pair in pairs] + [clip.caption for clip in inputs.clips]
    model = load_base(inputs.model, config, captions=captions, ahead=ahead, start=inputs.start)
    return model, train_all(model, config) if config.train == "full" else attach_lora(model, config)


def load_base(
    name: str, config: LearnConfig, *, captions: Path | None, ahead: Sequence[str], start: Path | None = None
) -> VideoModel:
    """A model as a run's settings want it to compute, before anything is put on it that moves.

    Args:
        captions: where embeddings of captions are kept.
        ahead: captions that are encoded before the denoiser is loaded.
        start: the weights of another run, which the run starts from.
    """
    dtype = torch.float32 if config.train == "full" else _DTYPES[config.precision]
    model = catalogue.load(name, device=config.device, dtype=dtype, captions=captions)
    model.encode_ahead(list(ahead))
    if start is not None:
        load_trained(model, start)
    if config.checkpoint_activations:
        recompute_activations(model.denoiser)
    if config.attention is not None:
        use_attention(model.denoiser, config.attention)
    return model


def load_copy(inputs: RunInputs, team: Team) -> VideoModel:
    """The model as it was, for a run that trains all weights and needs the reference in its steps."""
    config = inputs.config
    model = catalogue.load(inputs.model, device=config.device, dtype=torch.float32)
    if inputs.start is not None:
        load_trained(model, inputs.start)
    compute_in(model.denoiser, config)
    if config.attention is not None:
        use_attention(model.denoiser, config.attention)
    if team.is_sharded:
        shard(model.denoiser)
    elif config.reference_copy == "cpu":
        offload_blocks(model.denoiser, torch.device(config.device))
    return model
