"""What a run leaves for others: the adapter in diffusers' format, and where in time the model learned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from densedpo.core.records import write_jsonl

if TYPE_CHECKING:
    from densedpo.adapters.base import VideoModel
    from densedpo.learn.watch.evaluate import Evaluation

ADAPTER_FILE: Final = "adapter.safetensors"
WHERE_FILE: Final = "where.jsonl"


def export_run(
    model: VideoModel,
    evaluation: Evaluation | None,
    folder: Path,
    *,
    num_pairs: int,
    poll: Callable[[], None],
    writes: bool = True,
) -> None:
    """Writes adapter.safetensors from the adapter on the model, and where.jsonl if there are validation pairs.

    Args:
        writes: false in a process beside the first, which takes part in the forwards and writes nothing.
    """
    rewards = [] if evaluation is None or not num_pairs else evaluation.rewards(num_pairs, poll)
    if not writes:
        return
    if rewards:
        write_jsonl(folder / WHERE_FILE, rewards)
    model.save_adapter(folder / ADAPTER_FILE)
