"""From a user's videos to clips of a model's length, size and frame rate."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densedpo.adapters.base import Geometry
from densedpo.core.errors import BadInput
from densedpo.core.progress import track
from densedpo.core.provenance import sha256_file, sha256_json
from densedpo.core.records import Clip
from densedpo.core.workspace import Project, writing
from densedpo.data.clips import ClipFolder, split_of
from densedpo.data.config import DataConfig
from densedpo.data.decoding.decoder import Decoder, DecoderStopped
from densedpo.data.decoding.frames import Limits, Scan, Undecodable, container_format
from densedpo.data.filters import camera_share, static_share
from densedpo.data.journal import Journal, Outcome, Skipped
from densedpo.data.shots import ClipPlan, ShotPlan, plan_shots
from densedpo.data.sources import SourceVideo, list_sources
from densedpo.data.summary import Summary, write_index

_log = logging.getLogger(__name__)


def add_videos(project: Project, source: Path, *, geometry: Geometry, config: DataConfig) -> Summary:
    """Adds the videos of a folder or a listing to a project's clips.

    A video that cannot be used is listed in `skipped.jsonl` with its reason, and the rest continue. What an earlier
    run finished is kept.

    Raises:
        BadInput: the source cannot be used, or clips of another size or another video of the same id are there.
    """
    videos = list_sources(source)
    folder = ClipFolder(path=project.clips, geometry=geometry, config=config)
    with writing(project.clips):
        journal = folder.open_journal()
        _refuse_other_origins(videos, journal)
        with Decoder(limits=_limits(config), timeout_s=config.limits.timeout_s) as decoder:
            for video in track(videos, what="cutting videos into clips"):
                _add_video(video, folder, decoder, journal)
        return write_index(project, journal)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    """One video that is being cut."""

    video: SourceVideo
    source: str
    folder: ClipFolder
    decoder: Decoder

    @property
    def split(self) -> str:
        config = self.folder.config
        by_hash = split_of(self.source, validation_share=config.validation_share, held_out_share=config.held_out_share)
        return self.video.split or by_hash

    def skip(self, kind: str, reason: str, start_s: float | None = None) -> Skipped:
        return Skipped(id=self.video.id, path=str(self.video.path), kind=kind, reason=reason, start_s=start_s)


def _limits(config: DataConfig) -> Limits:
    return Limits(
        max_pixels=config.limits.max_pixels,
        max_frames=config.limits.max_frames,
        cpu_s=config.limits.cpu_s,
        memory_bytes=config.limits.memory_mib << 20,
    )


def _key(video: SourceVideo, source: str, folder: ClipFolder) -> str:
    return sha256_json([source, video.caption, video.split, folder.settings_key])


def _source_hash(path: Path) -> str:
    """What a source video is known by: the hash of its bytes, so that a copy under another name is the same source.

    Raises:
        Undecodable: it is no regular file or no video; nothing else is read to its end.
    """
    container_format(path)
    try:
        return sha256_file(path)
    except OSError as error:
        raise Undecodable(f"cannot be read: {error.strerror}") from error


def _refuse_other_origins(videos: Sequence[SourceVideo], journal: Journal) -> None:
    """An id that an earlier source used stands for another video, unless that video was moved."""
    for video in videos:
        known = journal.outcomes.get(video.id)
        if known is None or known.origin == str(video.path.absolute()) or not known.clips:
            continue
        try:
            source = _source_hash(video.path)
        except Undecodable:
            continue  # listed with its reason later on
        if source != known.clips[0].source:
            raise BadInput(f"duplicate id {video.id!r}: {video.path} and, added before, {known.origin}; rename one")


def _add_video(video: SourceVideo, folder: ClipFolder, decoder: Decoder, journal: Journal) -> None:
    known = journal.outcomes.get(video.id)
    origin = str(video.path.absolute())
    try:
        source = _source_hash(video.path)
        key = _key(video, source, folder)
        if known is not None and known.key == key and known.is_final and _is_whole(known, folder):
            return
        task = _Task(video=video, source=source, folder=folder, decoder=decoder)
        outcome = replace(_cut(task), key=key, origin=origin)
    except Undecodable as error:
        skipped = Skipped(id=video.id, path=str(video.path), kind="broken", reason=str(error))
        outcome = Outcome(id=video.id, key="", origin=origin, is_final=False, skipped=(skipped,))
    for skip in outcome.skipped:
        if skip.start_s is None:
            _log.warning("skipped %s: %s", skip.path, skip.reason)
    if outcome == known:
        return
    journal.append(outcome)
    if known is not None:
        _remove_superseded(known, outcome, folder)


def _is_whole(outcome: Outcome, folder: ClipFolder) -> bool:
    return all((folder.path / clip.video).is_file() for clip in outcome.clips)


def _remove_superseded(old: Outcome, new: Outcome, folder: ClipFolder) -> None:
    for video in {clip.video for clip in old.clips} - {clip.video for clip in new.clips}:
        (folder.path / video).unlink(missing_ok=True)


def _cut(task: _Task) -> Outcome:
    """Cuts one video, without the fields of the outcome that say where it came from."""
    empty = Outcome(id=task.video.id, key="", origin="")
    try:
        scan = task.decoder.scan(task.video.path)
        unfit = _unfit(task, scan)
        if unfit is not None:
            return replace(empty, skipped=(unfit,))
        geometry, config = task.folder.geometry, task.folder.config
        shots = plan_shots(scan, num_frames=geometry.num_frames, fps=geometry.fps, cut_threshold=config.cut_threshold)
        plans = [plan for shot in shots for plan in shot.clips][: config.max_clips_per_video or None]
        clips, filtered = _make_clips(task, plans)
    except Undecodable as error:
        is_final = not isinstance(error, DecoderStopped)
        return replace(empty, skipped=(task.skip("broken", str(error)),), is_final=is_final)
    tails = [shot.tail_s for shot in shots if shot.clips and shot.tail_s > 1e-3]
    return replace(
        empty,
        clips=tuple(clips),
        skipped=(*_too_short(task, shots), *filtered),
        num_examined=len(plans),
        num_extended=sum(plan.is_extended for plan in plans),
        num_cuts=len(shots) - 1,
        num_tails=len(tails),
        tail_s=sum(tails),
    )


def _unfit(task: _Task, scan: Scan) -> Skipped | None:
    """Why a whole video is left out, if it is."""
    geometry, filters = task.folder.geometry, task.folder.config.filters
    resolution = min(scan.height / geometry.height, scan.width / geometry.width)
    if resolution < filters.min_resolution:
        return task.skip(
            "resolution",
            f"{scan.width}x{scan.height} is {resolution:.2f} of the clip's {geometry.width}x{geometry.height}, under "
            f"min_resolution = {filters.min_resolution:g}",
        )
    if not filters.min_duration_s <= scan.end_s <= filters.max_duration_s:
        return task.skip(
            "duration",
            f"{scan.end_s:.2f} s is not within min_duration_s = {filters.min_duration_s:g} and "
            f"max_duration_s = {filters.max_duration_s:g}",
        )
    return None


def _too_short(task: _Task, shots: Sequence[ShotPlan]) -> list[Skipped]:
    geometry = task.folder.geometry
    clip_s = geometry.num_frames / geometry.fps
    return [
        task.skip(
            "too_short",
            f"{shot.stop_s - shot.start_s:.2f} s, a clip of {geometry.num_frames} frames takes {clip_s:.2f} s",
            shot.start_s if len(shots) > 1 else None,
        )
        for shot in shots
        if not shot.clips
    ]


def _make_clips(task: _Task, plans: Sequence[ClipPlan]) -> tuple[list[Clip], list[Skipped]]:
    geometry = task.folder.geometry
    clips: list[Clip] = []
    skipped: list[Skipped] = []
    if not plans:
        return clips, skipped
    times_s = [plan.times_s for plan in plans]
    decoded = task.decoder.clips(task.video.path, times_s=times_s, height=geometry.height, width=geometry.width)
    for index, (plan, frames) in enumerate(zip(plans, decoded, strict=True)):
        dull = _dull(task, plan, frames)
        if dull is not None:
            skipped.append(dull)
            continue
        blank = task.folder.blank(
            f"{task.video.id}-{index:03d}", source=task.source, split=task.split, caption=task.video.caption
        )
        clips.append(task.folder.write(replace(blank, start_s=round(plan.start_s, 6)), frames))
    return clips, skipped


def _dull(task: _Task, plan: ClipPlan, frames: NDArray[np.uint8]) -> Skipped | None:
    """Why a clip is left out by what is seen in it, if it is."""
    filters = task.folder.config.filters
    static = static_share(frames)
    if static > filters.max_static_share:
        reason = f"nothing moves in {static:.0%} of the frames, over max_static_share = {filters.max_static_share:g}"
        return task.skip("static", reason, plan.start_s)
    if filters.max_camera_share >= 1:
        return None
    camera = camera_share(frames, fps=task.folder.geometry.fps)
    if camera > filters.max_camera_share:
        reason = f"{camera:.0%} of the motion is the camera's, over max_camera_share = {filters.max_camera_share:g}"
        return task.skip("camera_only", reason, plan.start_s)
    return None
