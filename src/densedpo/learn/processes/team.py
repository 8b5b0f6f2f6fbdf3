"""Training by several processes: they share out each forward, and agree on gradients, guards and stops.

Every process knows the whole window and its total weight from the labels, reads the same checkpoint, and makes the same
decisions from the same sums; the first one alone writes. What follows from a step is the sum over all pairs, so the
number of processes changes it in the last bits only. Alone, all of this does nothing.
"""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

import torch
from torch import distributed

from densedpo.core.errors import BadInput
from densedpo.learn.objectives import PairMetrics
from densedpo.learn.processes.launch import World, backend_for, stated
from densedpo.learn.task.protocol import Outcome

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from densedpo.learn.config import LearnConfig
    from densedpo.learn.stop import StopFlag

Item = TypeVar("Item")
_METRICS: Final = ("accuracy", "margin", "win_gap", "lose_gap", "loser_dominant", "weight")


class Team:
    """The processes of one run, seen from one of them."""

    def __init__(self, world: World, device: str, strategy: str, *, is_sharded: bool = False) -> None:
        """Nothing is exchanged yet.

        Args:
            device: where tensors must lie to be exchanged.
            strategy: in words, what is in force.
            is_sharded: whether the parameters are cut over the processes, which then sum gradients by themselves.
        """
        self.is_sharded = is_sharded
        # fully_shard takes the mean over the processes where the sum is wanted
        self.gradient_scale = world.size if is_sharded else 1
        self.size = world.size
        self.is_first = world.is_first
        self.strategy = strategy
        self._rank = world.rank
        self._device = device

    def part(self, items: Sequence[Item]) -> tuple[Item, ...]:
        """The consecutive items that fall to this process; the parts differ in length by one at most."""
        return self._part_of(items, self._rank)

    def parts(self, items: Sequence[Item]) -> list[tuple[Item, ...]]:
        """Every process's `part`."""
        return [self._part_of(items, rank) for rank in range(self.size)]

    def share(self, items: Sequence[Item]) -> tuple[Item, ...]:
        """Every n-th item, as many for each process: some have the last one too, so that all make as many calls."""
        padded = [*items, *(items[-1] for _ in range(-len(items) % self.size))]
        return tuple(padded[self._rank :: self.size])

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Replaces the gradients by their sum over all processes, in one exchange."""
        if self.size == 1 or self.is_sharded:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        totals = torch.split(flat, [p.numel() for p in parameters])
        for parameter, total in zip(parameters, totals, strict=True):
            parameter.grad = total.view_as(parameter)

    def gathered(self, outcomes: Sequence[Outcome], window: Sequence[Sequence[Item]]) -> list[Outcome]:
        """The outcomes of whole forwards, from those of every process's part of them, in the window's order."""
        if self.size == 1:
            return list(outcomes)
        lengths = [[len(self._part_of(visits, rank)) for visits in window] for rank in range(self.size)]
        most = max(map(sum, lengths))
        mine = torch.cat([_table(outcome) for outcome in outcomes])
        padded = torch.zeros(most, mine.shape[1], dtype=mine.dtype)
        padded[: len(mine)] = mine
        tables = self._all_gather(padded)
        parts = [torch.split(table[: sum(rows)], rows) for table, rows in zip(tables, lengths, strict=True)]
        has_metrics = outcomes[0].metrics is not None
        return [_outcome(torch.cat(rows), has_metrics=has_metrics) for rows in zip(*parts, strict=True)]

    def poll(self, flag: StopFlag) -> Callable[[], None]:
        """What the work asks at each safe place: all processes stop where one of them was told to.

        Every process must ask as often as the others.
        """
        if self.size == 1:
            return flag.poll

        def ask() -> None:
            told = self.maximum(0 if flag.signal is None else int(flag.signal))
            if told:
                flag.signal = signal.Signals(told)
            flag.poll()

        return ask

    def maximum(self, value: int) -> int:
        """The largest of the processes' values."""
        if self.size == 1:
            return value
        found = torch.tensor([value], device=self._device)
        distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
        return int(found)

    def told(self, text: str) -> str:
        """What the first process says."""
        if self.size == 1:
            return text
        said = [text]
        distributed.broadcast_object_list(said, src=0)
        return said[0]

    def first_does(self, work: Callable[[], None]) -> None:
        """Has the first process do something while the others wait.

        Raises:
            BadInput: it could not, on all processes; they would wait for it else.
        """
        self.each_does(work if self.is_first else lambda: None)

    def each_does(self, work: Callable[[], None]) -> None:
        """Has every process do something of its own, and goes on when all have.

        Raises:
            BadInput: one of them could not, on all processes; they would wait for it else.
        """
        failure: BadInput | None = None
        try:
            work()
        except BadInput as error:
            failure = error
        failed = self.maximum(failure is not None)
        if failure is not None:
            raise failure
        if failed:
            raise BadInput("another process could not go on; it says why")

    def wait(self) -> None:
        """Until every process has come here."""
        if self.size > 1:
            distributed.barrier()

    def require_equal(self, tensors: Mapping[str, Tensor], what: str) -> None:
        """Raises RuntimeError unless all processes hold the same bits."""
        if self.size == 1 or self.is_sharded:
            return
        digest = hashlib.sha256()
        for name, tensor in tensors.items():
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        number = int.from_bytes(digest.digest()[:7], "big")
        found = self._all_gather(torch.tensor([number], dtype=torch.int64))
        if len({int(value) for value in found}) > 1:
            raise RuntimeError(f"{what} differ between the processes: the run would train several models")

    def _part_of(self, items: Sequence[Item], rank: int) -> tuple[Item, ...]:
        return tuple(items[rank * len(items) // self.size : (rank + 1) * len(items) // self.size])

    def _all_gather(self, tensor: Tensor) -> list[Tensor]:
        sent = tensor.to(self._device)
        received = [torch.empty_like(sent) for _ in range(self.size)]
        distributed.all_gather(received, sent)
        return [part.cpu() for part in received]


ALONE: Final = Team(World(), "cpu", "single process")


@contextmanager
def joined(world: World, config: LearnConfig) -> Iterator[Team]:
    """The team of the processes that torchrun started, until the block ends.

    Raises:
        RuntimeError: the strategy in force is not the stated one.
    """
    if world.size == 1:
        yield Team(world, config.device, stated(config, world))
        return
    device = device_of(config, world)
    if device != "cpu":
        torch.cuda.set_device(device)
    distributed.init_process_group(backend_for(config), timeout=timedelta(minutes=config.process_timeout_min))
    try:
        in_force = World(rank=distributed.get_rank(), size=distributed.get_world_size(), local_rank=world.local_rank)
        if in_force != world or distributed.get_backend() != backend_for(config):
            raise RuntimeError(f"{stated(config, world)} was asked for, and {stated(config, in_force)} is in force")
        is_sharded = config.strategy == "fully_shard"
        yield Team(in_force, device, stated(config, in_force), is_sharded=is_sharded)
    finally:
        distributed.destroy_process_group()


def device_of(config: LearnConfig, world: World) -> str:
    """Where a process trains: on several GPUs each has its own."""
    return f"cuda:{world.local_rank}" if world.size > 1 and config.device == "cuda" else config.device


def _table(outcome: Outcome) -> Float[Tensor, "item column"]:
    columns = [outcome.loss, outcome.weight, outcome.t]
    if outcome.metrics is not None:
        metrics = outcome.metrics
        columns += [metrics.accuracy, metrics.margin, metrics.win_gap, metrics.lose_gap]
        columns += [metrics.loser_dominant, metrics.weight]
    return torch.stack([column.detach().cpu().double() for column in columns], dim=1)


def _outcome(table: Float[Tensor, "item column"], *, has_metrics: bool) -> Outcome:
    loss, weight, t, *rest = table.float().unbind(1)
    metrics = PairMetrics(**dict(zip(_METRICS, rest, strict=True))) if has_metrics else None
    return Outcome(loss=loss, weight=weight, t=t, metrics=metrics)
