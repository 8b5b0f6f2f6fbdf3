"""The settings of `judge probe`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, JsonValue

from densedpo.core.config import Config

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class ProbeConfig(Config):
    """Options of `judge probe`: what is asked, and what a judge has to reach to pass."""

    segment_seconds: float = Field(default=1.0, gt=0, description="length of the segments that were judged")
    min_accuracy: Share = Field(
        default=0.6,
        description="least accuracy by segment, of those that neither calls a tie; the interval has to lie above one "
        "half too",
    )
    min_coverage: Share = Field(
        default=0.2,
        description="least share of the segments that the truth decides in which the judge names a winner: one that "
        "nearly always ties is right in the few that it decides, and is of no use",
    )
    max_flip_rate: Share = Field(
        default=0.1,
        description="largest share of segments whose answer does not turn round when the clips change places",
    )
    max_canary_rate: Share = Field(
        default=0.05, description="largest share of answers that an order, in the caption or on the frames, may change"
    )
    num_swaps: Count = Field(default=64, description="pairs that are asked about again with the clips exchanged")
    num_copies: Count = Field(default=32, description="clips that are held against their frozen, slow, shuffled copies")
    num_canaries: Count = Field(default=16, description="pairs that are asked about again with an order in the caption")
    num_orders: Count = Field(
        default=8,
        description="pairs that are asked about again under eight more orders each, in the caption and on the frames; "
        "only judges that read captions",
    )
    motion: bool = Field(default=True, description="measure motion, and whether answers follow it")
    motion_threshold: float = Field(
        default=0.25, ge=0, description="px per frame: pairs whose motion differs by less say nothing about low motion"
    )
    judge: dict[str, JsonValue] = Field(
        default={},
        description="settings of the judge that its instructions do not hold, such as judge.max_requests=500; a judge "
        "that may cost money is asked only with a limit",
    )
    num_draws: int = Field(default=2000, ge=100, description="draws of the bootstrap")
    seed: int = Field(default=0, ge=0, description="of the bootstrap, of which pairs are asked about, and of shuffling")
