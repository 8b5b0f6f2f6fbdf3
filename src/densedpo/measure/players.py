"""The clips that the page plays side by side: prompts spread from the largest loss to the largest gain."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from densedpo.core.errors import BadInput
from densedpo.measure.compare import Comparison, Role
from densedpo.measure.findings import HEADLINE_METRIC, MOTION_METRIC
from densedpo.measure.numbers import number
from densedpo.measure.records import ClipScore, Measured
from densedpo.measure.score import METRICS, Metric
from densedpo.metrics.statistics import Key


@dataclass(frozen=True, kw_only=True, slots=True)
class Player:
    """One clip: `source` is a data URI of an mp4, `score` what the page writes under it."""

    name: str
    role: Role
    source: str
    score: str
    alt: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PlayerRow:
    """The clips of one prompt and seed."""

    caption: str
    place: str
    difference: str
    rises: bool | None
    players: tuple[Player, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlayerWall:
    """All rows, and what must be said about their choice."""

    metric: Metric
    rows: tuple[PlayerRow, ...]
    num_left_out: int
    fps: float
    duration_s: float


def player_wall(comparison: Comparison, *, num_players: int, max_bytes: float) -> PlayerWall | None:
    """Rows of players; rows are left out, never shrunk, where the page would grow beyond a size.

    Raises:
        BadInput: a video of a report is missing.
    """
    metric, ranked = _ranked(comparison)
    keys = _spread(ranked, num_players)
    if not keys:
        return None
    rows: list[PlayerRow] = []
    num_bytes = 0.0
    for place, (key, difference) in keys:
        row = _row(comparison, key, metric, place, difference)
        num_bytes += sum(len(player.source) for player in row.players)
        if num_bytes > max_bytes and rows:
            break
        rows.append(row)
    settings = comparison.base.report.settings
    return PlayerWall(
        metric=metric,
        rows=tuple(rows),
        num_left_out=len(keys) - len(rows),
        fps=settings.fps,
        duration_s=settings.num_frames / settings.fps,
    )


def _ranked(comparison: Comparison) -> tuple[Metric, list[tuple[Key, float]]]:
    """Prompts and seeds from the largest loss to the largest gain in the metric of the headline."""
    for wanted in (HEADLINE_METRIC, MOTION_METRIC):
        metric = next(m for m in METRICS if m.key == wanted)
        base, tuned = comparison.base.values(wanted), comparison.tuned.values(wanted)
        differences = {
            key: after - before
            for key, before in base.items()
            if before is not None and (after := tuned[key]) is not None
        }
        if differences:
            break
    return metric, sorted(differences.items(), key=lambda item: (item[1], item[0]))


def _spread(ranked: Sequence[tuple[Key, float]], count: int) -> list[tuple[str, tuple[Key, float]]]:
    """Evenly spaced ranks with their names, best first, the last and the first among them."""
    last = len(ranked) - 1
    count = min(count, len(ranked))
    if count < 1:
        return []
    ranks = [round(last * i / (count - 1)) for i in range(count)] if count > 1 else [last // 2]
    return [(_place(rank, last), ranked[rank]) for rank in reversed(ranks)]


def _place(rank: int, last: int) -> str:
    if rank == last:
        return "largest gain"
    if rank == 0:
        return "largest loss"
    return f"rank {last - rank + 1} of {last + 1}"


def _row(comparison: Comparison, key: Key, metric: Metric, place: str, difference: float) -> PlayerRow:
    members = comparison.report.members
    found = [(m, member.role, _clip(m, key)) for m, member in zip(comparison.measured, members, strict=True)]
    players = [
        _player(m, role, clip, clip.video, metric)
        for m, role, clip in found
        if clip is not None and clip.video is not None
    ]
    caption = next(clip.caption for _, _, clip in found if clip is not None)
    # where every prompt gains, or none does, the end of the ranks is not what its name says
    if (place == "largest gain" and difference <= 0) or (place == "largest loss" and difference >= 0):
        place = "no difference" if difference == 0 else "smallest loss" if difference < 0 else "smallest gain"
    return PlayerRow(
        caption=caption,
        place=place,
        difference=number(difference, signed=True),
        rises=None if difference == 0 else difference > 0,
        players=tuple(players),
    )


def _clip(measured: Measured, key: Key) -> ClipScore | None:
    """The clip of a prompt and seed; of real clips there is one for all seeds of a prompt."""
    clips: Mapping[Key, ClipScore] = {score.key: score for score in measured.scores}
    return clips.get(key if measured.report.subject.source == "model" else (key[0], 0))


def _player(measured: Measured, role: Role, clip: ClipScore, video: str, metric: Metric) -> Player:
    path = measured.folder / video
    if not path.is_file():
        raise BadInput(f"{path} is missing; delete reports/{measured.name} and measure again")
    value = clip.values.get(metric.key)
    score = f"{metric.label.lower()} {number(value)}" if value is not None else f"{metric.label.lower()} not computed"
    return Player(
        name=measured.name,
        role=role,
        source="data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode(),
        score=score,
        alt=f"Clip of {measured.name} for the prompt '{clip.caption}', {score}",
    )
