"""The app: pages, what they ask of the server, and videos by opaque id."""

# no `from __future__ import annotations` here: FastAPI reads the annotations of the routes, which name local things

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.types import ASGIApp

from densedpo.core.errors import BadInput
from densedpo.core.records import to_row
from densedpo.judge.formats import Row, csv_text, jsonl_text, parquet_bytes
from densedpo.judge.studies import ledger
from densedpo.judge.studies.answers import answer_rows
from densedpo.judge.studies.desk import BadChoice, Conflict, Desk, NotYours
from densedpo.judge.studies.media import MediaFolder, Unplayable
from densedpo.judge.studies.records import Person, SaveRequest
from densedpo.judge.web.guard import Address, Guard
from densedpo.judge.web.ranges import video_response
from densedpo.judge.web.sessions import SESSION_S, Limiter, sign, verify
from densedpo.judge.web.views import ItemView, Page, WorkView, item_view, work_view

if TYPE_CHECKING:
    from densedpo.judge.studies.dashboard import Dashboard

_LOG: Final = logging.getLogger("densedpo.studio")
_DOWNLOADS: Final[dict[str, tuple[Callable[[Sequence[Row]], str | bytes], str]]] = {
    "jsonl": (jsonl_text, "application/x-ndjson"),
    "csv": (csv_text, "text/csv"),
    "parquet": (parquet_bytes, "application/vnd.apache.parquet"),
}
_TYPES: Final = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Studio:
    """Everything that the app works on."""

    desk: Desk
    media: MediaFolder
    address: Address
    clock: Callable[[], float] = time.time

    @property
    def cookie(self) -> str:
        """The name of the session's cookie: cookies do not tell ports apart, so the name does."""
        return "__Host-densedpo" if self.address.is_https else f"densedpo-{self.address.url.rsplit(':', 1)[1][:-1]}"


class Entry(BaseModel):
    """What somebody signs in with."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    token: Annotated[str, Field(min_length=1, max_length=200)]


class Named(BaseModel):
    """An item of the person who asks; None: the newest."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    assignment: Annotated[str, Field(max_length=64)] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Saved:
    """What became of a save."""

    is_new: bool
    extra: bool
    state: str


