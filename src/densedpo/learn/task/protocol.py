"""What a step minimises, behind one small protocol, and what one forward of it comes to, item by item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float
    from torch import Tensor

    from densedpo.learn.feed.order import Visit
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

    def backward(self, divisor: float) -> Outcome:
        """Adds the gradient of the loss over a divisor to the parameters; the same without a graph."""
        (self.loss.sum() / divisor).backward()  # type: ignore[no-untyped-call]
        return self.detached()


class Task(Protocol):
    """What the step needs to know of an objective."""

    def window(self, step: int) -> tuple[tuple[Visit, ...], ...]:
        """The forwards of a step, each a few visits to items of one size."""

    def largest(self) -> tuple[Visit, ...]:
        """A forward of the largest items: what fits it fits every forward."""

    def weight(self, visits: Sequence[Visit]) -> float:
        """The total weight that `outcome` will return, from labels alone."""

    def outcome(self, visits: Sequence[Visit]) -> Outcome:
        """One forward of the policy, with its graph."""

    def backward(self, visits: Sequence[Visit], divisor: float) -> Outcome:
        """Adds the gradient of the visits' loss over a divisor to the parameters; the outcome has no graph."""

    def ids(self, visits: Sequence[Visit]) -> tuple[str, ...]:
        """The names of what is visited, for the quarantine list."""
