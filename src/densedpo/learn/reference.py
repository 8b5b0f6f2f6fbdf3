"""The policy is a LoRA on the denoiser, the reference is the same denoiser with the LoRA switched off."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from densedpo.core.errors import BadInput
from densedpo.core.files import write_atomic
from densedpo.core.progress import track
from densedpo.core.provenance import sha256_json
from densedpo.core.seeds import derive_seed, seeded_init
from densedpo.learn.errors import pair_errors, residuals, squared_by_frame
from densedpo.learn.feed.batch import Draws, PairBatch, Source
from densedpo.learn.feed.order import Visit
from densedpo.learn.objectives import dense_dpo

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from densedpo.adapters.base import VideoModel
    from densedpo.learn.config import LearnConfig
    from densedpo.learn.errors import Residuals
    from densedpo.learn.feed.inputs import LabelledPair

# fixed, so that a cached value does not depend on how many draws a run asks for or on its batch size
_FILL_PAIRS: Final = 8
LOG_2_TOLERANCE: Final = 1e-6
# batch shapes differ between the fill and a live forward, and with them the last bits
CACHE_TOLERANCE: Final = 1e-3


class TakesAdapters(Protocol):
    """What diffusers' models add to a torch module."""

    def add_adapter(self, adapter_config: LoraConfig) -> None:
        """Injects a LoRA and makes it the active one."""


def attach_lora(model: VideoModel, config: LearnConfig) -> dict[str, torch.nn.Parameter]:
    """Puts a fresh LoRA on the denoiser, which then still computes what the base does (B = 0).

    Returns:
        The LoRA's parameters by name, float32; nothing else requires a gradient.

    Raises:
        BadInput: the targets match no layer of the denoiser.
        ValueError: the denoiser carries a LoRA already.
    """
    denoiser = model.denoiser
    if any(isinstance(module, BaseTunerLayer) for module in denoiser.modules()):
        raise ValueError("the denoiser carries an adapter already: load the model afresh for each run")
    targets = list(config.lora_targets or model.lora_targets)
    names = [name for name, _ in denoiser.named_modules()]
    missing = [target for target in targets if not any(n == target or n.endswith(f".{target}") for n in names)]
    if missing:
        raise BadInput(f"lora_targets: no layer of the denoiser is called {', '.join(missing)}")
    denoiser.requires_grad_(False)
    with seeded_init(derive_seed(config.seed, "lora")):
        _add_adapter(denoiser, LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=targets))
    for parameter in denoiser.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return {name: parameter for name, parameter in denoiser.named_parameters() if parameter.requires_grad}


def _add_adapter(denoiser: TakesAdapters | torch.nn.Module, lora: LoraConfig) -> None:
    from diffusers.loaders import PeftAdapterMixin

    if not isinstance(denoiser, PeftAdapterMixin):
        raise BadInput(f"a {type(denoiser).__name__} takes no adapters")
    denoiser.add_adapter(lora)


