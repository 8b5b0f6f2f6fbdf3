"""Clips taken out of the pairs that they were made in and put together anew: latents, frames and video (no torch).

The new pairs are an ordinary set, so that whatever reads pairs reads them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from densedpo.core.media import read_pair_mp4, write_pair_mp4
from densedpo.core.provenance import sha256_json
from densedpo.core.workspace import write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from densedpo.core.media import Frames
    from densedpo.core.records import ClipSide, Pair
    from densedpo.judge.pairset import PairSet


@dataclass(frozen=True, kw_only=True, slots=True)
class Half:
    """One clip of a set of pairs."""

    pair_id: str
    side: ClipSide


def regrouped(a: Half, b: Half, source: PairSet, *, prefix: str, model: str | None = None) -> Pair:
    """The row of a pair of two clips of one prompt; its id follows from what the clips were made from.

    Args:
        model: stands in the id for the identity of the model that made the clips, by default that itself.
    """
    of_a, of_b = source.by_id[a.pair_id], source.by_id[b.pair_id]
    keys = (_noise_key(of_a, a), _noise_key(of_b, b))
    pair_id = f"{prefix}-{sha256_json([model or of_a.model, *keys, of_a.caption])[:16]}"
    return replace(
        of_a,
        id=pair_id,
        noise_key_a=keys[0],
        noise_key_b=keys[1],
        video=f"videos/{pair_id}.mp4",
        latents=f"latents/{pair_id}.safetensors",
    )


def write_regrouped(pair: Pair, a: Half, b: Half, source: PairSet, folder: Path) -> None:
    """Writes the files of such a pair: the latents of both clips, the frame that they continue, and their video."""
    from safetensors.numpy import save

    of_a = latents_of(a, source)
    tensors = {"a": of_a[a.side], "b": latents_of(b, source)[b.side]}
    tensors |= {name: each for name, each in of_a.items() if name not in ("a", "b", "mask")}
    write_atomic(folder / pair.latents, save(tensors))
    (folder / pair.video).parent.mkdir(exist_ok=True)
    write_pair_mp4(
        folder / pair.video, _frames(a, source), _frames(b, source), fps=pair.fps, pixel_scale=pair.pixel_scale
    )


def latents_of(half: Half, source: PairSet) -> dict[str, NDArray[np.float32]]:
    """All that the latents file of a clip's pair holds."""
    from safetensors.numpy import load_file

    found: dict[str, NDArray[np.float32]] = load_file(source.folder / source.by_id[half.pair_id].latents)
    return found


def _noise_key(pair: Pair, half: Half) -> str:
    return pair.noise_key_a if half.side == "a" else pair.noise_key_b


def _frames(half: Half, source: PairSet) -> Frames:
    pair = source.by_id[half.pair_id]
    a, b = read_pair_mp4(source.folder / pair.video, pixel_scale=pair.pixel_scale)
    return a if half.side == "a" else b
