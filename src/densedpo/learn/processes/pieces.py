"""Tensors that are cut over processes, written and read piece by piece (torch.distributed.checkpoint) as safetensors.

Each process writes its own pieces and nothing is put together; on reading, each takes what it needs of any file, so
that another number of processes, or one, can go on.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from densedpo.core.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

PIECES: Final = "pieces"


def is_cut(tensor: Tensor) -> bool:
    """Whether a tensor lies in pieces on several processes."""
    return isinstance(tensor, DTensor)


def write_pieces(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes cut tensors; every process must call this.

    Raises:
        BadInput: a process could not write; on all of them.
    """
    writer = HuggingFaceStorageWriter(path=str(folder), save_distributed=True)
    try:
        with _one_may_do_it_alone():
            save(dict(tensors), storage_writer=writer)
    except CheckpointException as error:
        failures = "; ".join(f"process {rank}: {failure[0]}" for rank, failure in error.failures.items())
        raise BadInput(f"cannot write {folder}: {failures}; nothing was lost, free space and rerun") from error


def read_pieces(folder: Path, patterns: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors of a folder, each cut as its pattern is; every process must call this.

    Args:
        patterns: by the part of a tensor's name between the first `/` and the first `|`.
    """
    reader = HuggingFaceStorageReader(path=str(folder))
    found: dict[str, Tensor] = {}
    for name, entry in sorted(reader.read_metadata().state_dict_metadata.items()):
        assert isinstance(entry, TensorStorageMetadata)
        pattern = patterns[pattern_of(name)].detach()
        dtype = entry.properties.dtype
        is_whole = not isinstance(pattern, DTensor)
        found[name] = torch.empty(entry.size, dtype=dtype) if is_whole else torch.empty_like(pattern, dtype=dtype)
    with _one_may_do_it_alone():
        load(found, storage_reader=reader)
    return found


@contextmanager
def _one_may_do_it_alone() -> Iterator[None]:
    """torch warns of a process that is alone; here it is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def pattern_of(name: str) -> str:
    """The parameter that a tensor of a checkpoint belongs to: `optimizer/blocks.0.weight|exp_avg` to its weight."""
    return name.partition("/")[2].partition("|")[0]
