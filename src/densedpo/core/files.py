"""Files written so that a cut, a full disk or a second writer loses nothing."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from densedpo.core.errors import BadInput

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, a quota, the limit for one file


@contextmanager
def naming_disk_errors(path: Path) -> Iterator[None]:
    """Turns a full, read-only or forbidden disk into one line that names what was being written.

    Raises:
        BadInput: the disk refused to be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise BadInput(f"disk full while writing {path}; nothing was lost, free space and rerun") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise BadInput(f"not allowed to write {path}; check the folder's permissions") from error
        raise


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """Holds the one right to write below a folder, which is made if it is missing; freed even by kill -9.

    Raises:
        BadInput: another process is writing there.
    """
    from filelock import FileLock, Timeout

    with naming_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", blocking=False, is_singleton=False)
        try:
            lock.acquire()
        except Timeout:
            raise BadInput(f"{folder} is being written by another process; wait for it or stop it") from None
    try:
        yield folder
    finally:
        lock.release()


def read_object(path: Path) -> dict[str, object]:
    """The JSON object in a file that another program wrote.

    Raises:
        BadInput: no file there, or something else in it.
    """
    if not path.is_file():
        raise BadInput(f"no file at {path}")
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise BadInput(f"{path}: a JSON object is expected")
    return row


def write_atomic(path: Path, data: bytes | str) -> None:
    """Writes a file whole or not at all: to a temporary name beside it, synced, then renamed.

    Raises:
        BadInput: the disk is full or may not be written; the old file is still there.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with naming_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames inside a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_jsonl(path: Path, row: Mapping[str, object]) -> None:
    """Appends one row and returns when it is on the disk; a row that does not fit leaves the file as it was.

    Raises:
        BadInput: the disk is full or may not be written.
    """
    line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    with naming_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)
                raise


def repair_jsonl(path: Path) -> int:
    """Drops what follows the last line end, which a cut in mid-write leaves behind; returns how many bytes went."""
    if not path.exists():
        return 0
    data = path.read_bytes()
    keep = data.rfind(b"\n") + 1
    if keep < len(data):
        os.truncate(path, keep)
    return len(data) - keep
