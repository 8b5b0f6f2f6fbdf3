"""Attacks on the studio, each of which must end in a short refusal."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from densedpo.core.errors import BadInput
from densedpo.judge.credentials import DATABASE_URL, labels_at
from densedpo.judge.studies.invitations import close_owner, invite, owner_token
from densedpo.judge.web import guard
from densedpo.judge.web.guard import MAX_BODY_BYTES, Address
from densedpo.judge.web.ranges import RangeRefused, parse_range
from densedpo.judge.web.serve import serve
from densedpo.judge.web.sessions import SESSION_S, Limiter
from studio_example import PORT, Room, new_id, whole_choice

SignIn = Callable[..., httpx2.Client]
OURS = f"http://127.0.0.1:{PORT}"


def work(client: httpx2.Client) -> dict[str, object]:
    answer = client.post("/api/work", json={})
    assert answer.status_code == 200, answer.text
    return answer.json()


def save_of(assignment: str, kind: str = "draft") -> dict[str, object]:
    return {
        "id": new_id(),
        "assignment": assignment,
        "kind": kind,
        "choice": json.loads(whole_choice().model_dump_json()),
    }


@pytest.mark.parametrize(
    "path",
    [
        "/media/../../labels.db", "/media/%2e%2e%2flabels.db", "/media/..%5c..%5clabels.db", "/media//etc/passwd",
        "/media/%2fetc%2fpasswd", "/media/C:%5cwindows", "/media/%5c%5chost%5cshare", "/media/x%00.mp4",
        "/media/proc/self/environ", "/media/%ef%bc%8e%ef%bc%8e/labels.db", "/static/../app.py",
        "/static/%2e%2e%2fapp.py",
        "/static/label.js%00", "/static/LABEL.JS", "/static/__init__.py", "/labels.db", "/openapi.json", "/docs",
    ],
)  # fmt: skip
def test_no_path_leads_to_a_file(sign_in: SignIn, path: str) -> None:
    answer = sign_in("ann").get(path)
    assert answer.status_code == 404
    assert "SQLite" not in answer.text


def test_a_row_that_points_outside_its_folder_is_not_shown(room: Room, sign_in: SignIn, tmp_path: Path) -> None:
    """The pair's video is a link to a file elsewhere: the item cannot be played or submitted, only skipped."""
    ann = sign_in("ann")
    item = work(ann)["items"][0]
    pair = next(p for p in room.pairs if p.caption == item["caption"])
    video = room.pairs.folder / pair.video
    video.rename(tmp_path / "elsewhere.mp4")
    video.symlink_to(tmp_path / "elsewhere.mp4")
    answer = ann.get(item["media"])
    assert answer.status_code == 410
    assert "elsewhere" not in answer.text
    assert ann.post("/api/saves", json=save_of(item["assignment"], "submit")).status_code == 410
    skip = save_of(item["assignment"], "skip")
    skip["choice"]["reason"] = "cannot be played"
    assert ann.post("/api/saves", json=skip).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1", f"127.0.0.1:{PORT + 1}", f"0.0.0.0:{PORT}", f"[::ffff:127.0.0.1]:{PORT}",
     f"2130706433:{PORT}", f"localhost.:{PORT}", f"localhost:{PORT}@evil.example", ""],
)  # fmt: skip
def test_another_host_is_refused(sign_in: SignIn, host: str) -> None:
    """DNS rebinding: the browser believes that it talks to another site."""
    client = sign_in("ann")
    assert client.get("/", headers={"host": host}).status_code == 421
    assert client.post("/api/work", json={}, headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", [f"127.0.0.1:{PORT}", f"localhost:{PORT}", f"LOCALHOST:{PORT}", f"[::1]:{PORT}"])
def test_our_own_names_are_taken(sign_in: SignIn, host: str) -> None:
    assert sign_in().get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": f"https://127.0.0.1:{PORT}"},
        {"origin": f"http://127.0.0.1:{PORT + 1}"}, {"origin": OURS, "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"}, {"sec-fetch-site": "none"},
    ],
)  # fmt: skip
def test_other_sites_change_nothing(room: Room, sign_in: SignIn, headers: dict[str, str]) -> None:
    client = sign_in("ann")
    assert client.post("/api/work", json={}, headers=headers).status_code == 403
    assert client.post("/api/enter", json={"token": "x"}, headers=headers).status_code == 403


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_form_can_send_is_refused(sign_in: SignIn, kind: str) -> None:
    answer = sign_in("ann").post("/api/work", content=b"{}", headers={"content-type": kind, "origin": OURS})
    assert answer.status_code == 415


