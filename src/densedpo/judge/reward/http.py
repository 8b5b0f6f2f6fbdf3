"""Any scorer behind HTTP as a judge: frames go out, one score for each clip comes back.

The wire format, version 1. `GET URL` answers a JSON object that says who is there:

    {"format": "densedpo-scores/1", "scorer": "name and version", "fps": 8.0}

`fps` is the rate at which the scorer wants to see frames; null takes them as they are. `POST URL` sends clips as PNG
pictures in base64, in time order, and the answer has one finite number for each clip, higher for the better one:

    {"format": "densedpo-scores/1", "clips": [{"id": "a0", "fps": 8.0, "caption": "...", "frames": ["iVBOR...", ...]}]}
    {"scores": {"a0": 0.31}}

A clip is one segment of one side, or a whole side where `whole_clip` is set. Which side it is must not matter.
"""

from __future__ import annotations

import base64
import http.client
import json
import math
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import cv2
from pydantic import Field, JsonValue

from densedpo.core.config import Config
from densedpo.core.errors import BadInput
from densedpo.core.records import Pair
from densedpo.judge.protocol import Frames, JudgeUnavailable, PairClips, SegmentAnswer, annotator_name

FORMAT: Final = "densedpo-scores/1"
MAX_REPLY_BYTES: Final = 1 << 20
_VERSION: Final = 1
_PAUSES_S: Final = (0.5, 2.0)  # before the second and the third try
_PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})


class HttpConfig(Config):
    """Options of `judge http`."""

    segment_seconds: float = Field(default=1.0, gt=0, description="length of a segment")
    margin: float = Field(default=0.0, ge=0, description="scores that differ by less are a tie; the scorer's own scale")
    whole_clip: bool = Field(
        default=False, description="send clips as a whole and give every segment that answer, for scorers of long clips"
    )
    timeout_s: float = Field(default=300.0, gt=0, description="how long one answer may take")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorer:
    """Who answers at an address, and at which rate it wants frames (None: as they are)."""

    name: str
    fps: float | None


class HttpJudge:
    """Sends each clip to a scorer; the higher score wins, and within the margin it is a tie."""

    def __init__(self, url: str, config: HttpConfig) -> None:
        """Asks the scorer who it is.

        Raises:
            BadInput: the address is no http(s) URL or holds a password, nobody answers, or it is no such scorer.
        """
        self._url, self._config = checked_url(url), config
        self._scorer = ask_who(self._url, timeout_s=config.timeout_s)
        options = {"url": self._url, **config.model_dump(exclude={"timeout_s"})}
        self._annotator = annotator_name("http", options, {})
        meaning = {**options, "scorer": self._scorer.name, "fps": self._scorer.fps}
        self._instructions = f"http {_VERSION}: {json.dumps(meaning, sort_keys=True)}"

    @property
    def annotator(self) -> str:
        """`http-` and a hash of the address and the options."""
        return self._annotator

    @property
    def instructions(self) -> str:
        """The address, the options, and who answered there."""
        return self._instructions

    def check(self, pair: Pair) -> None:
        """Every pair will do."""

    def judge(self, clips: PairClips, segments: Sequence[tuple[int, int]]) -> tuple[SegmentAnswer, ...]:
        """One answer for each segment.

        Raises:
            BadInput: the scorer refuses, does not answer, or leaves out a score.
        """
        ranges = [(0, len(clips.a))] if self._config.whole_clip else list(segments)
        sent = {
            f"{side}{index}": as_clip(frames[start:stop], fps=clips.pair.fps, scorer=self._scorer)
            for side, frames in (("a", clips.a), ("b", clips.b))
            for index, (start, stop) in enumerate(ranges)
        }
        scores = self._scores(sent, clips.pair.caption)
        pairs = [(scores[f"a{index}"], scores[f"b{index}"]) for index in range(len(ranges))]
        answers = [SegmentAnswer.scored(a, b, self._config.margin) for a, b in pairs]
        return tuple(answers * len(segments) if self._config.whole_clip else answers)

    def _scores(self, sent: Mapping[str, Mapping[str, JsonValue]], caption: str) -> dict[str, float]:
        body = {"format": FORMAT, "clips": [{"id": id_, "caption": caption, **clip} for id_, clip in sent.items()]}
        reply = exchange(self._url, json.dumps(body).encode(), timeout_s=self._config.timeout_s)
        scores = reply.get("scores")
        if not isinstance(scores, dict) or set(scores) != set(sent):
            raise BadInput(f"{self._url}: its answer has no score for every clip that was sent, and for no other")
        found = {}
        for id_, score in scores.items():
            if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
                raise BadInput(f"{self._url}: the score of a clip is {score!r}, which is no finite number")
            found[id_] = float(score)
        return found


