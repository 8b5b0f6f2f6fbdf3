"""Loading the components of a model directory: local safetensors only, frozen, in evaluation mode, no progress bars.

A component is loaded when it is first used: encoding clips needs no denoiser, and training on cached latents no
autoencoder. Tokenizers come with a watch on the words that they do not know.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as hf_logging

from densedpo.core.errors import BadInput

_log = logging.getLogger("densedpo")

Module = TypeVar("Module", bound=torch.nn.Module)


def load_component(
    from_pretrained: Callable[..., Module], folder: Path, *, device: torch.device, **precision: torch.dtype
) -> Module:
    """A component from local safetensors, frozen, in evaluation mode, on the device.

    Args:
        from_pretrained: of the component's class.
        precision: the one keyword by which that class takes a dtype.

    Raises:
        BadInput: a file is damaged or does not fit its config.
    """
    _log.debug("loading %s", folder.name)
    with loading(folder):
        module = from_pretrained(folder, local_files_only=True, use_safetensors=True, **precision)
    return module.eval().requires_grad_(False).to(device)


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """What fails to load inside the block becomes one line; the loader's own bars stay off the screen.

    Raises:
        BadInput: a file is damaged or does not fit its config.
    """
    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0]
        raise BadInput(f"{folder} does not load: {line}") from None
    finally:
        if shown:
            hf_logging.enable_progress_bar()


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """A tokenizer from local files; code that it may bring is not run."""
    with loading(folder):
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


class UnknownWords:
    """Warns of words that a vocabulary lacks, of each once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Nothing is known yet."""
        self._tokenizer = tokenizer
        self._told: set[str] = set()

    def warn(self, captions: list[str]) -> None:
        """Says which words of the captions the model will read as <unk>."""
        unknown = [word for caption in captions for word in unknown_words(self._tokenizer, caption)]
        new = [word for word in dict.fromkeys(unknown) if word not in self._told]
        if new:
            self._told.update(new)
            _log.warning("the model's vocabulary lacks these words and reads them as <unk>: %s", ", ".join(new))


def unknown_words(tokenizer: PreTrainedTokenizerBase, caption: str) -> list[str]:
    """The words of a caption that the vocabulary lacks, in order."""
    if tokenizer.unk_token_id is None:
        return []
    encoded = tokenizer(caption, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast)
    if tokenizer.unk_token_id not in encoded.input_ids:
        return []
    if not tokenizer.is_fast:
        return [f"(in {caption!r})"]
    pairs = zip(encoded.input_ids, encoded.offset_mapping, strict=True)
    return [caption[start:stop] for token, (start, stop) in pairs if token == tokenizer.unk_token_id]
