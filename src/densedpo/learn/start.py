"""What must hold before the first step: the live policy is the reference, and the cached reference is the live one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import torch

from densedpo.core.errors import BadInput
from densedpo.learn.errors import pair_errors
from densedpo.learn.objectives import dense_dpo
from densedpo.learn.order import Visit
from densedpo.learn.reference import live_reference

if TYPE_CHECKING:
    from densedpo.adapters.base import VideoModel
    from densedpo.learn.batch import PairBatch
    from densedpo.learn.config import LearnConfig
    from densedpo.learn.reference import CachedReference

LOG_2_TOLERANCE: Final = 1e-6
# batch shapes differ between the fill and a live forward, and with them the last bits
CACHE_TOLERANCE: Final = 1e-3


def require_reference(model: VideoModel, batch: PairBatch, config: LearnConfig) -> float:
    """Refuses to train where policy and reference differ before the first step.

    Returns:
        The live loss over the weight, log 2 to 1e-6.

    Raises:
        BadInput: the loss is not log 2: the adapter is not fresh, or cannot be switched off.
    """
    reference = live_reference(model, batch)
    with torch.no_grad():
        errors = pair_errors(model, batch, reference)
        # every cell labelled, so that the check does not depend on which pairs came first
        output = dense_dpo(errors, torch.ones_like(batch.field).to(errors.valid.device), beta=config.beta)
    loss = float(output.loss.sum() / output.weight.sum())
    if not abs(loss - math.log(2)) <= LOG_2_TOLERANCE:
        raise BadInput(
            f"the loss before the first step is {loss:.8f}, not log 2: with a fresh adapter the policy must equal the "
            "reference; this model's adapter is not fresh or cannot be switched off"
        )
    return loss


def require_cache(model: VideoModel, batch: PairBatch, visits: Sequence[Visit], cache: CachedReference) -> None:
    """Refuses a cache whose values are not this model's.

    Raises:
        BadInput: names the folder to remove.
    """
    live, cached = live_reference(model, batch).cpu(), cache.of(visits)
    if not torch.allclose(live, cached, rtol=CACHE_TOLERANCE, atol=0.0):
        raise BadInput(f"{cache.folder}: the cached reference errors are not this model's; remove the folder")


class ReferenceWatch:
    """Tells whether the reference moved while the adapter was trained."""

    def __init__(self, model: VideoModel, batch: PairBatch) -> None:
        """Remembers the reference's errors on a batch."""
        self._model, self._batch = model, batch
        self._before = live_reference(model, batch)

    def require_unmoved(self) -> None:
        """Raises RuntimeError if the same batch now has other errors: base weights were trained."""
        if not torch.equal(self._before, live_reference(self._model, self._batch)):
            raise RuntimeError("the reference changed during training: a base weight was updated")
