"""What a user names as input: a folder of videos, or a JSONL or CSV file that lists them, each with its caption."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from densedpo.core.errors import BadInput

VIDEO_SUFFIXES: Final = (".mp4", ".mov", ".webm", ".avi", ".m4v", ".mkv")
LISTING_SUFFIXES: Final = (".jsonl", ".csv")
SPLITS: Final = ("train", "validation", "held_out")
_KEYS: Final = ("video", "caption", "id", "split")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceVideo:
    """One video to make clips of.

    Attributes:
        split: as its row says; None is decided by the hash of the file.
    """

    id: str
    path: Path
    caption: str
    split: str | None = None


def list_sources(source: Path) -> list[SourceVideo]:
    """The videos of a folder or a listing, in the order of their ids.

    A folder is searched with its subfolders. Its captions are in a `captions.csv` or `captions.jsonl` in it, or beside
    each video in a text file of the same name. A listing has the columns `video` (relative to the listing's folder)
    and `caption`, and may have `id` and `split`.

    Raises:
        BadInput: nothing there, a caption missing, an id twice, a malformed row; names the file and the row.
    """
    if source.is_dir():
        found = _from_folder(source)
    elif not source.exists():
        raise BadInput(f"{source}: no such folder or file; give a folder of videos, a .jsonl, a .csv, or 'world'")
    elif source.suffix.lower() in LISTING_SUFFIXES:
        found = [_from_row(row, where, source.parent) for where, row in _rows(source)]
    else:
        raise BadInput(f"{source}: neither a folder nor a .jsonl or .csv; give one of these, or 'world'")
    if not found:
        raise BadInput(f"{source} lists no videos")
    _refuse_twins(found, source)
    return sorted(found, key=lambda video: video.id)


def _from_folder(folder: Path) -> list[SourceVideo]:
    videos = sorted(_videos_in(folder))
    if not videos:
        raise BadInput(f"{folder} holds no videos ({', '.join(VIDEO_SUFFIXES)})")
    listings = [folder / f"captions{suffix}" for suffix in LISTING_SUFFIXES if (folder / f"captions{suffix}").is_file()]
    if len(listings) > 1:
        raise BadInput(f"{folder} holds both captions.jsonl and captions.csv; keep one")
    if listings:
        listed = [_from_row(row, where, folder) for where, row in _rows(listings[0])]
        known = {video.path.absolute() for video in listed}
        missing = [path for path in videos if path.absolute() not in known]
        if missing:
            raise BadInput(f"{missing[0]} has no caption: add a row for it to {listings[0].name}")
        return listed
    return [
        SourceVideo(id=path.relative_to(folder).with_suffix("").as_posix(), path=path, caption=_sidecar(path))
        for path in videos
    ]


def _videos_in(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in VIDEO_SUFFIXES:
                yield Path(place) / name


def _sidecar(video: Path) -> str:
    sidecar = video.with_suffix(".txt")
    if not sidecar.is_file():
        raise BadInput(f"{video} has no caption: put it in {sidecar.name} beside it, or list all in a captions.csv")
    caption = _text(sidecar).strip()
    if not caption:
        raise BadInput(f"{sidecar} is empty; write the caption of {video.name} into it")
    return caption


def _rows(listing: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Each row of a listing with what to call it in an error."""
    text = _text(listing)
    if listing.suffix.lower() == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        try:
            for row in reader:
                where = f"{listing}:{reader.line_num}"
                if None in row or None in row.values():
                    raise BadInput(f"{where}: has another number of columns than the first row")
                yield where, {key: value for key, value in row.items() if value or key == "caption"}
        except csv.Error as error:
            raise BadInput(f"{listing}:{reader.line_num}: not CSV: {error}") from None
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadInput(f"{listing}:{number}: not JSON: {error.msg}") from None
        if not isinstance(row, dict):
            raise BadInput(f'{listing}:{number}: not a JSON object; a row is {{"video": ..., "caption": ...}}')
        yield f"{listing}:{number}", row


def _from_row(row: Mapping[str, object], where: str, folder: Path) -> SourceVideo:
    for key in row:
        if key not in _KEYS:
            raise BadInput(f"{where}: unknown key {key!r}; the keys are {', '.join(_KEYS)}")
    values: dict[str, str] = {}
    for key in _KEYS:
        value = row.get(key)
        if value is None:
            continue
        if not isinstance(value, str):
            raise BadInput(f"{where}: {key!r} is text, not {value!r}")
        values[key] = value
    for key in ("video", "caption"):
        if not values.get(key, "").strip():
            raise BadInput(f"{where}: {key!r} is missing" + (f" for {values['video']}" if values.get("video") else ""))
    if "split" in values and values["split"] not in SPLITS:
        raise BadInput(f"{where}: 'split' is one of {', '.join(SPLITS)}, not {values['split']!r}")
    name = Path(values["video"])
    return SourceVideo(
        id=values.get("id", name.with_suffix("").as_posix()),
        path=name if name.is_absolute() else folder / name,
        caption=values["caption"].strip(),
        split=values.get("split"),
    )


def _refuse_twins(videos: list[SourceVideo], source: Path) -> None:
    first: dict[str, SourceVideo] = {}
    for video in videos:
        twin = first.setdefault(video.id, video)
        if twin is not video:
            raise BadInput(
                f"{source}: duplicate id {video.id!r}: {twin.path.name} and {video.path.name}; "
                "rename one, or give it another id"
            )


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 text (byte {error.start})") from None