@contextmanager
def adapters_off(denoiser: torch.nn.Module) -> Iterator[None]:
    """The base model inside the block, bit for bit: the adapters' layers are left out, not multiplied by 0."""
    layers = [module for module in denoiser.modules() if isinstance(module, BaseTunerLayer)]
    requires_grad = [(parameter, parameter.requires_grad) for layer in layers for parameter in layer.parameters()]
    for layer in layers:
        layer.enable_adapters(enabled=False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(enabled=True)
        # enabling sets the gradient flags of the active adapter anew
        for parameter, flag in requires_grad:
            parameter.requires_grad_(flag)


def live_reference(model: VideoModel, batch: PairBatch) -> Float[Tensor, "batch frame 1 1"]:
    """The reference's errors of both clips, computed now: all a, then all b."""
    return squared_by_frame(live_residuals(model, batch))


def live_residuals(model: VideoModel, batch: PairBatch) -> Residuals:
    """The reference's residuals of both clips, computed now: all a, then all b."""
    with torch.no_grad(), adapters_off(model.denoiser):
        return residuals(model, batch.packed())


class CachedReference:
    """The reference's errors of fixed draws, computed once per (pair, draw) and kept beside the pairs for every run."""

    def __init__(
        self,
        pairs: Sequence[LabelledPair],
        draws: Draws,
        folder: Path,
    ) -> None:
        """Nothing is computed yet.

        Args:
            folder: of the files, one for each draw; see `cache_folder`.
        """
        self._pairs = pairs
        self._draws = draws
        self.folder = folder
        self._errors: dict[int, Float[Tensor, "pair 2 frame"]] = {}

    def fill(self, model: VideoModel, source: Source, num_draws: int, poll: Callable[[], None]) -> float:
        """Reads or computes the first draws of every pair.

        Args:
            poll: called before each forward; may raise to stop.

        Returns:
            The share of draws that had to be computed: the cost of the fill, against those found on disk.
        """
        missing = [draw for draw in range(num_draws) if not self._read(draw)]
        for draw in track(missing, what="reference errors, draws") if missing else ():
            rows = []
            for start in range(0, len(self._pairs), _FILL_PAIRS):
                poll()
                chunk = range(start, min(start + _FILL_PAIRS, len(self._pairs)))
                batch = source.pairs(self._pairs, [Visit(index=i, draw=draw) for i in chunk], self._draws)
                errors_a, errors_b = live_reference(model, batch)[:, :, 0, 0].cpu().chunk(2)
                rows.append(torch.stack([errors_a, errors_b], dim=1))
            self._errors[draw] = torch.cat(rows)
            write_atomic(self._file(draw), save({"errors": self._errors[draw]}))
        return len(missing) / num_draws

    def of(self, visits: Sequence[Visit]) -> Float[Tensor, "batch frame 1 1"]:
        """The errors of some visits, packed: all a, then all b."""
        rows = torch.stack([self._errors[visit.draw][visit.index] for visit in visits], dim=1)
        return rows.flatten(0, 1)[:, :, None, None]

    def _read(self, draw: int) -> bool:
        try:
            self._errors[draw] = load_file(self._file(draw))["errors"]
        except (FileNotFoundError, SafetensorError, KeyError):
            return False
        return True

    def _file(self, draw: int) -> Path:
        return self.folder / f"draw-{draw:04d}.safetensors"


def cache_folder(
    root: Path, pairs: Sequence[LabelledPair], draws: Draws, *, fingerprint: str, content: str, precision: str
) -> Path:
    """Where the errors of these pairs and draws lie: all that decides their value is in the name.

    Args:
        content: the hash of the pairs.
    """
    named = {
        "model": fingerprint,
        "pairs": content,
        "ids": [pair.id for pair in pairs],
        "noise_seed": draws.noise_seed,
        "draws": draws.count,
        "t": [draws.density.t_min, draws.density.t_max, draws.density.mean, draws.density.std],
        "precision": precision,
        "torch": torch.__version__,
    }
    if draws.noise != "fresh":
        named["noise"] = draws.noise
    key = sha256_json(named)
    return root / "reference_cache" / key[:20]


def require_reference(model: VideoModel, batch: PairBatch, config: LearnConfig) -> float:
    """Refuses to train where policy and reference differ before the first step.

    Returns:
        The live loss over the weight, log 2 to 1e-6.

    Raises:
        BadInput: the loss is not log 2: the adapter is not fresh, or cannot be switched off.
    """
    reference = live_reference(model, batch)
    with torch.no_grad():
        errors = pair_errors(model, batch, reference)
        # every cell labelled, so that the check does not depend on which pairs came first
        output = dense_dpo(errors, torch.ones_like(batch.field).to(errors.valid.device), beta=config.beta)
    loss = float(output.loss.sum() / output.weight.sum())
    if not abs(loss - math.log(2)) <= LOG_2_TOLERANCE:
        raise BadInput(
            f"the loss before the first step is {loss:.8f}, not log 2: with a fresh adapter the policy must equal the "
            "reference; this model's adapter is not fresh or cannot be switched off"
        )
    return loss


def require_cache(model: VideoModel, batch: PairBatch, visits: Sequence[Visit], cache: CachedReference) -> None:
    """Refuses a cache whose values are not this model's.

    Raises:
        BadInput: names the folder to remove.
    """
    live, cached = live_reference(model, batch).cpu(), cache.of(visits)
    if not torch.allclose(live, cached, rtol=CACHE_TOLERANCE, atol=0.0):
        raise BadInput(f"{cache.folder}: the cached reference errors are not this model's; remove the folder")


class ReferenceWatch:
    """Tells whether the reference moved while the adapter was trained."""

    def __init__(self, model: VideoModel, batch: PairBatch) -> None:
        """Remembers the reference's errors on a batch."""
        self._model, self._batch = model, batch
        self._before = live_reference(model, batch)

    def require_unmoved(self) -> None:
        """Raises RuntimeError if the same batch now has other errors: base weights were trained."""
        if not torch.equal(self._before, live_reference(self._model, self._batch)):
            raise RuntimeError("the reference changed during training: a base weight was updated")
