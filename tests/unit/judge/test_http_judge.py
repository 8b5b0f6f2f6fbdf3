"""A scorer behind HTTP: the wire against the real worker on loopback, and every way in which a scorer can be wrong."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from command_line import densedpo
from densedpo.core.errors import BadInput
from densedpo.core.records import Pair
from densedpo.core.workspace import Project
from densedpo.judge.protocol import JudgeUnavailable, PairClips
from densedpo.judge.reward import http as wire
from densedpo.judge.reward.http import HttpConfig, HttpJudge, Scorer, as_clip, ask_who, checked_url
from densedpo.judge.reward.worker import (
    Refused,
    Sharpness,
    decoded,
    golden_clip,
    load,
    scores_of,
    self_test,
    server,
    thinned,
)

NewPair = Callable[..., Pair]
SEGMENTS = ((0, 9), (9, 17), (17, 25), (25, 33))


@contextmanager
def serving(running: ThreadingHTTPServer) -> Iterator[str]:
    thread = threading.Thread(target=running.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_address[1]}/"
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


@pytest.fixture(scope="module")
def worker() -> Iterator[str]:
    with serving(server(Sharpness(), host="127.0.0.1", port=0)) as url:
        yield url


@contextmanager
def scripted(*replies: tuple[int, bytes]) -> Iterator[tuple[str, list[str]]]:
    """A server that gives these answers in turn, then the last one again, and a list of what was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, body = replies[min(len(asked), len(replies) - 1)]
            asked.append(self.command)
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _answer  # noqa: N815

        def log_message(self, *args: object) -> None: ...

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as url:
        yield url, asked


ABOUT = json.dumps({"format": wire.FORMAT, "scorer": "script 1", "fps": None}).encode()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_PAUSES_S", (0.0, 0.0))


