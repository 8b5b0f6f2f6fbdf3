"""All weights of the denoiser or chosen ones are trained, in float32; a frozen copy of the start where it must run.

With fixed draws the policy itself fills the reference's cache before the first step, when it still is the reference: no
second copy is ever loaded. With fresh draws the reference runs in every step, and is a copy: on the device, on CPU but
for the block that runs, or cut over the processes as the policy is.
"""

from __future__ import annotations

import logging
import warnings
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import torch

from densedpo.core.errors import BadInput
from densedpo.learn.errors import residuals
from densedpo.learn.reference import trainable

if TYPE_CHECKING:
    from collections.abc import Callable

    from densedpo.adapters.base import VideoModel
    from densedpo.learn.config import LearnConfig
    from densedpo.learn.errors import Residuals
    from densedpo.learn.feed.batch import ClipBatch

_log = logging.getLogger("densedpo")


def train_all(model: VideoModel, config: LearnConfig) -> dict[str, torch.nn.Parameter]:
    """Makes every weight of the denoiser one that moves, or those that the config chooses.

    Returns:
        The parameters by name, float32.

    Raises:
        BadInput: a pattern of `trainable` matches no weight.
        ValueError: a weight is not float32, in which small updates would be lost.
    """
    compute_in(model.denoiser, config)
    model.denoiser.requires_grad_(config.trainable is None)
    for pattern in config.trainable or ():
        chosen = [each for name, each in model.denoiser.named_parameters() if fnmatchcase(name, pattern)]
        if not chosen:
            raise BadInput(
                f"trainable: no weight of the denoiser matches {pattern!r}; its weights have names such as "
                f"{next(name for name, _ in model.denoiser.named_parameters())}"
            )
        for parameter in chosen:
            parameter.requires_grad_(True)
    parameters = trainable(model.denoiser)
    coarse = [name for name, parameter in parameters.items() if parameter.dtype != torch.float32]
    if coarse:
        raise ValueError(f"{len(coarse)} weights are not float32, {coarse[0]} among them: load the model in float32")
    return parameters


def compute_in(denoiser: torch.nn.Module, config: LearnConfig) -> None:
    """Has the denoiser's matrix products made in the configured precision from float32 weights (torch.autocast)."""
    if config.precision == "float32":
        return
    # norms take bfloat16 inputs beside float32 weights on purpose, which torch warns of once
    warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
    products = torch.autocast(torch.device(config.device).type, dtype=torch.bfloat16)
    denoiser.forward = products(denoiser.forward)


class BeforeTraining:
    """The policy as its own reference: before the first step they are one model."""

    is_live = False

    def __init__(self, model: VideoModel) -> None:
        """Args: `model` has the weights that training starts from."""
        self._model = model

    def residuals(self, batch: ClipBatch) -> Residuals:
        """See `Reference`."""
        with torch.no_grad():
            return residuals(self._model, batch)


class FrozenCopy:
    """A second model with the weights that training started from, loaded when it first has to run."""

    is_live = True

    def __init__(self, load: Callable[[], VideoModel]) -> None:
        """Args: `load` gives the copy, ready to run."""
        self._load = load
        self._model: VideoModel | None = None

    def residuals(self, batch: ClipBatch) -> Residuals:
        """See `Reference`."""
        if self._model is None:
            _log.info("a frozen copy of the model is loaded: it is the reference of every forward")
            self._model = self._load()
            self._model.denoiser.requires_grad_(False)
        with torch.no_grad():
            return residuals(self._model, batch)


def offload_blocks(denoiser: torch.nn.Module, device: torch.device) -> None:
    """Keeps a denoiser's weights on CPU and brings each block to the device for as long as it runs.

    Raises:
        BadInput: the denoiser cannot.
    """
    from diffusers import ModelMixin

    if not isinstance(denoiser, ModelMixin) or not denoiser._supports_group_offloading:
        raise BadInput(f"reference_copy = 'cpu': the blocks of a {type(denoiser).__name__} cannot be kept on CPU")
    denoiser.enable_group_offload(onload_device=device, offload_type="block_level", num_blocks_per_group=1)
