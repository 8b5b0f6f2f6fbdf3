"""Every refusal is one short line of JSON; what went wrong inside is told to the log alone."""

from __future__ import annotations

import logging
import secrets
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from densedpo.core.errors import BadInput
from densedpo.judge.studies.desk import BadChoice, Conflict, NotYours
from densedpo.judge.studies.media import Unplayable

_LOG: Final = logging.getLogger("densedpo.studio")


def add_refusals(app: FastAPI) -> None:
    """Adds an answer for each kind of error."""

    @app.exception_handler(HTTPException)
    def refused(_: Request, error: HTTPException) -> JSONResponse:
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
