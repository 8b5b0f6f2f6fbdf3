"""Judges with a planted reward for the tests of online runs, by import path: `online_judges:Brightness`."""

from __future__ import annotations

from pathlib import Path

from densedpo.judge.protocol import JudgeUnavailable, SegmentAnswer


class _Scorer:
    """Scores each clip by itself; higher is better."""

    annotator = ""
    instructions = "planted 1"

    def check(self, pair) -> None:
        """Every pair will do."""

    def score(self, frames, fps: float) -> float:
        raise NotImplementedError

    def judge(self, clips, segments):
        fps = clips.pair.fps
        return tuple(
            SegmentAnswer.scored(self.score(clips.a[start:stop], fps), self.score(clips.b[start:stop], fps), 0.0)
            for start, stop in segments
        )


class Brightness(_Scorer):
    """The brighter clip wins: the mean of all levels over 255."""

    annotator = "brightness"

    def score(self, frames, fps):
        return float(frames.mean()) / 255


class Bright(Brightness):
    """The same judge under another import path."""


class Seesaw(_Scorer):
    """Clip a is ahead by a little in what comes first, clip b by more in what comes after."""

    annotator = "seesaw"

    def judge(self, clips, segments):
        scores = ((0.6, 0.5) if start == 0 else (0.1, 0.9) for start, _ in segments)
        return tuple(SegmentAnswer.scored(a, b, 0.0) for a, b in scores)


class Darkness(Brightness):
    """The opposite of `Brightness`."""

    annotator = "darkness"

    def score(self, frames, fps):
        return -super().score(frames, fps)


class Stillness(_Scorer):
    """The clip that changes less from frame to frame wins."""

    annotator = "stillness"

    def score(self, frames, fps):
        return -float(abs(frames[1:].astype(float) - frames[:-1]).mean()) / 255


class Same(_Scorer):
    """Every clip scores the same."""

    annotator = "same"

    def score(self, frames, fps):
        return 1.0


class Away(Brightness):
    """Brightness, but it does not answer while a file is there; each time it is asked the file loses a line."""

    annotator = "away"

    def __init__(self, file: str) -> None:
        self._file = Path(file)

    def judge(self, clips, segments):
        left = self._file.read_text().splitlines() if self._file.exists() else []
        if left:
            self._file.write_text("\n".join(left[1:]))
            raise JudgeUnavailable("the planted judge is away")
        return super().judge(clips, segments)


class Compares(Brightness):
    """Answers without scores, as a judge that only compares."""

    annotator = "compares"

    def judge(self, clips, segments):
        return tuple(SegmentAnswer(answer=answer.answer) for answer in super().judge(clips, segments))