def test_nothing_is_changed_by_a_get_and_other_methods_are_refused(sign_in: SignIn) -> None:
    client = sign_in("ann")
    for path in ("/api/work", "/api/saves", "/api/enter", "/api/leave", "/api/previous"):
        assert client.get(path).status_code == 405
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert client.request(method, "/api/work").status_code == 405


def test_no_site_is_allowed_to_read_or_frame_us(sign_in: SignIn) -> None:
    client = sign_in("ann")
    media = work(client)["items"][0]["media"]
    for path in ("/", "/static/label.js", media, "/nothing"):
        headers = client.get(path, headers={"origin": "http://evil.example"}).headers
        policy = headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "script-src 'self'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert not [name for name in headers if name.startswith("access-control")]
        assert "server" not in headers


def test_pages_have_no_inline_script_or_style_and_name_no_other_host(sign_in: SignIn) -> None:
    for client in (sign_in(), sign_in("ann"), sign_in("boss", is_admin=True)):
        page = client.get("/").text
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|<style|\sstyle=|javascript:", page)
        assert not re.search(r"(?:src|href)=\"(?!/)", page)


def test_without_a_session_there_is_nothing_but_the_door(room: Room, sign_in: SignIn) -> None:
    stranger = sign_in()
    media = next(iter(room.desk.items.values())).media
    assert stranger.post("/api/work", json={}).status_code == 401
    assert stranger.post("/api/saves", json=save_of("x" * 22)).status_code == 401
    assert stranger.get(f"/media/{media}").status_code == 401
    assert "Sign in" in stranger.get("/").text


def test_tokens_are_stored_as_hashes_and_a_new_one_ends_the_sessions_of_the_old(room: Room, sign_in: SignIn) -> None:
    ann = sign_in("ann")
    work(ann)
    token = invite(room.store.database, "ann", is_admin=False)
    assert ann.post("/api/work", json={}).status_code == 401
    assert token.encode() not in room.project.labels_db.read_bytes()
    assert ann.post("/api/enter", json={"token": token}).status_code == 200
    work(ann)


def test_a_cookie_cannot_be_made_or_prolonged(room: Room, sign_in: SignIn) -> None:
    ann = sign_in("ann")
    ((name, cookie),) = ann.cookies.items()
    person, expires, signature = cookie.split(".")
    stranger = sign_in()
    for forged in (
        f"{person}.{int(expires) + 9}.{signature}", f"{person}.{expires}.{'0' * 64}", f"{person}.{expires}.", "..",
        f"{'x' * 22}.{expires}.{signature}", f"{person}.1000000000.{signature}",
    ):  # fmt: skip
        assert stranger.post("/api/work", json={}, headers={"cookie": f"{name}={forged}"}).status_code == 401
    assert int(expires) > SESSION_S


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(room: Room, sign_in: SignIn) -> None:
    token = invite(room.store.database, "ann", is_admin=False)
    cookie = sign_in().post("/api/enter", json={"token": token}).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert token.lower() not in cookie


def test_guessing_is_slowed_down(sign_in: SignIn) -> None:
    client = sign_in()
    answers = [client.post("/api/enter", json={"token": f"guess {i}"}).status_code for i in range(25)]
    assert answers == [403] * 20 + [429] * 5


def test_a_limiter_forgets() -> None:
    now = [0.0]
    limiter = Limiter(times=2, seconds=10, clock=lambda: now[0])
    limiter.count("ann")
    limiter.count("ann")
    assert (limiter.is_over("ann"), limiter.is_over("bob")) == (True, False)
    now[0] = 10.5
    assert not limiter.is_over("ann")


def test_what_a_browser_sends_reaches_the_log_as_printable_text(
    sign_in: SignIn, caplog: pytest.LogCaptureFixture
) -> None:
    """Escape sequences and line ends in an address would write to the terminal of whoever runs the studio."""
    assert sign_in("ann").get("/export/answers.%1b%5b2J%0afaked").status_code == 404
    line = next(record.getMessage() for record in caplog.records if "is for admins" in record.getMessage())
    assert line.isprintable()
    assert "faked" in line


def test_annotators_cannot_tell_others_items_from_none(room: Room, sign_in: SignIn) -> None:
    ann, bob = sign_in("ann"), sign_in("bob")
    item = work(ann)["items"][0]
    for id_ in (item["assignment"], "x" * 22):
        refused = bob.post("/api/saves", json=save_of(id_))
        assert (refused.status_code, refused.json()) == (404, {"error": "nothing here"})
        assert bob.post("/api/previous", json={"assignment": id_}).status_code == 404
    held = {each["media"] for each in work(bob)["items"]}
    others = [each.media for each in room.desk.items.values() if f"/media/{each.media}" not in held]
    assert {bob.get(f"/media/{media}").status_code for media in others[:5]} == {404}
    for path in ("/dashboard", "/export/answers.jsonl"):
        assert bob.get(path).status_code == 404


