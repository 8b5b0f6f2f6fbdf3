"""How far the policy has moved from the reference: in its predictions, by noise level, and in its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from densedpo.learn.watch.track import T_BUCKETS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float
    from pydantic import JsonValue
    from torch import Tensor

    from densedpo.learn.watch.track import Row


def drift_row(t: Sequence[float], drift: Sequence[float]) -> Row:
    """D = E (v_policy - v_reference)^2 over all items, and in each bucket of t that holds any.

    A mean over elements, so that clips of other sizes compare. Summed over t with the right weights it would be the KL
    divergence between the two samplers' paths; the buckets show where in the noise it is spent.
    """
    row: Row = {"drift": sum(drift) / len(drift)}
    buckets: list[JsonValue] = []
    for low, high in T_BUCKETS:
        inside = [value for time, value in zip(t, drift, strict=True) if low <= time and (time < high or high == 1)]
        if inside:
            buckets.append({"t_min": low, "t_max": high, "num_items": len(inside), "drift": sum(inside) / len(inside)})
    row["drift_by_t"] = buckets
    return row


def lora_norm(parameters: Mapping[str, Float[Tensor, "out into"]], *, scale: float) -> float:
    """The Frobenius norm of what the LoRA adds to the weights, scale * B A over all its layers; 0 when it is fresh.

    |B A|^2 is the trace of (B^T B)(A A^T), which are only rank x rank.

    Args:
        parameters: by peft's names, with `.lora_A.` and `.lora_B.` in them.
        scale: lora_alpha / lora_rank.
    """
    total = 0.0
    for name, down in parameters.items():
        if ".lora_A." in name:
            up = parameters[name.replace(".lora_A.", ".lora_B.")].detach()
            total += float(((up.T @ up) * (down.detach() @ down.detach().T)).sum())
    return float(scale * max(total, 0.0) ** 0.5)
