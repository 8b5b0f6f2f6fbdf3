"""How the denoiser runs: compiled blocks, the attention kernel, and what is in force, read back from the model."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from densedpo.core.errors import BadInput
from densedpo.learn.course import InForce

if TYPE_CHECKING:
    from collections.abc import Mapping

    from densedpo.learn.config import LearnConfig

_log = logging.getLogger("densedpo")


def blocks_of(denoiser: torch.nn.Module, setting: str) -> list[torch.nn.Module]:
    """The blocks that a denoiser repeats, by what its class says of itself.

    Args:
        setting: what needs to know, for the message.

    Raises:
        BadInput: its class does not say.
    """
    from diffusers import ModelMixin

    names: list[str] = []
    if isinstance(denoiser, ModelMixin):
        names = list(denoiser._repeated_blocks or denoiser._no_split_modules or ())
    blocks = [module for module in denoiser.modules() if type(module).__name__ in names]
    if not blocks:
        raise BadInput(f"{setting}: a {type(denoiser).__name__} does not say what its blocks are")
    return blocks


def compile_blocks(denoiser: torch.nn.Module, *, backend: str = "inductor") -> int:
    """Has every block compiled in its first forward; returns how many there are. Before they are cut up.

    One compiled block serves all that are alike, so this takes a fraction of compiling the whole, and state keeps its
    names.
    """
    blocks = blocks_of(denoiser, "compile_blocks")
    for block in blocks:
        block.compile(backend=backend)
    names = ", ".join(sorted({type(block).__name__ for block in blocks}))
    _log.info(
        "compiled by torch.compile (%s): %d blocks (%s); the rest of the model is not", backend, len(blocks), names
    )
    return len(blocks)


def use_attention(denoiser: torch.nn.Module, name: str) -> None:
    """Selects the kernel of every attention layer by its name in diffusers, such as `native`, `flash` or `sage`.

    Raises:
        BadInput: the name is unknown, its package is not here, it would be fetched, or a layer cannot change.
    """
    from diffusers import ModelMixin

    if name.endswith("_hub"):
        raise BadInput(f"attention = {name!r} would be downloaded, and nothing is: install the kernel and name it")
    if not isinstance(denoiser, ModelMixin):
        raise BadInput(f"attention: a {type(denoiser).__name__} does not let its attention be chosen")
    try:
        denoiser.set_attention_backend(name)
    except (ValueError, RuntimeError, ImportError) as error:
        raise BadInput(f"attention = {name!r}: {str(error).splitlines()[0]}") from None
    found = attention_of(denoiser)
    if found != name:
        raise BadInput(f"attention = {name!r}: a {type(denoiser).__name__} does not let all its attention be chosen")


def attention_of(denoiser: torch.nn.Module) -> str:
    """The kernel that every attention layer was told to use; `default` where none was, `mixed` where they differ."""
    from diffusers.models.attention import AttentionModuleMixin
    from diffusers.models.attention_processor import Attention

    layers = [module for module in denoiser.modules() if isinstance(module, Attention | AttentionModuleMixin)]
    told = {vars(layer.processor).get("_attention_backend") for layer in layers}
    names = {"default" if kernel is None else str(kernel.value) for kernel in told}
    return names.pop() if len(names) == 1 else "mixed"


@contextmanager
def watching_products(denoiser: torch.nn.Module, config: LearnConfig) -> Iterator[None]:
    """Refuses forwards inside the block whose matrix products are of another precision than the configured one.

    Raises:
        RuntimeError: they were, or nothing ran.
    """
    wanted = {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.precision]
    seen: set[torch.dtype] = set()
    # the last one is behind all blocks, and no family keeps it in float32
    linear = [module for module in denoiser.modules() if isinstance(module, torch.nn.Linear)][-1]
    handle = linear.register_forward_hook(lambda module, args, output: seen.add(output.dtype))  # noqa: ARG005
    try:
        yield
    finally:
        handle.remove()
    if seen != {wanted}:
        raise RuntimeError(f"precision = {config.precision!r} was asked for, and products are {seen or 'not made'}")


def read_back(
    denoiser: torch.nn.Module, parameters: Mapping[str, torch.nn.Parameter], config: LearnConfig, *, compiled: int
) -> InForce:
    """What a run trains and how, as the model says; the precision of products has been watched before."""
    from diffusers import ModelMixin

    from densedpo.adapters.sparse_causal import sparse_causal_of

    recomputes = isinstance(denoiser, ModelMixin) and denoiser.is_gradient_checkpointing
    if recomputes != config.checkpoint_activations:
        raise RuntimeError(
            f"checkpoint_activations = {config.checkpoint_activations} was asked for, and is not in force"
        )
    frozen = [parameter for parameter in denoiser.parameters() if not parameter.requires_grad]
    pattern = sparse_causal_of(denoiser)
    return InForce(
        trained=f"{config.train}, {sum(parameter.numel() for parameter in parameters.values()):,} numbers",
        trained_weights=_dtypes(parameters.values()),
        frozen_weights=_dtypes(frozen),
        products=config.precision,
        recomputes_activations=recomputes,
        compiled_blocks=compiled,
        attention=attention_of(denoiser) + ("" if pattern == "full" else f", sparse-causal by {pattern}"),
    )


def _dtypes(tensors: Iterable[torch.Tensor]) -> str:
    return ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors})) or "none"
