"""The videos that browsers get: one file for an item, under an opaque name, made when it is first needed.

Both clips of a pair lie in one file, in an order that a coin has drawn, so that its panes cannot lose step and nothing
in the file says which clip is which. Every file is written in the same way, whether its order was changed or not.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from densedpo.core.errors import BadInput
from densedpo.core.files import write_atomic
from densedpo.core.media import Frames, read_pair_mp4, write_mp4, write_pair_mp4
from densedpo.core.records import Pair
from densedpo.judge.pairset import PairSet, ranges_of
from densedpo.judge.studies.flashes import flashes
from densedpo.judge.studies.records import Item

Parts = tuple[float, ...]  # one number for each part


class Unplayable(BadInput):
    """An item has no video that can be shown. `public` is what annotators are told: no file is named."""

    public = "The video of this item cannot be read. Skip it; whoever runs the study sees why on the dashboard."


@dataclass(frozen=True, slots=True)
class MediaFolder:
    """The files under `folder`, made from the pairs; they may be deleted at any time and are made again."""

    folder: Path
    pairs: PairSet
    faults: dict[str, str] = field(default_factory=dict)  # item id -> why it cannot be shown
    motion: dict[str, tuple[Parts, Parts]] = field(default_factory=dict)  # pair hash -> of a and of b
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    def path_of(self, item: Item) -> Path:
        """The video of an item.

        Raises:
            Unplayable: the pair's video is missing, damaged, of another size, or outside the folder of the pairs.
        """
        path = self.folder / f"{item.media}.mp4"
        if path.is_file():
            return path
        with self._one_at_a_time:  # encoding takes a whole core: two at once are no faster
            if not path.is_file():
                try:
                    self._make(item, path)
                except BadInput as error:
                    self.faults[item.id] = str(error)
                    raise Unplayable(str(error)) from error
                self.faults.pop(item.id, None)
        return path

    def flashes(self, item: Item) -> bool:
        """Whether an item's video flashes so that it can harm somebody.

        Raises:
            BadInput: the pair's video cannot be read.
        """
        path = self.folder / "flashes" / f"{item.media}.json"
        if not path.is_file():  # made by a version that did not look
            pair = self.pairs.by_id[item.pair_id]
            self._look_for_flashes(item, *self._clips(pair))
        return bool(json.loads(path.read_text(encoding="utf-8")))

    def prepare(self, items: Iterable[Item], segment_seconds: float, stop: threading.Event) -> None:
        """Makes the videos of all items ahead, and measures how much the clips move, until told to stop."""
        for item in items:
            if stop.is_set():
                return
            try:
                self.path_of(item)
                if item.pair_hash not in self.motion:
                    self.motion[item.pair_hash] = self._motion(item, segment_seconds)
            except BadInput as error:
                self.faults[item.id] = str(error)

    def _motion(self, item: Item, segment_seconds: float) -> tuple[Parts, Parts]:
        """Mean motion of each part in pixels per frame, of a and of b; kept on disk, never sent."""
        from densedpo.metrics.motion import segment_motion  # brings OpenCV, which a start need not wait for

        path = self.folder / "motion" / f"{item.pair_hash[:32]}-{segment_seconds:g}.json"
        pair = self.pairs.by_id[item.pair_id]
        ranges = ranges_of(pair, segment_seconds)
        if path.is_file():
            a, b = json.loads(path.read_text(encoding="utf-8"))
            if len(a) == len(b) == len(ranges):
                return tuple(a), tuple(b)
        measured = tuple(
            tuple(part.frame_px for part in segment_motion(frames, ranges, fps=pair.fps))
            for frames in self._clips(pair)
        )
        write_atomic(path, json.dumps(measured))
        return measured[0], measured[1]

    def _make(self, item: Item, path: Path) -> None:
        pair = self.pairs.by_id[item.pair_id]
        a, b = self._clips(pair)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._look_for_flashes(item, a, b)
        shown = _shown(item, a, b)
        if len(shown) == 1:
            write_mp4(path, shown[0], fps=pair.fps, pixel_scale=pair.pixel_scale)
        else:
            first, second = reversed(shown) if item.flipped else shown
            write_pair_mp4(path, first, second, fps=pair.fps, pixel_scale=pair.pixel_scale)

    def _look_for_flashes(self, item: Item, a: Frames, b: Frames) -> None:
        shown = _shown(item, a, b)
        fps = self.pairs.by_id[item.pair_id].fps
        found = any(flashes(clip, fps=fps) for clip in shown)
        write_atomic(self.folder / "flashes" / f"{item.media}.json", json.dumps(found))

    def _clips(self, pair: Pair) -> tuple[Frames, Frames]:
        a, b = read_pair_mp4(self._source(pair), pixel_scale=pair.pixel_scale)
        expected = (pair.num_frames, pair.height, pair.width, 3)
        if a.shape != expected:
            raise BadInput(
                f"the video of pair {pair.id} holds clips of {list(a.shape[:3])} (frames, height, width), pairs.jsonl "
                f"says {list(expected[:3])}; generate the pairs again"
            )
        return a, b

    def _source(self, pair: Pair) -> Path:
        folder = self.pairs.folder.resolve()
        path = (folder / pair.video).resolve()
        if not path.is_relative_to(folder):
            raise BadInput(f"pair {pair.id}: its video lies outside {self.pairs.folder}; mend pairs.jsonl")
        return path


def _shown(item: Item, a: Frames, b: Frames) -> tuple[Frames, ...]:
    """The clips of an item: both, one of them alone, or one and its altered copy."""
    if item.side is None:
        return a, b
    clip = a if item.side == "a" else b
    if item.copy is None:
        return (clip,)
    from densedpo.metrics.probes import probe_copy  # brings OpenCV, which a start need not wait for

    return clip, probe_copy(clip, item.copy, seed=0, clip_id=item.pair_id)
