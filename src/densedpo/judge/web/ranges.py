"""Files by parts: the one range of a request (RFC 9110, section 14), refused where it is anything more than that."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from starlette.responses import Response, StreamingResponse

MAX_RANGE_HEADER: Final = 64
_CHUNK: Final = 256 * 1024
_ONE_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class RangeRefused(ValueError):
    """A range that the file does not have, or more than one (a header of thousands is an attack, CVE-2025-62727)."""


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The bytes that a Range header asks for, half open; None: the whole file.

    Raises:
        RangeRefused: answered by 416.
    """
    if header is None:
        return None
    found = _ONE_RANGE.fullmatch(header) if len(header) <= MAX_RANGE_HEADER else None
    if found is None:
        raise RangeRefused
    first, last = found.groups()
    if first:
        start, stop = int(first), min(int(last) + 1, size) if last else size
    elif last:
        start, stop = max(0, size - int(last)), size
    else:
        raise RangeRefused
    if start >= stop:
        raise RangeRefused
    return start, stop


def video_response(path: Path, *, etag: str, method: str, range_: str | None, if_range: str | None) -> Response:
    """A video, or the part of it that was asked for: 200, 206 or 416.

    Args:
        etag: of the file, in quotes; a part is only sent of the file that the browser has begun (If-Range).
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    size = os.fstat(descriptor).st_size
    headers = {
        "accept-ranges": "bytes",
        "etag": etag,
        "cache-control": "private, max-age=86400, immutable",
        "content-type": "video/mp4",
    }
    try:
        wanted = parse_range(range_ if if_range in {None, etag} else None, size)
    except RangeRefused:
        os.close(descriptor)
        return Response(status_code=416, headers={**headers, "content-range": f"bytes */{size}"})
    start, stop = wanted if wanted is not None else (0, size)
    headers["content-length"] = str(stop - start)
    if wanted is not None:
        headers["content-range"] = f"bytes {start}-{stop - 1}/{size}"
    status = 200 if wanted is None else 206
    if method == "HEAD":
        os.close(descriptor)
        return Response(status_code=status, headers=headers)
    return StreamingResponse(_bytes(descriptor, start, stop), status_code=status, headers=headers)


def _bytes(descriptor: int, start: int, stop: int) -> Iterator[bytes]:
    with os.fdopen(descriptor, "rb") as file:
        file.seek(start)
        while start < stop:
            data = file.read(min(_CHUNK, stop - start))
            if not data:
                return
            start += len(data)
            yield data
