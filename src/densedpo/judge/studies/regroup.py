"""Clips taken out of the pairs that they were made in and put together anew: latents, frames and video (no torch).

The new pairs are an ordinary set, so that whatever reads pairs reads them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from densedpo.core.errors import BadInput
from densedpo.core.media import read_pair_mp4, write_pair_mp4
from densedpo.core.provenance import sha256_json
from densedpo.core.workspace import write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable
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
        model: stands in the id for all that the clips were made from beside noise and caption; by default the ids of
            the pairs that they are from, which follow from their model, first frame, type and all else.
    """
    of_a, of_b = source.by_id[a.pair_id], source.by_id[b.pair_id]
    keys = (_noise_key(of_a, a), _noise_key(of_b, b))
    made_from = [of_a.id, of_b.id] if model is None else [model]
    pair_id = f"{prefix}-{sha256_json([*made_from, *keys, of_a.caption])[:16]}"
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

    beside = tensors_of(a, source, lambda name: name not in ("a", "b", "mask"))
    tensors = {"a": _clip(a, source), "b": _clip(b, source), **beside}
    write_atomic(folder / pair.latents, save(tensors))
    (folder / pair.video).parent.mkdir(exist_ok=True)
    write_pair_mp4(
        folder / pair.video, _frames(a, source), _frames(b, source), fps=pair.fps, pixel_scale=pair.pixel_scale
    )


def tensors_of(half: Half, source: PairSet, wanted: Callable[[str], bool]) -> dict[str, NDArray[np.float32]]:
    """What the latents file of a clip's pair holds under the names that are wanted; the rest of it is not read.

    Raises:
        BadInput: the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = source.folder / source.by_id[half.pair_id].latents
    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys() if wanted(name)}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path} does not hold the latents of a pair ({error}); generate its pairs again") from None


def _clip(half: Half, source: PairSet) -> NDArray[np.float32]:
    return tensors_of(half, source, lambda name: name == half.side)[half.side]


def _noise_key(pair: Pair, half: Half) -> str:
    return pair.noise_key_a if half.side == "a" else pair.noise_key_b


def _frames(half: Half, source: PairSet) -> Frames:
    pair = source.by_id[half.pair_id]
    a, b = read_pair_mp4(source.folder / pair.video, pixel_scale=pair.pixel_scale)
    return a if half.side == "a" else b
