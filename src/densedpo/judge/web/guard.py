"""What stands before every request: where it goes, where it comes from, how large it is; and headers on every answer.

A page of another site can make a browser send requests here, and a name that it controls can be pointed at this machine
(DNS rebinding). So the Host must be exactly ours, and what changes anything must come from our own pages, as JSON.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from densedpo.core.errors import BadInput

MAX_HEADER_BYTES: Final = 8_192
MAX_BODY_BYTES: Final = 65_536
BODY_TIMEOUT_S: Final = 10.0
_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
_CONTENT_SECURITY_POLICY: Final = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
_HEADERS: Final = {
    "content-security-policy": _CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where the studio is reached: the values that Host and Origin may have, and nothing else."""

    hosts: frozenset[str]
    origins: frozenset[str]
    url: str
    is_https: bool

    @classmethod
    def local(cls, port: int) -> Address:
        """This machine only."""
        hosts = frozenset(f"{name}:{port}" for name in _LOOPBACK)
        origins = frozenset(f"http://{host}" for host in hosts)
        return cls(hosts=hosts, origins=origins, url=f"http://127.0.0.1:{port}/", is_https=False)

    @classmethod
    def public(cls, url: str) -> Address:
        """Behind a proxy that ends TLS.

        Raises:
            BadInput: not an https URL of a host alone.
        """
        parts = urlsplit(url)
        bare = parts.path in {"", "/"} and not (parts.query or parts.fragment or "@" in parts.netloc)
        if parts.scheme != "https" or not parts.netloc or not bare:
            raise BadInput(f"--public-url {url}: write it as https://label.example.org, without a path")
        host = parts.netloc.lower().removesuffix(":443")
        return cls(
            hosts=frozenset({host}), origins=frozenset({f"https://{host}"}), url=f"https://{host}/", is_https=True
        )


class _TooLarge(Exception):
    pass


class Guard:
    """Wraps the app. Refusals are short, and say nothing about what lies behind."""

    def __init__(self, app: ASGIApp, address: Address) -> None:
        """Before `app`, for requests to `address`."""
        self._app: Final = app
        self._address: Final = address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a refused request, and hands on the others."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                extra = [(k.encode(), v.encode()) for k, v in _HEADERS.items() if k.encode() not in present]
                if b"cache-control" not in present:
                    extra.append((b"cache-control", b"no-store"))
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        refusal = self._refusal(scope)
        body = b""
        if refusal is None and scope["method"] == "POST":
            try:
                body = await asyncio.wait_for(_body(receive), BODY_TIMEOUT_S)
            except _TooLarge:
                refusal = 413, "too large"
            except TimeoutError:
                refusal = 408, "too slow"
        if refusal is not None:
            await _answer(*refusal)(scope, receive, send_with_headers)
            return
        await self._app(scope, _replayed(body, receive), send_with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        raw: list[tuple[bytes, bytes]] = scope["headers"]
        if sum(len(name) + len(value) for name, value in raw) > MAX_HEADER_BYTES:
            return 431, "headers too large"
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in raw}
        if [name for name, _ in raw].count(b"host") != 1 or headers["host"].lower() not in self._address.hosts:
            return 421, "this studio is not at that address"
        method: str = scope["method"]
        if method not in {"GET", "HEAD", "POST"}:
            return 405, "not allowed"
        return self._refused_post(headers) if method == "POST" else None

    def _refused_post(self, headers: Mapping[str, str]) -> tuple[int, str] | None:
        if "origin" in headers and headers["origin"].lower() not in self._address.origins:
            return 403, "from another site"
        # every browser names the origin of a POST or how it came about; what names neither is no browser
        if headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return 403, "from another site"
        if headers.get("content-type", "").split(";", maxsplit=1)[0].strip().lower() != "application/json":
            return 415, "send JSON"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:12]) > MAX_BODY_BYTES:
            return 413, "too large"
        return None


def _answer(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": text}, status_code=status, headers={"connection": "close"})


async def _body(receive: Receive) -> bytes:
    """The whole body of a request; it is small, and whoever sends more is cut off."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b""
        parts.append(message.get("body", b""))
        if sum(map(len, parts)) > MAX_BODY_BYTES:
            raise _TooLarge
        if not message.get("more_body", False):
            return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    is_told = False

    async def replayed() -> Message:
        nonlocal is_told
        if is_told:  # what comes now is that the browser went away
            return await receive()
        is_told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