def test_the_worker_judges_over_the_wire(worker: str, new_pair: NewPair, clean: np.ndarray) -> None:
    """What comes back is what the scorer says of the very frames: PNG loses nothing."""
    judge = HttpJudge(worker, HttpConfig())
    dull = (clean // 4).astype(np.uint8)
    answers = judge.judge(PairClips(pair=new_pair(), a=clean, b=dull), SEGMENTS)
    own = [Sharpness().score(clean[start:stop], 8.0, "") for start, stop in SEGMENTS]
    assert [answer.score_a for answer in answers] == own
    assert [answer.answer for answer in answers] == ["a"] * 4
    assert "sharpness 1" in judge.instructions


def test_whole_clips_are_scored_once_and_answer_every_segment(
    worker: str, new_pair: NewPair, clean: np.ndarray, faulty: np.ndarray
) -> None:
    judge = HttpJudge(worker, HttpConfig(whole_clip=True))
    answers = judge.judge(PairClips(pair=new_pair(), a=clean, b=faulty), SEGMENTS)
    assert {answer.score_a for answer in answers} == {Sharpness().score(clean, 8.0, "")}
    assert len(answers) == 4


def test_other_addresses_and_options_are_other_annotators(worker: str) -> None:
    usual, patient = HttpJudge(worker, HttpConfig()), HttpJudge(worker, HttpConfig(timeout_s=7.0))
    assert HttpJudge(worker, HttpConfig(margin=0.1)).annotator != usual.annotator
    # how long to wait says nothing about the answers
    assert (patient.annotator, patient.instructions) == (usual.annotator, usual.instructions)


def test_frames_are_thinned_to_the_rate_that_the_scorer_wants(clean: np.ndarray) -> None:
    clip = as_clip(clean[:9], fps=8.0, scorer=Scorer(name="x", fps=2.0))
    assert clip["fps"] == 2.0
    assert np.array_equal(decoded(clip["frames"]), clean[:9:4])
    assert len(thinned(clean[:9], 8.0, 2.0)) == 3


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/", "127.0.0.1:80", "http://user:secret@host/"])
def test_addresses_that_are_none_are_refused_without_saying_them(url: str) -> None:
    with pytest.raises(BadInput) as refused:
        checked_url(url)
    assert "secret" not in str(refused.value)


def test_nobody_there_is_said_with_the_way_out() -> None:
    with pytest.raises(BadInput, match=r"cannot be reached.*start the scorer"):
        HttpJudge("http://127.0.0.1:9/", HttpConfig())


def test_a_passing_fault_is_tried_again_and_a_refusal_is_not() -> None:
    with scripted((503, b"busy"), (503, b"busy"), (200, ABOUT)) as (url, asked):
        assert HttpJudge(url, HttpConfig()).instructions.count("script 1") == 1
        assert asked == ["GET"] * 3
    with scripted((400, b"no\nsuch thing")) as (url, asked):
        with pytest.raises(BadInput, match="answers 400: no such thing"):
            HttpJudge(url, HttpConfig())
        assert asked == ["GET"]
    with scripted((503, b"busy")) as (url, asked):
        with pytest.raises(BadInput, match="answers 503"):
            HttpJudge(url, HttpConfig())
        assert asked == ["GET"] * 3


@contextmanager
def slow_or_cut(*answers: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[tuple[str, list[int]]]:
    """A server whose answers are written by these functions in turn, then by the last one again, and a list of them."""
    asked: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(1)
            self.send_response(200)
            self.send_header("Content-Length", str(len(ABOUT)))
            self.end_headers()
            with contextlib.suppress(OSError):  # the other side may have left
                answers[min(len(asked), len(answers)) - 1](self)

        def log_message(self, *args: object) -> None: ...

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as url:
        yield url, asked


def whole(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(ABOUT)


def half(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(ABOUT[:10])


def drips(handler: BaseHTTPRequestHandler) -> None:
    """A byte every 50 ms: a whole answer takes seconds, no single byte long."""
    for byte in ABOUT:
        handler.wfile.write(bytes([byte]))
        time.sleep(0.05)


def test_f77_an_answer_that_drips_ends_at_its_time_and_may_come_later() -> None:
    started = time.monotonic()
    with slow_or_cut(drips) as (url, asked):
        with pytest.raises(JudgeUnavailable, match="no whole answer in the time"):
            ask_who(url, timeout_s=0.2)
        assert len(asked) == 3
        assert time.monotonic() - started < 2.5  # three tries of at most 0.25 s each; one whole answer takes 3 s


def test_f77_an_answer_that_is_cut_off_is_asked_for_again() -> None:
    with slow_or_cut(half, whole) as (url, asked):
        assert ask_who(url, timeout_s=5.0) == Scorer(name="script 1", fps=None)
        assert len(asked) == 2


def test_f77_a_server_that_speaks_no_tls_is_not_waited_for() -> None:
    with scripted((200, ABOUT)) as (url, _), pytest.raises(BadInput, match="cannot be reached") as refused:
        HttpJudge(url.replace("http:", "https:"), HttpConfig())
    assert not isinstance(refused.value, JudgeUnavailable)


@pytest.mark.parametrize(
    "about",
    [
        b"<html>", b"[]", b"{}", b'{"format": "other/1", "scorer": "x"}',
        json.dumps({"format": wire.FORMAT, "scorer": "x", "fps": 0}).encode(),
        json.dumps({"format": wire.FORMAT, "scorer": "x", "fps": True}).encode(),
        b" " * (wire.MAX_REPLY_BYTES + 1),
    ],
)  # fmt: skip
def test_what_is_no_scorer_is_refused(about: bytes) -> None:
    with scripted((200, about)) as (url, _), pytest.raises(BadInput, match=r"127\.0\.0\.1"):
        HttpJudge(url, HttpConfig())


@pytest.mark.parametrize(
    "scores",
    [{}, {"a0": 1}, {"a0": 1, "b0": None}, {"a0": 1, "b0": True}, {"a0": 1, "b0": "2"}, {"a0": 1, "b0": 2, "c0": 3}],
)
def test_an_answer_without_a_score_for_each_clip_is_no_vote(
    scores: dict[str, object], new_pair: NewPair, clean: np.ndarray
) -> None:
    with scripted((200, ABOUT), (200, json.dumps({"scores": scores}).encode())) as (url, _):
        judge = HttpJudge(url, HttpConfig())
        with pytest.raises(BadInput, match="score"):
            judge.judge(PairClips(pair=new_pair(), a=clean, b=clean), [(0, 33)])


def test_infinite_scores_are_refused(new_pair: NewPair, clean: np.ndarray) -> None:
    with scripted((200, ABOUT), (200, b'{"scores": {"a0": 1e999, "b0": 0}}')) as (url, _):
        judge = HttpJudge(url, HttpConfig())
        with pytest.raises(BadInput, match="no finite number"):
            judge.judge(PairClips(pair=new_pair(), a=clean, b=clean), [(0, 33)])


def test_judge_http_on_the_command_line(worker: str, fresh_project: Project) -> None:
    done = densedpo("judge", "http", worker, "demo", "--project", fresh_project.root)
    assert (done.code, "judged 3 of 3 pairs" in done.out) == (0, True)


def test_the_golden_clip_puts_ruined_copies_below() -> None:
    scores = self_test(Sharpness())
    assert scores["clean"] == scores["again"] > max(scores["noisy"], scores["blurred"])
    assert golden_clip().shape == (16, 256, 256, 3)


@pytest.mark.parametrize(
    ("answers", "said"),
    [((1.0, 1.0, 2.0, 0.0), "ruined"), ((1.0, 0.0, 0.0, 0.0), "again"), ((1.0, 1.0, float("nan"), 0.0), "finite")],
)
def test_a_model_that_fails_its_golden_clip_is_not_served(answers: tuple[float, ...], said: str) -> None:
    class Wrong:
        name = "wrong"
        fps = None

        def __init__(self) -> None:
            self.left = list(answers)

        def score(self, frames: np.ndarray, fps: float, caption: str) -> float:
            return self.left.pop(0)

    with pytest.raises(Refused, match=said):
        self_test(Wrong())


def test_models_without_weights_code_or_leave_are_refused(tmp_path: Path) -> None:
    for model in ("videoscore", "videoreward", "visionreward"):
        with pytest.raises(Refused, match="weights are not at"):
            load(model, weights=tmp_path / "absent")
    with pytest.raises(Refused, match="pass --code"):
        load("videoreward", weights=tmp_path)
    with pytest.raises(Refused, match=r"model_config\.json is missing"):
        load("videoreward", weights=tmp_path, code=tmp_path)
    with pytest.raises(Refused, match="--trust-code"):
        load("visionreward", weights=tmp_path)
    with pytest.raises(Refused, match=r"VisionReward_video_qa_select\.txt is missing"):
        load("visionreward", weights=tmp_path, trust_code=True)
    with pytest.raises(Refused, match="mantis"):
        load("videoscore", weights=tmp_path)
    with pytest.raises(Refused, match="no model"):
        load("other", weights=None)


@pytest.mark.parametrize(
    "body",
    [
        b"x", b"[]", b'{"format": "other"}', json.dumps({"format": wire.FORMAT, "clips": [{}]}).encode(),
        json.dumps({"format": wire.FORMAT, "clips": [{"id": 0, "fps": 8, "caption": "", "frames": []}]}).encode(),
        json.dumps({"format": wire.FORMAT, "clips": [{"id": 0, "fps": 8, "caption": "", "frames": ["?"]}]}).encode(),
        json.dumps({"format": wire.FORMAT, "clips": [{"id": 0, "fps": 8, "caption": "", "frames": ["AAAA"]}]}).encode(),
    ],
)  # fmt: skip
def test_the_worker_refuses_what_is_no_request(body: bytes) -> None:
    with pytest.raises(Refused):
        scores_of(Sharpness(), body)
