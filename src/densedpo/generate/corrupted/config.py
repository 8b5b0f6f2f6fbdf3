"""Settings of `densedpo generate corrupted`."""

from __future__ import annotations

from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from densedpo.core.records import CorruptionKind
from densedpo.generate.config import Eta, PairConfig

Share = Annotated[float, Field(gt=0, lt=1)]

_NEEDED_BY: Final[dict[str, CorruptionKind]] = {
    "shuffle_frames": "shuffled",
    "noise_min": "noised",
    "noise_max": "noised",
    "blur_min": "blurred",
    "blur_max": "blurred",
    "eta_min": "regenerated",
    "eta_max": "regenerated",
    "mask_min": "regenerated",
    "mask_max": "regenerated",
    "num_steps": "regenerated",
    "guidance_scale": "regenerated",
}


class CorruptedConfig(PairConfig):
    """Pairs of a real clip and a worse copy of it. What a corruption has a range for is drawn once per pair."""

    corruptions: tuple[CorruptionKind, ...] = Field(("reversed", "shuffled", "noised", "blurred"), min_length=1)
    """What is done to the copies, one of these for each pair; regenerated: made anew inside a moving shape."""
    shuffle_frames: Annotated[int, Field(ge=1)] = 4
    """Frames in a row that a shuffle keeps together."""
    noise_min: Share = 0.05
    """Lowest standard deviation of the noise, in units of the pixel range."""
    noise_max: Share = 0.15
    """Highest one."""
    blur_min: Share = 0.01
    """Lowest sigma of the blur, as a share of the clip's shorter side."""
    blur_max: Share = 0.03
    """Highest one."""
    eta_min: Eta | None = None
    """Lowest noise level from which a copy is made anew; the model's own if not given."""
    eta_max: Eta | None = None
    """Highest one."""
    mask_min: Share = 0.1
    """Smallest share of a frame that is made anew."""
    mask_max: Share = 0.4
    """Largest one."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, kind in _NEEDED_BY.items():
            if name in self.model_fields_set and kind not in self.corruptions:
                raise ValueError(f"{name} has no effect without {kind!r} among the corruptions")
        for name, low, high in (
            ("noise", self.noise_min, self.noise_max),
            ("blur", self.blur_min, self.blur_max),
            ("mask", self.mask_min, self.mask_max),
        ):
            if low > high:
                raise ValueError(f"{name}_min = {low} is above {name}_max = {high}")
        if len(set(self.corruptions)) < len(self.corruptions):
            raise ValueError(f"each corruption is named once, not {list(self.corruptions)}")
        return self

    def used(self, name: str) -> bool:
        """Whether a setting has an effect on these pairs."""
        return name not in _NEEDED_BY or _NEEDED_BY[name] in self.corruptions
