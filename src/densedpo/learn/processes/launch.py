"""How this process was started: alone, or as one of several by torchrun. Importing this imports no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from densedpo.core.errors import BadInput

if TYPE_CHECKING:
    from densedpo.learn.config import LearnConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """The processes that train one run, and which of them this is."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0


def launched() -> World:
    """What torchrun has told this process; a world of one where it was started without."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return World()
    rank, size, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    return World(rank=rank, size=size, local_rank=local_rank)


def require_strategy(config: LearnConfig, world: World) -> None:
    """Refuses a strategy that the processes cannot carry out, in place of falling back to another.

    Raises:
        BadInput: several processes where one is asked for, or the reverse, or on one named GPU; a forward too small to
            be shared out.
    """
    if config.strategy == "single" and world.size > 1:
        raise BadInput(f"strategy = 'single' and {world.size} processes: start densedpo without torchrun")
    if config.strategy in ("data_parallel", "fully_shard") and world.size == 1:
        raise BadInput(
            f"strategy = {config.strategy!r} and one process: start several by `torchrun --nproc-per-node N -m "
            "densedpo.cli.main learn ...`"
        )
    if config.device.startswith("cuda:") and world.size > 1:
        raise BadInput(
            f"device = {config.device!r} and {world.size} processes: set device = 'cuda', and each takes a GPU of its "
            "own"
        )
    if config.batch_pairs < world.size:
        raise BadInput(
            f"batch_pairs = {config.batch_pairs} cannot be shared out to {world.size} processes; set it to "
            f"{world.size} or more"
        )


def stated(config: LearnConfig, world: World) -> str:
    """The strategy in words."""
    device = config.device.split(":")[0]
    if world.size == 1:
        return f"single process {config.device}"
    strategy = "fully sharded" if config.strategy == "fully_shard" else "data parallel"
    return f"{strategy} over {world.size} processes, {backend_for(config)}, {device}"


def backend_for(config: LearnConfig) -> str:
    """Of torch.distributed: what a device can speak."""
    return "nccl" if config.device.startswith("cuda") else "gloo"
