"""The app: pages, what they ask of the server, and videos by opaque id."""

# no `from __future__ import annotations` here: FastAPI reads the annotations of the routes, which name local things

from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Final

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp

from densedpo.judge.studies import ledger
from densedpo.judge.studies.records import Person, SaveRequest
from densedpo.judge.web.board import add_board
from densedpo.judge.web.door import Door, Studio
from densedpo.judge.web.guard import Guard
from densedpo.judge.web.ranges import video_response
from densedpo.judge.web.refusals import add_refusals
from densedpo.judge.web.sessions import SESSION_S, sign
from densedpo.judge.web.views import ItemView, Page, WorkView, item_view, render, work_view

_TYPES: Final = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}


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
    who = Door(studio)
    _add_pages(app, studio, who)
    _add_api(app, studio, who)
    _add_media(app, studio, who)
    add_board(app, studio, who)
    add_refusals(app)
    return Guard(app, studio.address)


def _add_pages(app: FastAPI, studio: Studio, who: Door) -> None:
    folder = files("densedpo.judge.web") / "static"
    # read once: what is served is this table, and no path is ever made of what a browser sends
    kinds = {path.name: path.name.rpartition(".")[2] for path in folder.iterdir()}
    static = {name: (folder / name).read_bytes() for name, kind in kinds.items() if kind in _TYPES}

    @app.get("/")
    def label(request: Request) -> HTMLResponse:
        person = who.somebody(request)
        if person is None:
            return render("enter.html", Page(title="Sign in", person=None, is_admin=False))
        return render("label.html", Page(title=studio.desk.study.name, person=person.name, is_admin=person.is_admin))

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


def _add_api(app: FastAPI, studio: Studio, who: Door) -> None:
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


def _add_media(app: FastAPI, studio: Studio, who: Door) -> None:
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
