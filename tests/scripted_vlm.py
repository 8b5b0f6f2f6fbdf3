"""A server on loopback that answers chat completions as a script says, down to the bytes of the connection."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np

Json = dict[str, Any]
TIE = '{"answer": "tie", "reason": "alike"}'


@dataclass(kw_only=True)
class Reply:
    """What is sent back: JSON with a status, or raw bytes in place of it, then the connection is dropped."""

    status: int = 200
    body: Json | str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    drip_s: float = 0.0  # pause after each byte
    endless: bool = False
    reset: bool = False


def chat(content: str | None, *, finish_reason: str = "stop", logprobs: Json | None = None, **message: object) -> Reply:
    """A completion with one choice; 2000 tokens in, 200 out."""
    choice = {
        "index": 0, "finish_reason": finish_reason, "logprobs": logprobs,
        "message": {"role": "assistant", "content": content, **message},
    }  # fmt: skip
    usage = {"prompt_tokens": 2000, "completion_tokens": 200, "total_tokens": 2200}
    return Reply(body={"id": "chatcmpl-1", "model": "scripted", "choices": [choice], "usage": usage})


def error(status: int, code: str | None = None, message: str = "no", **headers: str) -> Reply:
    """An error in the form of OpenAI's."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, body={"error": {"message": message, "code": code, "type": None}}, headers=names)


def text_of(request: Json) -> str:
    """All text of a chat request."""
    parts = [part for message in request["messages"] for part in _parts(message["content"])]
    return "\n".join(part["text"] for part in parts if part["type"] == "text")


def videos_of(request: Json) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The RGB frames of the video that is shown first and of the other, decoded from what was sent."""
    shown: list[list[np.ndarray]] = [[]]
    for part in _parts(request["messages"][-1]["content"]):
        if part["type"] == "text":
            shown.append([])
        else:
            data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            shown[-1].append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    first, second = (frames for frames in shown if frames)
    return first, second


def brighter(request: Json) -> Reply:
    """The honest judge of the tests: the brighter video wins, a difference below one grey level is a tie."""
    first, second = (float(np.mean(frames)) for frames in videos_of(request))
    word = "tie" if abs(first - second) < 1 else "first" if first > second else "second"
    return chat(json.dumps({"answer": word, "reason": "brighter"}))


def _parts(content: str | list[Json]) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class Script:
    """A running server; `requests` holds what was asked, `headers` with which headers."""

    def __init__(self, answer: Callable[[Json, int], Reply]) -> None:
        self.answer = answer
        self.requests: list[Json] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def reply_to(self, request: Json, headers: dict[str, str]) -> Reply:
        with self._lock:
            self.requests.append(request)
            self.headers.append(headers)
            number = len(self.requests)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        return self.answer(request, number)

    def done(self) -> None:
        with self._lock:
            self._at_once -= 1


@contextmanager
def scripted(answer: Callable[[Json, int], Reply] | Reply) -> Iterator[Script]:
    """A server that gives each request, numbered from 1, to a function, or always replies the same."""
    script = Script(answer if callable(answer) else lambda _request, _number: answer)
    thread = threading.Thread(target=script.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield script
    finally:
        script.server.shutdown()
        script.server.server_close()
        thread.join(timeout=10)


def _handler(script: Script) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                self._send(
                    script.reply_to(
                        {**request, "path": self.path}, {name.lower(): value for name, value in self.headers.items()}
                    )
                )
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client has left: that is what some tests are about
            finally:
                script.done()

        def _send(self, reply: Reply) -> None:
            stopped.wait(reply.delay_s)
            if reply.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
                self.close_connection = True
                self.connection.close()
                return
            is_json = isinstance(reply.body, dict)
            data = json.dumps(reply.body).encode() if is_json else str(reply.body).encode()
            self.send_response(reply.status)
            self.send_header("Content-Type", "application/json" if is_json else "text/html")
            if not reply.endless:
                self.send_header("Content-Length", str(len(data)))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.close_connection = True
            if reply.endless:
                while True:
                    self.wfile.write(b" " * 65536)
            for at in range(len(data)) if reply.drip_s else ():
                self.wfile.write(data[at : at + 1])
                stopped.wait(reply.drip_s)
            if not reply.drip_s:
                self.wfile.write(data)

        def log_message(self, *_args: object) -> None:
            pass

    stopped = threading.Event()
    return Handler
