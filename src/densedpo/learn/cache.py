"""The reference's errors of fixed draws: computed once per (pair, draw), kept beside the pairs, shared by every run.

A value is that of its pair alone in a forward, so it does not depend on which other pairs a run trains on. Each fill
adds a file of its own with what was missing; a reader takes them all together, so runs that fill at once lose nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from densedpo.core.errors import BadInput
from densedpo.core.files import write_atomic
from densedpo.core.progress import track
from densedpo.core.provenance import sha256_json
from densedpo.learn.errors import frame_errors, squared_by_frame
from densedpo.learn.feed.batch import Draws, PairBatch, Source
from densedpo.learn.feed.order import Visit
from densedpo.learn.processes.team import ALONE, Team
from densedpo.learn.reference import AdapterOff

if TYPE_CHECKING:
    from jaxtyping import Float

    from densedpo.adapters.base import VideoModel
    from densedpo.learn.config import LearnConfig
    from densedpo.learn.feed.inputs import LabelledPair
    from densedpo.learn.reference import Reference

    PairRow = Float[torch.Tensor, "2 frame"]

_log = logging.getLogger("densedpo")
# batch shapes differ between the fill and a live forward, and with them the last bits
CACHE_TOLERANCE: Final = {"float32": 1e-3, "bfloat16": 5e-2}
_PAIRS_IN_FILE: Final = 64
# what u may be before the first step, where policy and reference are one model: 0.05 moves the sigmoid by 0.0125
MAX_FIRST_LOGIT: Final = 0.05


class CachedReference:
    """The reference's errors of both clips of some pairs, for the first draws of each."""

    def __init__(self, pairs: Sequence[LabelledPair], draws: Draws, folder: Path) -> None:
        """Nothing is computed yet.

        Args:
            folder: where the files lie; see `cache_folder`.
        """
        self._pairs = pairs
        self._draws = draws
        self.folder = folder
        self._errors: dict[tuple[int, str], PairRow] = {}

    def fill(
        self,
        model: VideoModel,
        source: Source,
        num_draws: int,
        poll: Callable[[], None],
        team: Team = ALONE,
        reference: Reference | None = None,
    ) -> float:
        """Reads or computes the first draws of every pair; what is computed is on disk before this returns or raises.

        Args:
            poll: called before each forward; may raise to stop.
            team: shares out what is missing.
            reference: by default the model with its adapter switched off.

        Returns:
            The share of (pair, draw) that had to be computed: the cost of the fill, against those found on disk.
        """
        reference = reference or AdapterOff(model)
        self._read(num_draws)
        team.wait()  # all have seen the same files before anyone adds one
        wanted = [(draw, index) for draw in range(num_draws) for index in range(len(self._pairs))]
        missing = [(draw, index) for draw, index in wanted if (draw, self._pairs[index].id) not in self._errors]
        computed: dict[str, PairRow] = {}
        at = -1
        try:
            for draw, index in track(team.share(missing), what="reference errors, pairs") if missing else ():
                if draw != at or len(computed) == _PAIRS_IN_FILE:
                    self._write(at, computed)
                    at, computed = draw, {}
                poll()
                visit = Visit(index=index, draw=draw)
                batch = source.pairs(self._pairs, [visit], self._draws)
                errors = squared_by_frame(reference.residuals(batch.packed()))[:, :, 0, 0].cpu()
                self._errors[draw, self._pairs[index].id] = computed[self._pairs[index].id] = errors
        finally:
            self._write(at, computed)
        if missing and team.size > 1:
            team.wait()
            self._read(num_draws)
        return len(missing) / len(wanted)

    def of(self, visits: Sequence[Visit]) -> Float[torch.Tensor, "batch frame 1 1"]:
        """The errors of some visits, packed: all a, then all b."""
        rows = torch.stack([self._errors[visit.draw, self._pairs[visit.index].id] for visit in visits], dim=1)
        return rows.flatten(0, 1)[:, :, None, None]

    def _read(self, num_draws: int) -> None:
        """Takes every file of the first draws; one that is damaged is as good as missing."""
        for draw in range(num_draws):
            for path in sorted(self.folder.glob(f"draw-{draw:04d}-*.safetensors")):
                try:
                    rows = load_file(path)
                except SafetensorError:
                    _log.warning("%s is damaged; its reference errors are computed again", path)
                    continue
                self._errors |= {(draw, pair_id): row for pair_id, row in rows.items() if bool(row.isfinite().all())}

    def _write(self, draw: int, rows: dict[str, PairRow]) -> None:
        if rows:
            name = sha256_json(sorted(rows))[:12]
            write_atomic(self.folder / f"draw-{draw:04d}-{name}.safetensors", save(rows))


def cache_folder(root: Path, draws: Draws, *, fingerprint: str, content: str, precision: str, device: str) -> Path:
    """Where the errors of these draws lie: all that decides their value, but the pair and the draw, is in the name.

    Args:
        content: the hash of the pairs.
        device: `cpu` and `cuda` differ in the last bits, and so have caches of their own.
    """
    named = {
        "model": fingerprint,
        "pairs": content,
        "noise_seed": draws.noise_seed,
        "draws": draws.count,
        "noise": draws.noise,
        "t": [draws.density.t_min, draws.density.t_max, draws.density.mean, draws.density.std],
        "precision": precision,
        "device": torch.device(device).type,
        "torch": torch.__version__,
        "filled": "one pair in a forward",
    }
    return root / "reference_cache" / sha256_json(named)[:20]


def first_logit(
    model: VideoModel, batch: PairBatch, visits: Sequence[Visit], cache: CachedReference, config: LearnConfig
) -> float:
    """The largest |u| of any latent frame before the first step, from cached errors against a live forward.

    The policy, whose adapter is fresh, is the reference; with exact errors it is 0.

    Args:
        batch: of these visits, as large as a forward of the run, since shapes change the last bits.

    Raises:
        BadInput: the cached errors are another model's; names the folder to remove.
    """
    with torch.no_grad():
        live, cached = frame_errors(model, batch.packed()).cpu(), cache.of(visits)
    if not torch.allclose(live, cached, rtol=CACHE_TOLERANCE[config.precision], atol=0.0):
        raise BadInput(f"{cache.folder}: the cached reference errors are not this model's; remove the folder")
    difference_a, difference_b = (live - cached).chunk(2)
    return float((config.beta / 2 * (difference_a - difference_b)).abs().max())


def require_small_logit(logit: float, config: LearnConfig) -> None:
    """Refuses to train on cached errors that are too coarse for beta.

    Raises:
        BadInput: says what to set.
    """
    if not logit <= MAX_FIRST_LOGIT:
        raise BadInput(
            f"with cached reference errors the largest |u| before the first step is {logit:.3f}, above "
            f"{MAX_FIRST_LOGIT}: in {config.precision} a forward of one pair and one of a batch differ too much for "
            f"beta = {config.beta:g}; set draws = 'fresh', precision = 'float32' or batch_pairs = 1"
        )
