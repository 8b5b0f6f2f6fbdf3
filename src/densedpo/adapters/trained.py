"""What a run has trained, back on a model: a LoRA, or all weights of the denoiser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from densedpo.core.errors import BadInput
from densedpo.core.files import read_object

if TYPE_CHECKING:
    from torch import Tensor

    from densedpo.adapters.base import VideoModel

WEIGHTS_FILE: Final = "weights.json"


def load_trained(model: VideoModel, path: Path) -> None:
    """Puts on a model what a run has left.

    Args:
        path: a LoRA, or the `weights.json` that lists the files of a whole denoiser beside it.

    Raises:
        BadInput: the files are not there, are damaged, or are another model's.
    """
    if path.name != WEIGHTS_FILE:
        model.load_adapter(path)
        return
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    own = model.denoiser.state_dict()
    names = [str(name) for name in read_object(path) if str(name).endswith(".safetensors")]
    state: dict[str, Tensor] = {}
    for name in names:
        try:
            state |= load_file(path.parent / name)
        except (FileNotFoundError, SafetensorError) as error:
            raise BadInput(f"{path.parent / name} does not load: {error}") from None
    if {key: tensor.shape for key, tensor in state.items()} != {key: tensor.shape for key, tensor in own.items()}:
        raise BadInput(f"{path}: these weights are not of this model")
    model.denoiser.load_state_dict(state)