def create_app(studio: Studio) -> ASGIApp:
    """The app behind its guard."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    who = _Door(studio)
    _add_pages(app, studio, who)
    _add_api(app, studio, who)
    _add_media(app, studio, who)
    _add_board(app, studio, who)
    _add_errors(app)
    return Guard(app, studio.address)


class _Door:
    """Finds out who is asking, and keeps each person to a pace that no hand exceeds."""

    def __init__(self, studio: Studio) -> None:
        self._studio: Final = studio
        self._pace: Final = Limiter(times=600, seconds=60)
        self.failures: Final = Limiter(times=20, seconds=60)

    def somebody(self, request: Request) -> Person | None:
        return verify(self._studio.desk.database, request.cookies.get(self._studio.cookie), self._studio.clock())

    def person(self, request: Request) -> Person:
        found = self.somebody(request)
        if found is None:
            raise HTTPException(401, "sign in again")
        if self._pace.is_over(found.id):
            raise HTTPException(429, "too many requests; wait a minute")
        self._pace.count(found.id)
        return found

    def admin(self, request: Request) -> Person:
        found = self.person(request)
        if not found.is_admin:
            _LOG.warning("%s asked for %r, which is for admins", found.name, request.url.path)
            raise HTTPException(404, "nothing here")
        return found


def _add_pages(app: FastAPI, studio: Studio, who: _Door) -> None:
    folder = files("densedpo.judge.web") / "static"
    # read once: what is served is this table, and no path is ever made of what a browser sends
    kinds = {path.name: path.name.rpartition(".")[2] for path in folder.iterdir()}
    static = {name: (folder / name).read_bytes() for name, kind in kinds.items() if kind in _TYPES}

    def page(name: str, frame: Page) -> HTMLResponse:
        return HTMLResponse(_templates().get_template(name).render(asdict(frame)))

    @app.get("/")
    def label(request: Request) -> HTMLResponse:
        person = who.somebody(request)
        if person is None:
            return page("enter.html", Page(title="Sign in", person=None, is_admin=False))
        return page("label.html", Page(title=studio.desk.study.name, person=person.name, is_admin=person.is_admin))

    @app.get("/static/{name}")
    def asset(name: str) -> Response:
        if name not in static:
            raise HTTPException(404, "nothing here")
        return Response(static[name], media_type=_TYPES[kinds[name]], headers={"cache-control": "no-cache"})

    @app.post("/api/enter")
    def enter(entry: Entry, request: Request) -> Response:
        client = request.client.host if request.client is not None else ""
        if who.failures.is_over(client):
            raise HTTPException(429, "too many attempts; wait a minute")
        with studio.desk.database.reading() as connection:
            person = ledger.person_by_token(connection, entry.token)
        if person is None:
            who.failures.count(client)
            raise HTTPException(403, "this token opens nothing here")
        response = JSONResponse({"person": person.name})
        response.set_cookie(
            studio.cookie, sign(person, studio.clock()), max_age=SESSION_S, path="/", httponly=True,
            samesite="strict", secure=studio.address.is_https,
        )  # fmt: skip
        return response

    @app.post("/api/leave")
    def leave() -> Response:
        response = JSONResponse({})
        response.delete_cookie(studio.cookie, path="/", httponly=True, samesite="strict")
        return response


def _add_api(app: FastAPI, studio: Studio, who: _Door) -> None:
    desk = studio.desk

    @app.post("/api/work")
    def work(person: Annotated[Person, Depends(who.person)]) -> WorkView:
        held = desk.hand_out(person)
        views = tuple(item_view(each, desk.pairs, desk.study) for each in held)
        return work_view(desk.study, person, desk.progress(person), views)

    @app.post("/api/previous")
    def previous(named: Named, person: Annotated[Person, Depends(who.person)]) -> ItemView | None:
        decided = desk.history(person)
        if named.assignment is not None:
            number = desk.look_up(person, named.assignment).assignment.number
            decided = tuple(each for each in decided if each.number < number)
        return item_view(desk.look_up(person, decided[-1].id), desk.pairs, desk.study) if decided else None

    @app.post("/api/saves")
    def save(request: SaveRequest, person: Annotated[Person, Depends(who.person)]) -> Saved:
        if request.kind == "submit":
            studio.media.path_of(desk.look_up(person, request.assignment).item)  # what cannot be seen is not judged
        stored = desk.save(person, request)
        return Saved(is_new=stored.is_new, extra=stored.extra, state=stored.state)


def _add_media(app: FastAPI, studio: Studio, who: _Door) -> None:
    by_media = {item.media: item for item in studio.desk.items.values()}

    @app.api_route("/media/{name}", methods=["GET", "HEAD"])
    def media(name: str, request: Request, person: Annotated[Person, Depends(who.person)]) -> Response:
        item = by_media.get(name)
        if item is None or not (person.is_admin or studio.desk.has_had(person, item)):
            raise HTTPException(404, "nothing here")
        etag = f'"{name}"'
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers={"etag": etag})
        response = video_response(
            studio.media.path_of(item),
            etag=etag,
            method=request.method,
            range_=request.headers.get("range"),
            if_range=request.headers.get("if-range"),
        )
        response.headers["x-flashes"] = "yes" if studio.media.flashes(item) else "no"
        return response


def _add_board(app: FastAPI, studio: Studio, who: _Door) -> None:
    board = _Board(studio)

    @app.get("/dashboard")
    def dashboard(person: Annotated[Person, Depends(who.admin)]) -> HTMLResponse:
        frame = Page(title="Dashboard", person=person.name, is_admin=True)
        text = (
            _templates()
            .get_template("dashboard.html")
            .render(**asdict(frame), board=board.now(), downloads=_downloads())
        )
        return HTMLResponse(text)

    @app.get("/export/answers.{kind}")
    def export(kind: str, person: Annotated[Person, Depends(who.admin)]) -> Response:  # noqa: ARG001
        if kind not in _downloads():
            raise HTTPException(404, "nothing here")
        write, type_ = _DOWNLOADS[kind]
        content = write([to_row(row) for row in answer_rows(studio.desk)])
        return Response(
            content, media_type=type_, headers={"content-disposition": f'attachment; filename="answers.{kind}"'}
        )


def _downloads() -> tuple[str, ...]:
    """The formats in which answers can be had here: Parquet takes a package of its own."""
    return tuple(kind for kind in _DOWNLOADS if kind != "parquet" or find_spec("pyarrow") is not None)


class _Board:
    """The dashboard's numbers, computed again when something was saved since."""

    def __init__(self, studio: Studio) -> None:
        self._studio: Final = studio
        self._lock: Final = threading.Lock()
        self._known: tuple[object, "Dashboard"] | None = None

    def now(self) -> "Dashboard":
        from densedpo.judge.studies.dashboard import summarise_study  # brings scipy, which a start need not wait for

        desk, media = self._studio.desk, self._studio.media
        with self._lock:
            with desk.database.reading() as connection:
                state = (ledger.last_number(connection, desk.study.name), len(media.motion), len(media.faults))
            if self._known is None or self._known[0] != state:
                self._known = (state, summarise_study(desk, motion=dict(media.motion), faults=dict(media.faults)))
            return self._known[1]


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("densedpo.judge.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )


def _add_errors(app: FastAPI) -> None:
    """Every refusal is one short line of JSON; what went wrong inside is told to the log alone."""

    @app.exception_handler(AnyHTTPException)
    def refused(_: Request, error: AnyHTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail).lower()}, status_code=error.status_code)

    @app.exception_handler(RequestValidationError)
    def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        where = ".".join(str(part) for part in error.errors()[0]["loc"] if str(part).isidentifier())
        return JSONResponse({"error": f"not understood: {where[:80]}; load the page again"}, status_code=422)

    @app.exception_handler(NotYours)
    def not_yours(request: Request, _: NotYours) -> JSONResponse:
        _LOG.warning("%r was asked about an item that is not the asker's", request.url.path)
        return JSONResponse({"error": "nothing here"}, status_code=404)

    @app.exception_handler(Conflict)
    def conflict(_: Request, __: Conflict) -> JSONResponse:
        return JSONResponse({"error": "this was saved before with another content"}, status_code=409)

    @app.exception_handler(BadChoice)
    def incomplete(_: Request, error: BadChoice) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=422)

    @app.exception_handler(Unplayable)
    def unplayable(_: Request, error: Unplayable) -> JSONResponse:
        _LOG.warning("%s", error)
        return JSONResponse({"error": Unplayable.public}, status_code=410)

    @app.exception_handler(BadInput)
    def out_of_order(_: Request, error: BadInput) -> JSONResponse:
        # a database that stopped names its file: that line is for the log, as annotators can do nothing about it
        number = secrets.token_hex(4)
        _LOG.error("[%s] %s", number, error)
        text = f"the studio cannot store anything at the moment [{number}]; your answers wait in this browser"
        return JSONResponse({"error": text}, status_code=503)
