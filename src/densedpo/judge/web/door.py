"""What the app works on, and who may come in."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fastapi import HTTPException, Request

from densedpo.judge.studies.desk import Desk
from densedpo.judge.studies.media import MediaFolder
from densedpo.judge.studies.records import Person
from densedpo.judge.web.guard import Address
from densedpo.judge.web.sessions import Limiter, verify

_LOG: Final = logging.getLogger("densedpo.studio")


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


class Door:
    """Finds out who is asking, and keeps each person to a pace that no hand exceeds."""

    def __init__(self, studio: Studio) -> None:
        """Of one studio."""
        self._studio: Final = studio
        self._pace: Final = Limiter(times=600, seconds=60)
        self.failures: Final = Limiter(times=20, seconds=60)

    def somebody(self, request: Request) -> Person | None:
        """Whoever asks; None if nobody is signed in."""
        return verify(self._studio.desk.database, request.cookies.get(self._studio.cookie), self._studio.clock())

    def person(self, request: Request) -> Person:
        """Whoever asks.

        Raises:
            HTTPException: 401 if nobody is signed in, 429 if they ask too often.
        """
        found = self.somebody(request)
        if found is None:
            raise HTTPException(401, "sign in again")
        if self._pace.is_over(found.id):
            raise HTTPException(429, "too many requests; wait a minute")
        self._pace.count(found.id)
        return found

    def admin(self, request: Request) -> Person:
        """Whoever asks, if they may see everything.

        Raises:
            HTTPException: as `person`; 404 to annotators, who need not know what there is.
        """
        found = self.person(request)
        if not found.is_admin:
            _LOG.warning("%s asked for %r, which is for admins", found.name, request.url.path)
            raise HTTPException(404, "nothing here")
        return found
