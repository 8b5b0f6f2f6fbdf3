"""The reference of an online run: a second, frozen adapter on the same base, never a second model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Final

import torch
from peft.tuners.lora import LoraLayer

from densedpo.core.seeds import seeded_init
from densedpo.learn.errors import residuals
from densedpo.learn.processes.shard import like

if TYPE_CHECKING:
    from torch import Tensor

    from densedpo.adapters.base import VideoModel
    from densedpo.learn.errors import Residuals
    from densedpo.learn.feed.batch import ClipBatch

POLICY: Final = "default"
REFERENCE: Final = "reference"


class SecondAdapter:
    """A frozen adapter beside the policy's, which computes what the base does until it is refreshed.

    Both go through the same operations, so policy and reference agree bit for bit right after a refresh.
    """

    is_live = True

    def __init__(self, model: VideoModel) -> None:
        """Puts the second adapter on a denoiser that carries the policy's, before the denoiser is cut up."""
        from diffusers.loaders import PeftAdapterMixin

        denoiser = model.denoiser
        assert isinstance(denoiser, PeftAdapterMixin)  # attach_lora has seen to it
        flags = [(parameter, parameter.requires_grad) for parameter in denoiser.parameters()]
        # its first weights are drawn, and then put to 0; two adapters are what peft warns of, and what is wanted
        with seeded_init(0), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
            denoiser.add_adapter(deepcopy(denoiser.peft_config[POLICY]), adapter_name=REFERENCE)
        denoiser.set_adapter(POLICY)
        self._model = model
        self._layers = [module for module in denoiser.modules() if isinstance(module, LoraLayer)]
        for parameter in denoiser.parameters():
            parameter.requires_grad_(False)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        for parameter in self._own().values():
            parameter.data = parameter.data.float()
        self.reset()

    def reset(self) -> None:
        """Makes the reference the base again."""
        with torch.no_grad():
            for parameter in self._own().values():
                parameter.zero_()

    def become(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes the whole weights of an adapter, by the names of the policy's parameters."""
        own = self._own()
        if set(tensors) != set(own):
            raise ValueError("these are not the tensors of this adapter")
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(like(tensors[name], parameter))

    def residuals(self, batch: ClipBatch) -> Residuals:
        """See `Reference`."""
        with torch.no_grad(), self._in_force():
            return residuals(self._model, batch)

    def _own(self) -> dict[str, torch.nn.Parameter]:
        """Its parameters by the policy's names; asked anew each time, since cutting the denoiser replaces them."""
        return {
            name.replace(f".{REFERENCE}.", f".{POLICY}."): parameter
            for name, parameter in self._model.denoiser.named_parameters()
            if f".{REFERENCE}." in name
        }

    @contextmanager
    def _in_force(self) -> Iterator[None]:
        flags = [(p, p.requires_grad) for layer in self._layers for p in layer.parameters()]

        def switch(name: str) -> None:
            for layer in self._layers:
                layer.set_adapter(name)
            # peft makes what it activates trainable
            for parameter, flag in flags:
                parameter.requires_grad_(flag)

        switch(REFERENCE)
        try:
            yield
        finally:
            switch(POLICY)
