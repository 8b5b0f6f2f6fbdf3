"""The reference's errors of fixed draws: computed once per (pair, draw), kept beside the pairs, shared by every run.

Several visits are computed in one forward, and which of them stand together changes their last bits. So a run's
forwards are cut from all that it wants, whatever is there already: one of which anything is missing runs whole, and
adds what was missing. A fill that is cut and goes on thus ends with the bits of one that was not, and a value that is
on disk is never replaced. Each fill adds files of its own; a reader takes them all together, of two values the older
one, so runs that fill at once lose nothing and go on alike.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from densedpo.core.errors import BadInput
from densedpo.core.files import write_atomic
from densedpo.core.progress import track
from densedpo.core.provenance import sha256_json
from densedpo.learn.errors import frame_errors, squared_errors
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

    PairRow = Float[torch.Tensor, "2 frame row column"]

_log = logging.getLogger("densedpo")
# batches differ between the fill and a live forward, and with them the last bits
CACHE_TOLERANCE: Final = {"float32": 1e-3, "bfloat16": 5e-2}
_ROWS_IN_FILE: Final = 64
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
        *,
        in_forward: int = 1,
    ) -> float:
        """Reads or computes the first draws of every pair; what is computed is on disk before this returns or raises.

        Args:
            poll: called before each forward; may raise to stop.
            team: shares out what is missing.
            reference: by default the model with its adapter switched off.
            in_forward: visits, both clips of each, in a forward.

        Returns:
            The share of (pair, draw) that had to be computed: the cost of the fill, against those found on disk.

        Raises:
            BadInput: the errors of a pair are not finite; names it.
        """
        reference = reference or AdapterOff(model)
        self._read(num_draws)
        team.wait()  # all have seen the same files before anyone adds one
        forwards = self._forwards(num_draws, in_forward)
        missing = {visit for visits in forwards for visit in visits if self._key(visit) not in self._errors}
        if not missing:
            return 0.0
        incomplete = [visits for visits in forwards if not missing.isdisjoint(visits)]
        computed: dict[Visit, PairRow] = {}
        try:
            for visits in track(team.share(incomplete), what="reference errors, forwards"):
                poll()
                errors = self._computed(reference, source, visits)
                computed |= {visit: errors[:, place] for place, visit in enumerate(visits) if visit in missing}
                if len(computed) >= _ROWS_IN_FILE:
                    self._write(computed)
                    computed = {}
        finally:
            self._write(computed)
        team.wait()
        self._read(num_draws)
        self._require_all(visit for visits in forwards for visit in visits)
        return len(missing) / (num_draws * len(self._pairs))

    def _forwards(self, num_draws: int, in_forward: int) -> list[tuple[Visit, ...]]:
        """All visits, cut into forwards of pairs of one size; one draw of each pair, then the next."""
        by_size: dict[tuple[int, ...] | None, list[Visit]] = {}
        for draw in range(num_draws):
            for index, pair in enumerate(self._pairs):
                by_size.setdefault(pair.latent_shape, []).append(Visit(index=index, draw=draw))
        starts = [(visits, start) for visits in by_size.values() for start in range(0, len(visits), in_forward)]
        return [tuple(visits[start : start + in_forward]) for visits, start in starts]

    def _computed(
        self, reference: Reference, source: Source, visits: Sequence[Visit]
    ) -> Float[torch.Tensor, "2 batch frame row column"]:
        packed = source.pairs(self._pairs, visits, self._draws).packed()
        errors = squared_errors(reference.residuals(packed), packed).cpu()
        return errors.reshape(2, len(visits), *errors.shape[1:])

    def of(self, visits: Sequence[Visit]) -> Float[torch.Tensor, "batch frame row column"]:
        """The errors of some visits, packed: all a, then all b."""
        rows = torch.stack([self._errors[self._key(visit)] for visit in visits], dim=1)
        return rows.flatten(0, 1)

    def _key(self, visit: Visit) -> tuple[int, str]:
        return visit.draw, self._pairs[visit.index].id

    def _require_all(self, visits: Iterable[Visit]) -> None:
        for visit in visits:
            if self._key(visit) not in self._errors:
                pair = self._pairs[visit.index].id
                raise BadInput(
                    f"pair {pair}, draw {visit.draw}: the reference's errors are not finite; remove the pair"
                )

    def _read(self, num_draws: int) -> None:
        """Takes every file of the first draws; one that is damaged is as good as missing."""
        self._errors = {}
        for draw in range(num_draws):
            files = self.folder.glob(f"draw-{draw:04d}-*.safetensors")
            for path in sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.name)):
                try:
                    rows = load_file(path)
                except SafetensorError:
                    _log.warning("%s is damaged; its reference errors are computed again", path)
                    continue
                # a copy: what is read lies in the file itself until then
                whole = {(draw, name): row.clone() for name, row in rows.items() if bool(row.isfinite().all())}
                self._errors = whole | self._errors

    def _write(self, computed: dict[Visit, PairRow]) -> None:
        """Adds a file for each draw of some visits."""
        by_draw: dict[int, dict[str, PairRow]] = {}
        for visit, row in computed.items():
            by_draw.setdefault(visit.draw, {})[self._pairs[visit.index].id] = row.contiguous()
        for draw, rows in by_draw.items():
            data = save(rows)
            name = hashlib.sha256(data).hexdigest()[:12]  # of the values too: no file replaces another one's
            write_atomic(self.folder / f"draw-{draw:04d}-{name}.safetensors", data)


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
        "filled": "several pairs in a forward",
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
            f"{MAX_FIRST_LOGIT}: in {config.precision} forwards of other batches differ too much for "
            f"beta = {config.beta:g}; set draws = 'fresh' or precision = 'float32'"
        )
