"""D2-DPO (arXiv 2503.08295): preferences for models that make video as masked discrete tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from densedpo.learn.objectives.dpo import dpo
from densedpo.learn.objectives.errors import LossOutput, PairErrors

TokenLogs = Float[Tensor, "pair frame row column"]
Masked = Bool[Tensor, "pair frame row column"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PairTokens:
    """The log probability that each model gives to the clean token of each place, for pairs of masked clips.

    `t` is the share of tokens that the noise masks, in (0, 1]; `masked_a` and `masked_b` say which are. What a model
    says of a token that is not masked takes part in nothing and may be anything. `valid` is false in frames that are
    given and in padding, which count in no mean; None: all are valid.

    Raises:
        ValueError: the shapes differ, or t is not in (0, 1].
    """

    policy_a: TokenLogs
    policy_b: TokenLogs
    reference_a: TokenLogs
    reference_b: TokenLogs
    masked_a: Masked
    masked_b: Masked
    t: Float[Tensor, " pair"]
    valid: Masked | None = None

    def __post_init__(self) -> None:
        shapes = {
            tuple(value.shape)
            for value in (
                self.policy_a,
                self.policy_b,
                self.reference_a,
                self.reference_b,
                self.masked_a,
                self.masked_b,
            )
        }
        if len(shapes) != 1 or self.t.shape != self.policy_a.shape[:1]:
            raise ValueError(f"tokens are [pair frame row column] and t is [pair], got {shapes}, {tuple(self.t.shape)}")
        if not bool(((self.t > 0) & (self.t <= 1)).all()):
            raise ValueError("t is the share of masked tokens, in (0, 1]")


def token_errors(tokens: PairTokens) -> PairErrors:
    """What stands for a squared error where tokens are masked: -log p(clean token) / t, 0 where nothing is masked.

    So every objective of this folder takes pairs of a token model, with labels per frame or per place.
    """

    def error(logs: TokenLogs, masked: Masked) -> TokenLogs:
        # where and not a product: 0 * NaN is NaN
        return torch.where(masked, -logs / tokens.t[:, None, None, None], torch.zeros_like(logs))

    return PairErrors(
        policy_a=error(tokens.policy_a, tokens.masked_a),
        policy_b=error(tokens.policy_b, tokens.masked_b),
        reference_a=error(tokens.reference_a, tokens.masked_a),
        reference_b=error(tokens.reference_b, tokens.masked_b),
        valid=torch.ones_like(tokens.masked_a) if tokens.valid is None else tokens.valid,
    )


def d2_dpo(tokens: PairTokens, sign: Int[Tensor, " pair"], *, beta: float) -> LossOutput:
    """The clip loss of D2-DPO for masking noise.

        D(x_t | x) = sum over masked tokens of (1/t) log(p_policy(x | x_t) / p_reference(x | x_t))
        u = beta/(2 N) * sign * (D(a_t | a) - D(b_t | b)),   N valid tokens in a clip
        loss = -log sigmoid(u);   weight = 1, or 0 for a tie (and no loss)

    The paper's loss is -log sigmoid(beta' D(winner) - beta' D(loser)), with D the difference of the two models' path
    measures: sum over j of R_q log(R_policy / R_reference) + R_reference - R_policy, for the rates R of a continuous-
    time Markov chain. Under masking noise with a linear schedule, a masked token is unmasked to j at rate
    p(j | x_t) / t and R_q is 1/t at the clean token only, so that the rates of both models add up to the same and the
    last two terms cancel. The paper's t runs the other way: its 1 - t is ours.

    Deviation: a mean over tokens with the factor 1/2, as everywhere here: beta' = beta/(2 N).

    Args:
        tokens: log probabilities of the clean tokens.
        sign: +1 where clip a is better, -1 where b is, 0 for a tie.
        beta: strength of the pull to the reference, under mean reduction with the factor 1/2.

    Raises:
        ValueError: wrong shapes, beta not above 0, signs other than -1, 0, +1.
    """
    return dpo(token_errors(tokens), sign, beta=beta)
