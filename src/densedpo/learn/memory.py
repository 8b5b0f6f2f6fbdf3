"""What a step keeps in memory: activations computed again in the backward, and whether both clips fit at once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

import torch

from densedpo.core.errors import BadInput

if TYPE_CHECKING:
    from densedpo.learn.config import LearnConfig

_log = logging.getLogger("densedpo")


class RecomputesActivations(Protocol):
    """What diffusers' models add to a torch module."""

    def enable_gradient_checkpointing(self) -> None:
        """From now on blocks keep only their inputs for the backward."""


def recompute_activations(denoiser: RecomputesActivations | torch.nn.Module) -> None:
    """Switches activation checkpointing on.

    Raises:
        BadInput: the denoiser has none.
    """
    from diffusers import ModelMixin

    if not isinstance(denoiser, ModelMixin) or not denoiser._supports_gradient_checkpointing:
        raise BadInput(f"checkpoint_activations: a {type(denoiser).__name__} cannot compute activations again")
    denoiser.enable_gradient_checkpointing()


def memory_that_fits(config: LearnConfig, packed: Callable[[], None]) -> Literal["packed", "apart"]:
    """What `memory = "auto"` comes to, by trying; without a GPU, where nothing says that memory is short, `packed`.

    Args:
        packed: one forward and backward with both clips packed.
    """
    if config.memory != "auto":
        return config.memory
    if torch.device(config.device).type != "cuda":
        return "packed"
    try:
        packed()
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        _log.warning("both clips of a pair do not fit at once: memory = 'apart', with two forwards more")
        return "apart"
    return "packed"


def pairs_in_fill(config: LearnConfig, in_forward: int, num_processes: int) -> int:
    """How many pairs a forward of the reference takes that fills its cache: as many clips as a forward of a step.

    That one fits, and keeps its activations beside; with `memory = "apart"` it holds one clip of each pair.

    Args:
        in_forward: pairs in a forward of all processes together.
    """
    pairs = in_forward // num_processes
    return max(1, pairs // 2 if config.memory == "apart" else pairs)


def out_of_memory(config: LearnConfig, error: torch.OutOfMemoryError) -> BadInput:
    """The one line for a step or fill that did not fit; it has changed nothing, and what was on disk stands."""
    smaller = [
        name
        for name, is_left in (
            ("memory = 'apart'", config.memory != "apart" and config.objective != "sft"),
            ("checkpoint_activations = true", not config.checkpoint_activations),
            (f"a smaller batch_pairs than {config.batch_pairs} with more accumulation", config.batch_pairs > 1),
        )
        if is_left
    ]
    remedy = " or ".join(smaller) or "a smaller model or a larger GPU"
    return BadInput(f"out of memory: {str(error).splitlines()[0]}; try {remedy}; nothing was lost")