def checked_url(url: str) -> str:
    """An address that may be called, and stored beside labels.

    Raises:
        BadInput: it is not http or https, names no host, or holds a user or password.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput("the scorer's address has to begin with http:// or https:// and name a host")
    if parts.username or parts.password:
        raise BadInput(
            "the scorer's address holds a user or password, which would be stored with each label; remove it"
        )
    return url


def ask_who(url: str, *, timeout_s: float) -> Scorer:
    """Who answers at an address.

    Raises:
        BadInput: nobody, or something else than a scorer of this format.
    """
    about = exchange(url, None, timeout_s=min(timeout_s, 30.0))
    name, fps = about.get("scorer"), about.get("fps")
    if about.get("format") != FORMAT or not isinstance(name, str) or not name:
        raise BadInput(f"{url} answers, but is no scorer of format {FORMAT}; see the docs on judges")
    if fps is None:
        return Scorer(name=name, fps=None)
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not (math.isfinite(fps) and fps > 0):
        raise BadInput(f"{url}: its frame rate is {fps!r}; it has to be a number above 0, or null")
    return Scorer(name=name, fps=float(fps))


def as_clip(frames: Frames, *, fps: float, scorer: Scorer) -> dict[str, JsonValue]:
    """A clip on the wire: the frames nearest to the scorer's rate, never more than there are, as PNG."""
    step = 1 if scorer.fps is None else max(1, round(fps / scorer.fps))
    pictures: list[JsonValue] = []
    for frame in frames[::step]:
        _, data = cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        pictures.append(base64.b64encode(data.tobytes()).decode("ascii"))
    return {"fps": fps / step, "frames": pictures}


def exchange(url: str, body: bytes | None, *, timeout_s: float) -> dict[str, JsonValue]:
    """The JSON object that an address answers, tried three times where trying again may help.

    Args:
        timeout_s: how long each try may take, to the last byte of its answer.

    Raises:
        JudgeUnavailable: it cannot be reached, does not answer in time, or says that it cannot answer now.
        BadInput: it refuses, answers something else, or there is no trusted connection to it.
    """
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    for pause in (*_PAUSES_S, None):
        ends = time.monotonic() + timeout_s
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as reply:
                return _object(_read(reply, ends=ends), url)
        except urllib.error.HTTPError as error:
            said = error.read(300).decode("utf-8", errors="replace").strip().replace("\n", " ")
            problem, passing = f"answers {error.code}: {said or error.reason}", error.code in _PASSING
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            # a certificate that is not trusted, or a server without TLS, will not be there later either
            is_tls = isinstance(error, urllib.error.URLError) and isinstance(error.reason, ssl.SSLError)
            problem, passing = f"cannot be reached: {error}", not is_tls
        if pause is None or not passing:
            break
        time.sleep(pause)
    if passing:
        raise JudgeUnavailable(
            f"{url} {problem}; start the scorer and run the command again: what was judged is stored"
        )
    raise BadInput(f"{url} {problem}; what was judged before is stored")


def _read(reply: http.client.HTTPResponse, *, ends: float) -> bytes:
    """The body piece by piece, so that a scorer that drips does not outrun its time; one byte too many says too long.

    Raises:
        TimeoutError, http.client.IncompleteRead: the time was up, or the connection gone, before its end.
    """
    data = bytearray()
    while piece := reply.read1(MAX_REPLY_BYTES + 1 - len(data)):
        data += piece
        if len(data) > MAX_REPLY_BYTES:
            return bytes(data)
        if time.monotonic() > ends:
            raise TimeoutError("no whole answer in the time that it may take (timeout_s)")
    if reply.length:
        raise http.client.IncompleteRead(bytes(data), reply.length)
    return bytes(data)


def _object(data: bytes, url: str) -> dict[str, JsonValue]:
    if len(data) > MAX_REPLY_BYTES:
        raise BadInput(f"{url}: its answer is longer than {MAX_REPLY_BYTES} bytes")
    try:
        row = json.loads(data)
    except (json.JSONDecodeError, UnicodeDecodeError):
        row = None
    if not isinstance(row, dict):
        raise BadInput(f"{url}: its answer is no JSON object")
    return row
