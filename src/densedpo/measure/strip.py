"""Pairs over time: frames of a and b, the labels of their segments, and what the model learned at each latent frame."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from densedpo.core.errors import BadInput
from densedpo.core.layout import LatentLayout
from densedpo.core.media import read_pair_mp4
from densedpo.core.records import Pair, Preference, from_row, read_jsonl
from densedpo.core.workspace import Project
from densedpo.learn.feed.trust import num_header_rows
from densedpo.measure.charts.panel import Tick
from densedpo.measure.charts.training import read_rows
from densedpo.measure.numbers import number

NUM_THUMBS: Final = 8
AXIS_WIDTH: Final = 880.0
THUMB_HEIGHT_MAX: Final = 110.0
BAR_HEIGHT: Final = 34.0  # of the largest reward, on either side of zero
WHERE_FILE: Final = "where.jsonl"

Side = Literal["a", "b", "tie"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """A row of a run's where.jsonl: labels and implicit rewards d_b - d_a, one for each latent frame."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="ignore", allow_inf_nan=False)

    pair_id: str
    labels_per_latent_frame: tuple[int, ...]
    implicit_reward_per_latent_frame: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Thumb:
    """A frame as a picture, `x` and `width` on the time axis."""

    x: float
    width: float
    source: str  # data URI
    alt: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """The label of a segment."""

    x: float
    width: float
    side: Side
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """The reward of a latent frame: up where the model came to prefer a. `agrees` is None where there is no label."""

    x: float
    width: float
    y: float  # from the zero line, downwards
    height: float
    side: Side
    agrees: bool | None
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Strip:
    """One pair over time. `bars` are empty where the run says nothing about the pair."""

    pair_id: str
    caption: str
    thumb_height: float
    thumbs_a: tuple[Thumb, ...]
    thumbs_b: tuple[Thumb, ...]
    cells: tuple[Cell, ...]
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    largest: str
    agreement: str
    alt: str


def read_strips(
    project: Project, *, pairs: str, preferences: str, run: str | None, num_strips: int
) -> tuple[Strip, ...]:
    """Strips of the pairs that a run says something about, those with labels on both sides first.

    Raises:
        BadInput: a file is missing or damaged, or the preferences or the run are of other pairs.
    """
    folder, path = project.pairs(pairs), project.preferences(preferences)
    by_id = {pair.id: pair for pair in read_jsonl(folder / "pairs.jsonl", Pair)}
    preferred = {p.pair_id: p for p in read_jsonl(path, Preference, skip=num_header_rows(path))}
    strangers = sorted(preferred.keys() - by_id.keys())
    if strangers:
        raise BadInput(
            f"{project.relative(path)}: pair {strangers[0]!r} is not in pairs/{pairs}; name the pairs it is of"
        )
    where = read_where(project.run(run), by_id) if run is not None else {}
    shown = _chosen([preferred[pair_id] for pair_id in (where or preferred) if pair_id in preferred], num_strips)
    return tuple(_strip(folder, by_id[p.pair_id], p, where.get(p.pair_id)) for p in shown)


def read_where(run: Path, known: dict[str, Pair]) -> dict[str, Where]:
    """Where a run learned, by pair; {} if it did not record it.

    Raises:
        BadInput: a row is damaged or of a pair that is not known.
    """
    path = run / WHERE_FILE
    if not path.is_file():
        return {}
    rows = [from_row(Where, row, f"{path}:{i}") for i, row in enumerate(read_rows(path), start=1)]
    for i, row in enumerate(rows, start=1):
        if row.pair_id not in known:
            raise BadInput(f"{path}:{i}: pair {row.pair_id!r} is not among the pairs; name the pairs that the run used")
        if len(row.labels_per_latent_frame) != len(row.implicit_reward_per_latent_frame):
            raise BadInput(f"{path}:{i}: as many labels as rewards are needed")
    return {row.pair_id: row for row in rows}