@pytest.mark.parametrize(
    "change",
    [
        {"assignment": 7}, {"id": "x"}, {"kind": "delete"}, {"choice": None}, {"admin": True},
        {"choice": {"note": "x" * 2001}}, {"choice": {"active_ms": -1}}, {"choice": {"answers": {"overall": ["a"]}}},
        {"choice": {"scores": {"x": 11}}}, {"choice": {"reason": "=cmd()"}}, {"choice": {"active_ms": True}},
    ],
)  # fmt: skip
def test_what_is_not_a_save_is_refused_without_an_echo(sign_in: SignIn, change: dict[str, object]) -> None:
    client = sign_in("ann")
    answer = client.post("/api/saves", json=save_of(work(client)["items"][0]["assignment"]) | change)
    assert answer.status_code == 422
    assert len(answer.text) < 200
    assert "xxx" not in answer.text


def test_a_large_body_is_cut_off(sign_in: SignIn) -> None:
    client = sign_in("ann")
    headers = {"content-type": "application/json"}
    assert client.post("/api/saves", content=b" " * (MAX_BODY_BYTES + 1), headers=headers).status_code == 413
    pieces = (b" " * 10_000 for _ in range(10))  # no length is announced
    assert client.post("/api/saves", content=pieces, headers=headers).status_code == 413
    assert client.get("/", headers={"x-filler": "x" * 9000}).status_code == 431


def test_deep_json_is_no_crash(sign_in: SignIn) -> None:
    answer = sign_in("ann").post(
        "/api/saves", content=b"[" * 30_000 + b"]" * 30_000, headers={"content-type": "application/json"}
    )
    assert answer.status_code in {400, 422}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None), ("bytes=0-1", (0, 2)), ("bytes=0-", (0, 100)), ("bytes=90-200", (90, 100)),
        ("bytes=-1", (99, 100)), ("bytes=-500", (0, 100)), ("bytes=99-99", (99, 100)),
    ],
)  # fmt: skip
def test_one_range_is_cut_to_the_file(header: str | None, expected: tuple[int, int] | None) -> None:
    """Half-open ranges of a file of 100 bytes."""
    assert parse_range(header, 100) == expected


@pytest.mark.parametrize(
    "header",
    ["bytes=100-", "bytes=5-4", "bytes=-0", "bytes=-", "bytes=0-1,3-4", "bytes=" + "0-1," * 10_000, "lines=0-1",
     "bytes=0x1-2", "bytes= 0-1", "bytes=1e3-", "bytes=" + "9" * 40 + "-"],
)  # fmt: skip
def test_other_ranges_are_refused(header: str) -> None:
    with pytest.raises(RangeRefused):
        parse_range(header, 100)


def test_parts_of_a_video_are_right(sign_in: SignIn) -> None:
    client = sign_in("ann")
    media = work(client)["items"][0]["media"]
    whole = client.get(media)
    assert (whole.status_code, whole.headers["accept-ranges"]) == (200, "bytes")
    assert whole.headers["content-type"] == "video/mp4"
    size = len(whole.content)
    part = client.get(media, headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{size}"
    refused = client.get(media, headers={"range": f"bytes={size}-"})
    assert (refused.status_code, refused.headers["content-range"]) == (416, f"bytes */{size}")
    etag = whole.headers["etag"]
    assert client.get(media, headers={"if-none-match": etag}).status_code == 304
    assert client.get(media, headers={"range": "bytes=0-1", "if-range": '"other"'}).status_code == 200
    assert client.get(media, headers={"range": "bytes=0-1", "if-range": etag}).status_code == 206
    head = client.head(media)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(size))


def test_nothing_that_is_sent_says_which_clip_is_which(room: Room, sign_in: SignIn) -> None:
    """Everything that a person can ask for, searched for what only the records know."""
    client = sign_in("ann")
    texts = []
    for _ in range(6):
        answer = client.post("/api/work", json={})
        item = answer.json()["items"][0]
        video = client.get(item["media"])
        texts += [answer.text, video.content.decode("latin-1"), item["media"]]
        texts += [f"{name}: {value}" for each in (answer, video) for name, value in each.headers.items()]
        choice = {"answers": {"overall": ["left"] * 3}, "watched": True}
        client.post("/api/saves", json={**save_of(item["assignment"], "submit"), "choice": choice})
    texts.append(client.get("/").text)
    secrets = ["secret-pair", "secretmodel", "noise-of", "/videos/", "latents", "flipped", "gold", "repeat", "plain"]
    assert [secret for secret in secrets if any(secret in text for text in texts)] == []


