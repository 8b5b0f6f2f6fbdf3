"""Loading the components of a model directory: local safetensors only, frozen, in evaluation mode, no progress bars.

A component is loaded when it is first used: encoding clips needs no denoiser, and training on cached latents no
autoencoder. Tokenizers come with a watch on the words that they do not know.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers import AutoTokenizer, CLIPImageProcessorPil, PreTrainedTokenizerBase
from transformers.utils import logging as hf_logging

from densedpo.adapters import files
from densedpo.adapters.captions import KeptCaptions
from densedpo.core.errors import BadInput

if TYPE_CHECKING:
    from densedpo.adapters.directory import Family

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
    libraries = [each for each in (hf_logging, diffusers_logging) if each.is_progress_bar_enabled()]
    for library in libraries:
        library.disable_progress_bar()
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0]
        raise BadInput(f"{folder} does not load: {line}") from None
    finally:
        for library in libraries:
            library.enable_progress_bar()


@contextmanager
def without_hints() -> Iterator[None]:
    """Keeps to itself what transformers would rather have installed: importing a pipeline names torchvision."""
    before = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()
    try:
        yield
    finally:
        hf_logging.set_verbosity(before)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """A tokenizer from local files; code that it may bring is not run."""
    with loading(folder):
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


class Opened:
    """A model directory that was checked, and how its components are loaded: what every adapter is made of.

    Nothing is fetched, no pickle is opened, and weights are read when they are used.
    """

    def __init__(
        self,
        folder: Path,
        family: Family,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        captions: Path | None = None,
    ) -> None:
        """Checks the directory.

        Args:
            dtype: of the denoiser and the text encoders.
            captions: where embeddings of captions are kept; without it they are computed on each call.

        Raises:
            BadInput: the folder is not a complete directory of the family, in safetensors.
        """
        family.check(folder)
        self.folder, self.device, self.dtype = folder, torch.device(device), dtype
        self.geometry, self.defaults = family.geometry(folder), family.defaults(folder)
        self.fingerprint = family.fingerprint(folder)
        self.vae_fingerprint = files.fingerprint(folder, ("vae",))
        self.captions = KeptCaptions(captions, family=family, model=folder, device=self.device, dtype=dtype)

    def denoiser(self, from_pretrained: Callable[..., Module], name: str = "transformer") -> Module:
        """A denoiser, in the precision that was asked for."""
        return load_component(from_pretrained, self.folder / name, device=self.device, torch_dtype=self.dtype)

    def autoencoder(self, from_pretrained: Callable[..., Module]) -> Module:
        """The autoencoder, in float32 whatever the rest is in, as Wan's needs."""
        return load_component(from_pretrained, self.folder / "vae", device=self.device, torch_dtype=torch.float32)

    def text_encoder(self, from_pretrained: Callable[..., Module], name: str = "text_encoder") -> Module:
        """A text encoder, in the denoiser's precision."""
        return load_component(from_pretrained, self.folder / name, device=self.device, dtype=self.dtype)

    def image_encoder(self, from_pretrained: Callable[..., Module]) -> Module:
        """An encoder of images, in float32 as the autoencoder."""
        return load_component(from_pretrained, self.folder / "image_encoder", device=self.device, dtype=torch.float32)

    def image_processor(self) -> CLIPImageProcessorPil:
        """How an image is brought to its encoder's size; the class that needs no torchvision, whatever is named."""
        folder = self.folder / "image_processor"
        with loading(folder):
            return CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)

    def tokenizer(self, name: str = "tokenizer") -> PreTrainedTokenizerBase:
        """A tokenizer."""
        return load_tokenizer(self.folder / name)


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
