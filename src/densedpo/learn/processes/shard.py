"""Parameters cut over the processes (FSDP2): each keeps its part of a block, and has it whole while it runs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from densedpo.learn.execution import blocks_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from densedpo.learn.processes.team import Team


def shard(denoiser: torch.nn.Module) -> None:
    """Cuts every block of the denoiser, then what is left, over all processes; the adapter is on it already.

    Raises:
        BadInput: the denoiser does not say what its blocks are.
        RuntimeError: a parameter is still whole, so that the strategy would be another than the one asked for.
    """
    for block in blocks_of(denoiser, "strategy = 'fully_shard'"):
        fully_shard(block)
    # by default what is left stays whole after a forward, and the next one would not see weights put in place since
    fully_shard(denoiser, reshard_after_forward=True)
    whole_ones = [name for name, parameter in denoiser.named_parameters() if not isinstance(parameter, DTensor)]
    if whole_ones:
        raise RuntimeError(f"fully_shard left {len(whole_ones)} parameters whole, {whole_ones[0]} among them")


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, put together from all processes where it is cut: then each of them must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own(tensor: Tensor) -> Tensor:
    """What of a tensor lies on this process, to be written into."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, pattern: Tensor) -> Tensor:
    """A whole tensor cut as another is, if that one is; one that is cut already is taken as it is."""
    if isinstance(tensor, DTensor) or not isinstance(pattern, DTensor) or tensor.ndim == 0:
        return tensor
    return distribute_tensor(tensor.to(pattern.device), pattern.device_mesh, pattern.placements)


def whole_on_first(tensors: Mapping[str, Tensor], team: Team) -> dict[str, Tensor]:
    """Whole tensors on the CPU of the first process, one put together after the other; nothing on the others."""
    found = {}
    for name, tensor in tensors.items():
        put_together = whole(tensor.detach())
        if team.is_first:
            found[name] = put_together.to("cpu", copy=True)  # it may be a view of more
    return found


@contextmanager
def made_whole(denoiser: torch.nn.Module, names: Mapping[str, torch.nn.Parameter]) -> Iterator[None]:
    """Whole tensors in the place of some parameters inside the block, to be saved; it cannot run there."""
    cut = {name: parameter for name, parameter in names.items() if isinstance(parameter, DTensor)}

    def put(name: str, parameter: torch.nn.Parameter) -> None:
        owner, _, last = name.rpartition(".")
        denoiser.get_submodule(owner).register_parameter(last, parameter)

    for name, parameter in cut.items():
        put(name, torch.nn.Parameter(whole(parameter.detach()), requires_grad=False))
    try:
        yield
    finally:
        for name, parameter in cut.items():
            put(name, parameter)
