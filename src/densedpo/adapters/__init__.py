"""Video models behind one protocol; each family converts its layouts and schedules at its own edge."""

from densedpo.adapters.base import Geometry, SamplingDefaults, TextCondition, VideoModel
from densedpo.adapters.catalogue import load

__all__ = ["Geometry", "SamplingDefaults", "TextCondition", "VideoModel", "load"]
