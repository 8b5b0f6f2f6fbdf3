"""The child process that decodes: requests as JSON lines on stdin, answers as a JSON line and raw bytes on stdout.

No pickle in either direction, so that a hostile video that takes over this process gains nothing in the parent. The
process limits itself before it opens anything, and ends when the parent closes stdin, however the parent ends.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import av.logging
import numpy as np
from numpy.typing import NDArray

from densedpo.data.decoding.frames import Limits, Undecodable, read_clips, scan

MAX_OPEN_FILES = 64


def main() -> None:
    """Serves requests until stdin ends. The first line holds the limits."""
    av.logging.set_level(None)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing that a library prints is an answer
    requests = sys.stdin.buffer
    limits = Limits(**json.loads(requests.readline()))
    restrict(limits)
    _send(answers, {"kind": "ready"}, {})
    for line in requests:
        allow_cpu_for_one_more_file(limits)
        try:
            _serve(json.loads(line), limits, answers)
        except Undecodable as error:
            _send(answers, {"kind": "undecodable", "reason": str(error)}, {})
        except MemoryError:
            _send(answers, {"kind": "undecodable", "reason": "needs more memory than decoding is allowed"}, {})


def restrict(limits: Limits) -> None:
    """Bounds what this process can take: memory, files written (none) and open, core dumps (none)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_OPEN_FILES, MAX_OPEN_FILES))
    if sys.platform == "linux":  # macOS refuses to bound the address space
        # what is mapped already counts too, and grows with the number of processors
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        bound = pages * resource.getpagesize() + limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))


def allow_cpu_for_one_more_file(limits: Limits) -> None:
    """Moves the CPU bound, which counts from the start of the process, to one file's worth from now."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used_s = int(usage.ru_utime + usage.ru_stime)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (used_s + limits.cpu_s, hard))


def _serve(request: Mapping[str, object], limits: Limits, answers: BinaryIO) -> None:
    path = Path(str(request["path"]))
    match request["kind"]:
        case "scan":
            fields = asdict(scan(path, limits))
            arrays = {name: fields.pop(name) for name in ("times_s", "thumbnails", "histograms")}
            _send(answers, {"kind": "scan", **fields}, arrays)
        case "clips":
            size = {name: int(str(request[name])) for name in ("height", "width")}
            times: list[list[float]] = json.loads(str(request["times_s"]))
            for frames in read_clips(path, limits, times_s=times, **size):
                _send(answers, {"kind": "clip"}, {"frames": frames})
            _send(answers, {"kind": "end"}, {})
        case unknown:
            raise AssertionError(f"unknown request {unknown!r}")


def _send(answers: BinaryIO, header: Mapping[str, object], arrays: Mapping[str, NDArray[np.generic]]) -> None:
    shapes = {name: {"dtype": str(array.dtype), "shape": array.shape} for name, array in arrays.items()}
    answers.write(json.dumps({**header, "arrays": shapes}).encode() + b"\n")
    answers.writelines(np.ascontiguousarray(array).tobytes() for array in arrays.values())
    answers.flush()


if __name__ == "__main__":
    main()
