"""The policy is a LoRA on the denoiser, the reference is the same denoiser with the LoRA switched off."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer

from densedpo.core.errors import BadInput
from densedpo.core.seeds import derive_seed, seeded_init
from densedpo.learn.errors import pair_errors, residuals, squared_errors
from densedpo.learn.objectives import dense_dpo

if TYPE_CHECKING:
    from densedpo.adapters.base import VideoModel
    from densedpo.learn.config import LearnConfig
    from densedpo.learn.errors import FrameErrors, Residuals
    from densedpo.learn.feed.batch import ClipBatch, PairBatch

LOG_2_TOLERANCE: Final = 1e-6


class Reference(Protocol):
    """The model as it was before the first step: what the policy is measured against."""

    is_live: bool
    """Whether its residuals can be asked for after the first step; else only what a cache holds is known."""

    def residuals(self, batch: ClipBatch) -> Residuals:
        """Its residuals of some clips, without a graph."""


class TakesAdapters(Protocol):
    """What diffusers' models add to a torch module."""

    def add_adapter(self, adapter_config: LoraConfig) -> None:
        """Injects a LoRA and makes it the active one."""


def attach_lora(model: VideoModel, config: LearnConfig) -> dict[str, torch.nn.Parameter]:
    """Puts a fresh LoRA on the denoiser, which then still computes what the base does (B = 0).

    Returns:
        The LoRA's parameters by name, float32; nothing else requires a gradient.

    Raises:
        BadInput: the targets match no layer of the denoiser.
        ValueError: the denoiser carries a LoRA already.
    """
    denoiser = model.denoiser
    if any(isinstance(module, BaseTunerLayer) for module in denoiser.modules()):
        raise ValueError("the denoiser carries an adapter already: load the model afresh for each run")
    targets = list(config.lora_targets or model.lora_targets)
    names = [name for name, _ in denoiser.named_modules()]
    missing = [target for target in targets if not any(n == target or n.endswith(f".{target}") for n in names)]
    if missing:
        raise BadInput(f"lora_targets: no layer of the denoiser is called {', '.join(missing)}")
    denoiser.requires_grad_(False)
    with seeded_init(derive_seed(config.seed, "lora")):
        _add_adapter(denoiser, LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=targets))
    for parameter in denoiser.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return trainable(denoiser)


def trainable(denoiser: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that a run moves, by name: those of the adapter."""
    return {name: parameter for name, parameter in denoiser.named_parameters() if parameter.requires_grad}


def _add_adapter(denoiser: TakesAdapters | torch.nn.Module, lora: LoraConfig) -> None:
    from diffusers.loaders import PeftAdapterMixin

    if not isinstance(denoiser, PeftAdapterMixin):
        raise BadInput(f"a {type(denoiser).__name__} takes no adapters")
    denoiser.add_adapter(lora)


@contextmanager
def adapters_off(denoiser: torch.nn.Module) -> Iterator[None]:
    """The base model inside the block, bit for bit: the adapters' layers are left out, not multiplied by 0."""
    layers = [module for module in denoiser.modules() if isinstance(module, BaseTunerLayer)]
    if not layers:
        raise ValueError("there is no adapter to switch off: what remained would be the policy, not the reference")
    requires_grad = [(parameter, parameter.requires_grad) for layer in layers for parameter in layer.parameters()]

    def switch(*, enabled: bool) -> None:
        for layer in layers:
            layer.enable_adapters(enabled=enabled)
        # either way sets the gradient flags anew, which fully_shard reads once, in the first forward
        for parameter, flag in requires_grad:
            parameter.requires_grad_(flag)

    switch(enabled=False)
    try:
        yield
    finally:
        switch(enabled=True)


class AdapterOff:
    """The reference of a LoRA: the same denoiser without it."""

    is_live = True

    def __init__(self, model: VideoModel) -> None:
        """Args: `model` carries the adapter."""
        self._model = model

    def residuals(self, batch: ClipBatch) -> Residuals:
        """See `Reference`."""
        return live_residuals(self._model, batch)


def live_reference(model: VideoModel, batch: PairBatch) -> FrameErrors:
    """The reference's errors of both clips, computed now: all a, then all b."""
    packed = batch.packed()
    return squared_errors(live_residuals(model, packed), packed)


def live_residuals(model: VideoModel, batch: ClipBatch) -> Residuals:
    """The reference's residuals of some clips, computed now."""
    with torch.no_grad(), adapters_off(model.denoiser):
        return residuals(model, batch)


def require_reference(
    model: VideoModel, batch: PairBatch, config: LearnConfig, reference: Reference | None = None
) -> float:
    """Refuses to train where policy and reference differ before the first step.

    Args:
        reference: by default the model with its adapter switched off.

    Returns:
        The live loss over the weight, log 2 to 1e-6.

    Raises:
        BadInput: the loss is not log 2: the adapter is not fresh, or cannot be switched off.
    """
    packed = batch.packed()
    known = squared_errors((reference or AdapterOff(model)).residuals(packed), packed)
    with torch.no_grad():
        errors = pair_errors(model, batch, known)
        # every cell labelled, so that the check does not depend on which pairs came first
        output = dense_dpo(errors, torch.ones_like(batch.field).to(errors.valid.device), beta=config.beta)
    loss = float(output.loss.sum() / output.weight.sum())
    if not abs(loss - math.log(2)) <= LOG_2_TOLERANCE:
        raise BadInput(
            f"the loss before the first step is {loss:.8f}, not log 2: before it the policy must equal the "
            "reference; this model's adapter is not fresh or cannot be switched off, or its weights are not the base's"
        )
    return loss


class ReferenceWatch:
    """Tells whether the reference moved while the policy was trained."""

    def __init__(self, reference: Reference, batch: PairBatch) -> None:
        """Remembers the reference's errors on a batch, where it can still be asked at the end."""
        self._reference, self._batch = reference, batch
        self._before = self._now()

    def require_unmoved(self) -> None:
        """Raises RuntimeError if the same batch now has other errors: base weights were trained."""
        before, now = self._before, self._now()
        if before is not None and now is not None and not torch.equal(before, now):
            raise RuntimeError("the reference changed during training: a base weight was updated")

    def _now(self) -> FrameErrors | None:
        if not self._reference.is_live:
            return None
        packed = self._batch.packed()
        return squared_errors(self._reference.residuals(packed), packed)