def data_uri(frame: NDArray[np.uint8], longest_side: int = 240) -> str:
    """A frame uint8 [H, W, 3] as a PNG in a data URI, made smaller where it is larger than shown."""
    scale = longest_side / max(frame.shape[:2])
    if scale < 1:
        frame = np.asarray(cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    done, png = cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert done
    return "data:image/png;base64," + base64.b64encode(png.tobytes()).decode()


def _chosen(preferences: Sequence[Preference], count: int) -> list[Preference]:
    """Both sides labelled first, then one, then ties; within each in the order given."""
    kinds = {p.pair_id: len({label for label in p.labels if label}) for p in preferences}
    return sorted(preferences, key=lambda p: -kinds[p.pair_id])[:count]


def _strip(folder: Path, pair: Pair, preference: Preference, where: Where | None) -> Strip:
    a, b = read_pair_mp4(folder / pair.video, pixel_scale=pair.pixel_scale)
    if preference.ranges[-1][1] != pair.num_frames or len(a) != pair.num_frames:
        raise BadInput(
            f"pair {pair.id!r} has {pair.num_frames} frames, and its labels or its video have another number"
        )
    width = AXIS_WIDTH / NUM_THUMBS
    thumb_height = min(THUMB_HEIGHT_MAX, width * pair.height / pair.width)
    bars, largest = _bars(pair, where) if where is not None else ((), 0.0)
    labelled = [bar for bar in bars if bar.agrees is not None]
    num_agreeing = sum(bar.agrees is True for bar in labelled)
    agreement = f"agrees with {num_agreeing} of {len(labelled)} labelled latent frames" if labelled else ""
    cells = _cells(preference, pair.num_frames)
    labels = ", ".join(cell.text for cell in cells)
    return Strip(
        pair_id=pair.id,
        caption=pair.caption,
        thumb_height=thumb_height,
        thumbs_a=_thumbs(a, pair.fps, "a"),
        thumbs_b=_thumbs(b, pair.fps, "b"),
        cells=cells,
        bars=bars,
        ticks=_ticks(pair),
        largest=f"{largest:.2g}" if bars else "",
        agreement=agreement,
        alt=f"Pair for '{pair.caption}'. Segments in order: {labels}. {f'The model {agreement}.' if agreement else ''}",
    )


def _thumbs(frames: NDArray[np.uint8], fps: float, side: str) -> tuple[Thumb, ...]:
    width = AXIS_WIDTH / NUM_THUMBS
    index = [int((i + 0.5) * len(frames) / NUM_THUMBS) for i in range(NUM_THUMBS)]
    return tuple(
        Thumb(x=i * width, width=width, source=data_uri(frames[f]), alt=f"{side} at {number(f / fps, 1)} s")
        for i, f in enumerate(index)
    )


def _cells(preference: Preference, num_frames: int) -> tuple[Cell, ...]:
    scale = AXIS_WIDTH / num_frames
    sides: dict[int, Side] = {1: "a", -1: "b", 0: "tie"}
    cells = []
    for (start, stop), label in zip(preference.ranges, preference.labels, strict=True):
        side = sides[label]
        text = "tie" if side == "tie" else f"{side} is better"
        cells.append(Cell(x=start * scale, width=(stop - start) * scale, side=side, text=text))
    return tuple(cells)


def _bars(pair: Pair, where: Where) -> tuple[tuple[Bar, ...], float]:
    rewards, labels = where.implicit_reward_per_latent_frame, where.labels_per_latent_frame
    stride = round((pair.num_frames - 1) / max(1, len(rewards) - 1))
    layout = LatentLayout(num_frames=pair.num_frames, stride=stride)
    if layout.num_latent_frames != len(rewards):
        raise BadInput(
            f"pair {pair.id!r}: {len(rewards)} latent frames in {WHERE_FILE} do not fit {pair.num_frames} frames"
        )
    largest = max(abs(reward) for reward in rewards)
    scale = AXIS_WIDTH / pair.num_frames
    bars = []
    for k, (reward, label) in enumerate(zip(rewards, labels, strict=True)):
        frames = layout.frames_of(k)
        height = abs(reward) / largest * BAR_HEIGHT if largest else 0.0
        bars.append(
            Bar(
                x=frames.start * scale,
                width=len(frames) * scale,
                y=-height if reward > 0 else 0.0,
                height=height,
                side="a" if reward > 0 else "b" if reward < 0 else "tie",
                agrees=None if label == 0 else reward * label > 0,
                text=f"latent frame {k}: d_b - d_a = {number(reward, signed=True)}",
            )
        )
    return tuple(bars), largest


def _ticks(pair: Pair) -> tuple[Tick, ...]:
    duration_s = pair.num_frames / pair.fps
    step_s = 1 if duration_s <= 12 else 5
    return tuple(
        Tick(at=s * pair.fps / pair.num_frames * AXIS_WIDTH, text=f"{s} s")
        for s in range(0, int(duration_s) + 1, step_s)
    )
