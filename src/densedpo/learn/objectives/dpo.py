"""Flow-DPO with constant beta: one label for the whole clip (VanillaDPO and StructuralDPO in the DenseDPO paper)."""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

from densedpo.learn.objectives.dense_dpo_summed import clip_logistic
from densedpo.learn.objectives.errors import LossOutput, PairErrors, check_beta, clip_gaps


def dpo(errors: PairErrors, sign: Int[Tensor, " pair"], *, beta: float) -> LossOutput:
    """The clip loss: errors averaged over all valid cells, then one logistic.

        u = -beta/2 * sign * mean over valid cells of ((policy_a - reference_a) - (policy_b - reference_b))
        loss = -log sigmoid(u);   weight = 1, or 0 for a tie (and no loss)

    DenseDPO (arXiv 2506.03517), equation 5, with equation 4's squared norm as a mean and the factor 1/2 of its
    appendix E. VanillaDPO and StructuralDPO differ in the pairs, not in the loss.

    Args:
        errors: squared errors; see `PairErrors`.
        sign: +1 where clip a is better, -1 where b is, 0 for a tie.
        beta: strength of the pull to the reference, under mean reduction with the factor 1/2.

    Raises:
        ValueError: wrong shapes, beta not above 0, signs other than -1, 0, +1.
    """
    check_beta(beta)
    if sign.shape != errors.valid.shape[:1]:
        raise ValueError(f"sign has shape {tuple(sign.shape)}, errors have {errors.valid.shape[0]} pairs")
    if bool((sign.abs() > 1).any()):
        raise ValueError(f"a sign is -1, 0 or +1, got {sorted(set(sign.tolist()))}")
    labels = sign[:, None, None, None] * errors.valid
    return clip_logistic(errors, labels.to(clip_gaps(errors)[0].dtype), beta=beta)


def dpo_weight(sign: Int[Tensor, " pair"], valid: Bool[Tensor, "pair frame row column"]) -> Float[Tensor, " pair"]:
    """The `weight` that `dpo` will return, from the labels alone."""
    return ((sign != 0) & valid.flatten(1).any(1)).float()
