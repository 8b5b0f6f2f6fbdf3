"""The parent's side of decoding: one child process serves file after file and is replaced when a file kills it.

A video decoder is a large body of C code fed by strangers. It runs where a crash, a hang or a bomb costs one file: the
child has limits on CPU time, memory and files, and answers within a time or is killed.
"""

from __future__ import annotations

import json
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from densedpo.data.decoding.frames import HISTOGRAM_BINS, THUMBNAIL, Frames, Limits, Scan, Undecodable

CHILD: Final = (sys.executable, "-P", "-m", "densedpo.data.decoding.child")
_MAX_HEADER_BYTES: Final = 1 << 16
_START_S: Final = 120.0  # for a child to import what it needs, on a machine that is busy
_Arrays = dict[str, NDArray[np.generic]]


class DecoderStopped(Undecodable):
    """The child was lost on a file (crash, time or CPU limit); another machine or limit may do better."""


class Decoder:
    """Decodes videos in a child process.

    Args:
        limits: what one file may cost.
        timeout_s: how long the scan of a file, or one clip of it, may take.
        command: what to start as the child.
    """

    def __init__(self, *, limits: Limits, timeout_s: float, command: Sequence[str] = CHILD) -> None:
        self._limits = limits
        self._timeout_s = timeout_s
        self._command = tuple(command)
        self._child: subprocess.Popen[bytes] | None = None
        self._buffer = bytearray()
        self._deadline = math.inf

    @property
    def child_id(self) -> int | None:
        """The process id of the child, None while there is none."""
        return self._child.pid if self._child is not None else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def scan(self, path: Path) -> Scan:
        """One pass over a video: its times, and what scene cuts are found from.

        Raises:
            Undecodable: the reason is in the message.
        """
        self._ask({"kind": "scan", "path": str(path.absolute())})
        header, arrays = self._answer()
        times = arrays["times_s"].astype(np.float64, copy=False)
        found = Scan(
            times_s=times,
            end_s=float(str(header["end_s"])),
            thumbnails=arrays["thumbnails"].astype(np.uint8, copy=False),
            histograms=arrays["histograms"].astype(np.float32, copy=False),
            height=int(str(header["height"])),
            width=int(str(header["width"])),
        )
        expected = ((len(times), THUMBNAIL, THUMBNAIL, 3), (len(times), 3, HISTOGRAM_BINS))
        if (found.thumbnails.shape, found.histograms.shape) != expected:
            raise self._lost("answered with arrays of other shapes than asked for")
        return found

    def clips(self, path: Path, *, times_s: Sequence[Sequence[float]], height: int, width: int) -> Iterator[Frames]:
        """Clips of a video, each uint8 [F, height, width, 3], at these times in seconds from its first frame.

        Raises:
            Undecodable: the reason is in the message.
        """
        wanted = json.dumps([list(clip_times) for clip_times in times_s])
        size = {"height": height, "width": width}
        self._ask({"kind": "clips", "path": str(path.absolute()), "times_s": wanted, **size})
        is_answered = False
        try:
            for clip_times in times_s:
                self._deadline = time.monotonic() + self._timeout_s  # what the caller did meanwhile is not the file's
                _, arrays = self._answer()
                frames = arrays["frames"].astype(np.uint8, copy=False)
                if frames.shape != (len(clip_times), height, width, 3):
                    raise self._lost("answered with arrays of other shapes than asked for")
                yield frames
            self._answer()
            is_answered = True
        finally:
            if not is_answered:  # what is left of this answer would be taken for the next one
                self._stop()

    def _ask(self, request: Mapping[str, object]) -> None:
        child = self._child
        if child is None or child.poll() is not None:
            child = self._start()
        self._deadline = time.monotonic() + self._timeout_s
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
        except BrokenPipeError:
            raise self._lost("") from None

    def _start(self) -> subprocess.Popen[bytes]:
        self._stop()
        self._deadline = time.monotonic() + _START_S
        # a session of its own: Ctrl-C is for the parent, which closes stdin and so ends the child
        self._child = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(asdict(self._limits)).encode() + b"\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            raise self._lost("") from None
        self._answer()
        return self._child

    def _answer(self) -> tuple[dict[str, object], _Arrays]:
        """The next answer; one that says that the file is undecodable is raised."""
        header: dict[str, object] = json.loads(self._line())
        shapes = header.pop("arrays")
        if header["kind"] == "undecodable":
            raise Undecodable(str(header["reason"]))
        assert isinstance(shapes, dict)
        arrays: _Arrays = {}
        for name, form in shapes.items():
            dtype = {"uint8": np.uint8, "float32": np.float32, "float64": np.float64}[form["dtype"]]
            shape = tuple(int(side) for side in form["shape"])
            size = math.prod(shape) * np.dtype(dtype).itemsize
            if size > self._limits.memory_bytes:
                raise self._lost("answered with more than it may hold")
            arrays[name] = np.frombuffer(self._take(size), dtype=dtype).reshape(shape)
        return header, arrays

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > _MAX_HEADER_BYTES:
                raise self._lost("answered with something that is no answer")
            self._fill()
        return self._take(end + 1)

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._fill()
        taken = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        return taken

    def _fill(self) -> None:
        """Waits for more bytes from the child."""
        assert self._child is not None
        assert self._child.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._child.stdout, selectors.EVENT_READ)
            ready = selector.select(timeout=max(0.0, self._deadline - time.monotonic()))
        if not ready:
            raise self._lost(f"took longer than {self._timeout_s:g} s to decode")
        received = os.read(self._child.stdout.fileno(), 1 << 20)
        if not received:
            raise self._lost("")
        self._buffer += received

    def _lost(self, reason: str) -> DecoderStopped:
        """Ends the child and says why, from its exit code where no reason is known."""
        child = self._child
        assert child is not None
        if not reason:
            try:
                code = child.wait(timeout=5)
            except subprocess.TimeoutExpired:
                code = -signal.SIGKILL
            if code == -signal.SIGXCPU:
                reason = f"took more than {self._limits.cpu_s} s of CPU time to decode"
            elif code < 0:
                reason = f"crashed the decoder ({signal.Signals(-code).name})"
            else:
                reason = f"stopped the decoder (exit code {code})"
        self._stop()
        return DecoderStopped(reason)

    def _stop(self) -> None:
        child, self._child = self._child, None
        self._buffer.clear()
        if child is None:
            return
        assert child.stdin is not None
        assert child.stdout is not None
        child.kill()
        child.wait()
        child.stdout.close()
        with suppress(BrokenPipeError):  # a request that the dead child never read
            child.stdin.close()