@pytest.mark.parametrize("room", [{"overlap": 2}], indirect=True)
def test_the_order_inside_the_videos_says_nothing(room: Room, sign_in: SignIn) -> None:
    """Both orders occur, under both crops: neither the file nor the page gives a away.

    24 pairs, each seen by two people: that coins never fall one way has a chance of 2 in ten million.
    """
    from densedpo.core.media import read_pair_mp4

    seen = set()
    for client in (sign_in("ann"), sign_in("ben")):
        for _ in range(len(room.pairs)):
            view = work(client)["items"][0]
            item = next(i for i in room.desk.items.values() if view["media"].endswith(i.media))
            first, _ = read_pair_mp4(room.media.path_of(item), pixel_scale=2)
            is_red = bool(first[0, 40, 32, 0] > 120)  # a is red
            assert is_red != item.flipped
            seen.add((is_red, view["left_crop"]))
            choice = {"answers": {"overall": ["left"] * 3}, "watched": True}
            client.post("/api/saves", json={**save_of(view["assignment"], "submit"), "choice": choice})
    assert seen == {(True, 0), (True, 1), (False, 0), (False, 1)}


def test_a_server_that_others_can_reach_needs_protection(room: Room) -> None:
    def start(host: str, public_url: str | None) -> None:
        serve(
            room.project, room.pairs, room.store, room.desk.study.settings, host=host, port=0, public_url=public_url,
            say=lambda _: None,
        )  # fmt: skip

    with pytest.raises(BadInput, match=r"--host 0\.0\.0\.0 can be reached by others"):
        start("0.0.0.0", None)
    with pytest.raises(BadInput, match="nobody can sign in yet"):
        start("127.0.0.1", "https://label.example.org")


@pytest.mark.parametrize(
    "url",
    [
        "http://label.example.org",
        "https://",
        "label.example.org",
        "https://u:p@x.org",
        "https://x.org/a",
        "https://x.org?q",
    ],
)
def test_a_public_url_is_an_https_host(url: str) -> None:
    with pytest.raises(BadInput, match="--public-url"):
        Address.public(url)


def test_behind_a_proxy_only_the_public_name_is_taken() -> None:
    address = Address.public("https://Label.Example.org:443/")
    assert address.hosts == {"label.example.org"}
    assert address.origins == {"https://label.example.org"}
    assert address.is_https


def test_the_owners_token_is_worthless_once_others_can_come(room: Room, sign_in: SignIn) -> None:
    token = owner_token(room.store.database)
    client = sign_in()
    assert client.post("/api/enter", json={"token": token}).status_code == 200
    owner_token(room.store.database)
    work(client)  # a restart on this machine keeps the page signed in
    assert sign_in().post("/api/enter", json={"token": token}).status_code == 403
    close_owner(room.store.database)
    assert client.post("/api/work", json={}).status_code == 401


@pytest.mark.parametrize(
    "name", ["owner", "oracle", "vlm-12345678", "<b>x</b>", "=cmd()", "a\nb", "", "x" * 65, "../x"]
)
def test_names_that_are_taken_or_are_none(room: Room, name: str) -> None:
    with pytest.raises(BadInput):
        invite(room.store.database, name, is_admin=False)


@pytest.mark.parametrize("url", ["mysql://u:p@h/d", "not a url", "sqlite:///x.db", "postgresql://u:p@h"])
def test_a_database_elsewhere_is_postgresql_and_its_password_is_not_shown(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(DATABASE_URL, url)
    with pytest.raises(BadInput, match=DATABASE_URL) as caught:
        labels_at(tmp_path / "labels.db")
    assert "u:p" not in str(caught.value).replace("user:password", "")


def test_captions_are_text(sign_in: SignIn) -> None:
    """No script of ours turns text into markup."""
    import importlib.resources

    folder = importlib.resources.files("densedpo.judge.web") / "static"
    for path in folder.iterdir():
        if path.name.endswith(".js"):
            text = path.read_text()
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text)


def test_a_body_that_never_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slowloris: the headers are there, the body drips. The app behind is never asked."""
    monkeypatch.setattr(guard, "BODY_TIMEOUT_S", 0.05)
    sent: list[dict[str, object]] = []

    async def app(scope: object, receive: object, send: object) -> None:
        raise AssertionError("asked")

    async def drip() -> dict[str, object]:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def keep(message: dict[str, object]) -> None:
        sent.append(message)

    headers = [(b"host", f"127.0.0.1:{PORT}".encode()), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/api/saves", "headers": headers}
    # a browser test before this one leaves its event loop in the main thread
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, guard.Guard(app, Address.local(PORT))(scope, drip, keep)).result()
    assert sent[0]["status"] == 408
