"""The dashboard and the downloads of answers: what only admins may see."""

# no `from __future__ import annotations` here: FastAPI reads the annotations of the routes, which name local things

import threading
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import HTMLResponse, Response

from densedpo.core.records import to_row
from densedpo.judge.formats import Row, csv_text, jsonl_text, parquet_bytes
from densedpo.judge.studies import ledger
from densedpo.judge.studies.answers import answer_rows
from densedpo.judge.studies.records import Person
from densedpo.judge.web.door import Door, Studio
from densedpo.judge.web.views import Page, render

if TYPE_CHECKING:
    from densedpo.judge.studies.dashboard import Dashboard

_DOWNLOADS: Final[dict[str, tuple[Callable[[Sequence[Row]], str | bytes], str]]] = {
    "jsonl": (jsonl_text, "application/x-ndjson"),
    "csv": (csv_text, "text/csv"),
    "parquet": (parquet_bytes, "application/vnd.apache.parquet"),
}


def add_board(app: FastAPI, studio: Studio, who: Door) -> None:
    """Adds the routes."""
    board = _Board(studio)

    @app.get("/dashboard")
    def dashboard(person: Annotated[Person, Depends(who.admin)]) -> HTMLResponse:
        frame = Page(title="Dashboard", person=person.name, is_admin=True)
        return render("dashboard.html", frame, board=board.now(), downloads=_downloads())

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
