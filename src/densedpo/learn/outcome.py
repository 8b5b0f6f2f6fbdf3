"""What one forward of a task comes to, item by item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from densedpo.learn.objectives import PairMetrics


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Loss, weight and t of the items of one forward; metrics only where there is a preference."""

    loss: Float[Tensor, "item"]
    weight: Float[Tensor, "item"]
    t: Float[Tensor, "item"]
    metrics: PairMetrics | None

    def detached(self) -> Outcome:
        """The same without a graph, on CPU."""
        return Outcome(
            loss=self.loss.detach().cpu(), weight=self.weight.detach().cpu(), t=self.t.cpu(), metrics=self.metrics
        )
