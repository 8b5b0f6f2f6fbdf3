"""The videos of pairs, written in this process or by one of its own beside the denoiser.

A pair's latents are on the disk before its video is asked for, so that what goes to the other process is one line that
names the pair, and the same function makes the same bytes on either side. The other process runs
`python -P -m densedpo.generate.videos`, reads a pair from a line and answers with a line, one at a time. It ends when
its input does, so that it never outlives the process that asked by more than one pair.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from densedpo.adapters import load
from densedpo.core.errors import BadInput
from densedpo.core.files import read_object
from densedpo.core.media import write_pair_mp4
from densedpo.core.records import Pair, from_row, to_row
from densedpo.core.workspace import append_jsonl
from densedpo.generate.colours import match_first_frame
from densedpo.generate.resume import PAIRS_FILE, SETTINGS_FILE

if TYPE_CHECKING:
    from densedpo.adapters.base import VideoModel
    from densedpo.generate.plan import PairPlan

FEW_PAIRS: Final = 32  # below, on a CPU, the start of a process takes longer than it saves

Finish = Callable[[Pair], "Future[Pair]"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Beside:
    """What the other process needs to decode: the model and where it runs."""

    model: Path
    device: str


def beside_of(plan: PairPlan, num_pairs: int) -> Beside | None:
    """Whether a plan's videos are written beside the denoiser.

    Where the plan leaves it open: on a GPU always; on a CPU for sets that are worth the start of a process, and only
    where the processors suffice for the threads of both.
    """
    if plan.decode == "auto":
        if torch.device(plan.device).type == "cpu":
            is_worth_it = num_pairs >= FEW_PAIRS and _num_processors() >= 2 * torch.get_num_threads()
        else:
            is_worth_it = num_pairs > 1
    else:
        is_worth_it = plan.decode == "apart"
    return Beside(model=plan.model, device=plan.device) if is_worth_it else None


@contextmanager
def finishing(model: VideoModel, folder: Path, beside: Beside | None) -> Iterator[Finish]:
    """What finishes pairs whose latents are on the disk, in the order in which they come: the video, then the row.

    Args:
        model: decodes where nothing is beside it.
        beside: what decodes in a process of its own; pairs are then finished while the caller goes on.
    """
    if beside is None:
        yield lambda pair: _finished(_finish(lambda each: write_video(model, each, folder), pair, folder))
        return
    process, thread = VideoProcess(beside, folder), ThreadPoolExecutor(max_workers=1)
    was_cut = True
    try:
        yield lambda pair: thread.submit(_finish, process.write, pair, folder)
        was_cut = False
    finally:
        if was_cut:
            process.kill()
        thread.shutdown(cancel_futures=True)
        process.close()


def _finish(write: Callable[[Pair], None], pair: Pair, folder: Path) -> Pair:
    """The row comes last: a row is never without its files."""
    write(pair)
    append_jsonl(folder / PAIRS_FILE, to_row(pair))
    return pair


def _finished(pair: Pair) -> Future[Pair]:
    future: Future[Pair] = Future()
    future.set_result(pair)
    return future


def write_video(model: VideoModel, pair: Pair, folder: Path) -> None:
    """Decodes the latents of a pair that lie in its folder and writes its video.

    Raises:
        BadInput: the latents are damaged, or the video cannot be written.
    """
    path = folder / pair.latents
    try:
        halves = load_file(path)
        latents = torch.stack([halves["a"], halves["b"]])
    except (SafetensorError, FileNotFoundError, KeyError) as error:
        raise BadInput(f"{path} does not hold the latents of a pair ({error}); run the same command again") from None
    frames = model.decode_latents(latents)
    # said in the folder, so that both ways of decoding do it
    if (folder / SETTINGS_FILE).is_file() and read_object(folder / SETTINGS_FILE).get("match_colours"):
        frames = np.stack([match_first_frame(clip) for clip in frames])
    write_pair_mp4(folder / pair.video, frames[0], frames[1], fps=pair.fps, pixel_scale=pair.pixel_scale)


class VideoProcess:
    """A process that writes videos for this one, one at a time."""

    def __init__(self, beside: Beside, folder: Path) -> None:
        """Starts it; it loads the autoencoder when the first pair comes."""
        given = {
            "model": str(beside.model),
            "device": beside.device,
            "folder": str(folder),
            "threads": torch.get_num_threads(),  # as many as here: the number of threads changes the last bits
        }
        command = [sys.executable, "-P", "-m", "densedpo.generate.videos", json.dumps(given)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def write(self, pair: Pair) -> None:
        """Returns when the pair's video is on the disk.

        Raises:
            BadInput: what the process says is wrong, or that it ended.
        """
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answers is not None
        try:
            asked.write(json.dumps(to_row(pair)) + "\n")
            asked.flush()
            line = answers.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise BadInput(f"the process that decodes clips {self._ending()}; finished pairs are kept: run it again")
        refusal = json.loads(line)["refused"]
        if refusal is not None:
            raise BadInput(refusal)

    def _ending(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "was killed, as a machine does that runs out of memory"
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()

    def close(self) -> None:
        """Lets it end, and waits until it has."""
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answers is not None
        with suppress(BrokenPipeError):
            asked.close()
        self._process.wait()
        answers.close()


def _num_processors() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def main() -> None:
    """Writes the videos that are asked for on standard input; see the top of the file."""
    # whoever asked is told to stop and says when this ends
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    given = json.loads(sys.argv[1])
    torch.set_num_threads(given["threads"])
    model, folder = load(given["model"], device=given["device"]), Path(given["folder"])
    for line in sys.stdin:
        refusal = None
        try:
            write_video(model, from_row(Pair, json.loads(line), "a pair that was asked for"), folder)
        except BadInput as error:
            refusal = str(error)
        try:
            print(json.dumps({"refused": refusal}), file=answers, flush=True)
        except BrokenPipeError:
            return


if __name__ == "__main__":
    main()
