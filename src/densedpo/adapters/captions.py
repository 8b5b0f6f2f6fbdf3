"""Embeddings of captions, kept on the disk: a text encoder is loaded for captions that are new, and for no others.

Each caption is encoded alone, so that its embedding does not depend on which captions it was encoded with. Files lie in
a folder named after all that decides their bits; what follows the last row that is not zero is left out of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from densedpo.adapters.base import TextCondition
from densedpo.core.files import write_atomic
from densedpo.core.provenance import sha256_json

if TYPE_CHECKING:
    from torch import Tensor

    from densedpo.adapters.directory import Family

_log = logging.getLogger("densedpo")

Encode = Callable[[list[str]], TextCondition]


class KeptCaptions:
    """The embeddings of one text encoder, on the disk where there is a folder for them."""

    def __init__(
        self, root: Path | None, *, family: Family, model: Path, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Nothing is read yet.

        Args:
            root: where embeddings are kept, in a folder for each encoder; None keeps nothing.
            model: the model's directory.
        """
        self._device = device
        self._folder = None
        if root is not None:
            how = {
                "device": device.type,
                "dtype": str(dtype),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "encoded": "one caption at a time",
            }
            self._folder = root / family.text_fingerprint(model, how)

    def encode(self, captions: Sequence[str], encode: Encode) -> TextCondition:
        """The embeddings of captions, one row each; what is not kept is encoded, and kept."""
        known: dict[str, TextCondition] = {}
        for caption in captions:
            if caption not in known:
                known[caption] = self._read(caption) or self._encode(caption, encode)
        return TextCondition.cat([known[caption] for caption in captions])

    def fill(self, captions: Sequence[str], encode: Encode) -> None:
        """Encodes what is not kept yet; does nothing where nothing is kept."""
        for caption in dict.fromkeys(captions):
            path = self._path(caption)
            if path is not None and not path.is_file():
                self._encode(caption, encode)

    def _path(self, caption: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{sha256_json(caption)}.safetensors"

    def _encode(self, caption: str, encode: Encode) -> TextCondition:
        text, path = encode([caption]), self._path(caption)
        if path is not None:
            write_atomic(path, save(_trimmed(text)))
        return text

    def _read(self, caption: str) -> TextCondition | None:
        path = self._path(caption)
        if path is None or not path.is_file():
            return None
        try:
            tensors = load_file(path)
        except SafetensorError:
            _log.warning("%s is damaged; its caption is encoded again", path)
            return None
        return _whole({name: tensor.to(self._device) for name, tensor in tensors.items()})


def _trimmed(text: TextCondition) -> dict[str, Tensor]:
    """What is written for one caption: a Wan embedding of 512 rows is zero behind its last token."""
    embeds = text.embeds[0]
    used = embeds.any(dim=1).nonzero()[:, 0]
    num_used = int(used[-1]) + 1 if len(used) else 0
    tensors = {"embeds": embeds[:num_used], "num_tokens": torch.tensor(len(embeds))}
    tensors |= {} if text.mask is None else {"mask": text.mask}
    tensors |= {} if text.pooled is None else {"pooled": text.pooled}
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def _whole(tensors: dict[str, Tensor]) -> TextCondition:
    num_missing = int(tensors["num_tokens"]) - len(tensors["embeds"])
    embeds = torch.nn.functional.pad(tensors["embeds"], (0, 0, 0, num_missing))
    return TextCondition(embeds=embeds[None], mask=tensors.get("mask"), pooled=tensors.get("pooled"))
