"""What a run leaves for others: the adapter in diffusers' format, and where in time the model learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from densedpo.core.records import write_jsonl

if TYPE_CHECKING:
    from densedpo.adapters.base import VideoModel
    from densedpo.learn.watch.evaluate import Evaluation, FrameReward

ADAPTER_FILE: Final = "adapter.safetensors"
WHERE_FILE: Final = "where.jsonl"


def where_learned(evaluation: Evaluation | None, num_pairs: int, poll: Callable[[], None]) -> list[FrameReward]:
    """What where.jsonl holds of the first validation pairs; nothing where there are none."""
    return [] if evaluation is None or not num_pairs else evaluation.rewards(num_pairs, poll)


def export_run(model: VideoModel, rewards: Sequence[FrameReward], folder: Path) -> None:
    """Writes adapter.safetensors from the adapter on the model, and where.jsonl if there is anything for it."""
    if rewards:
        write_jsonl(folder / WHERE_FILE, rewards)
    model.save_adapter(folder / ADAPTER_FILE)
