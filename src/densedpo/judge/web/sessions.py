"""Who is asking: a token is exchanged once for a signed cookie, which survives a restart of the server."""

from __future__ import annotations

import hashlib
import hmac
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Final

from densedpo.judge.database import Database
from densedpo.judge.studies import ledger
from densedpo.judge.studies.records import Person

SESSION_S: Final = 14 * 24 * 3600
_COOKIE: Final = re.compile(r"([A-Za-z0-9_-]{16,64})\.(\d{10,12})\.([0-9a-f]{64})")


def sign(person: Person, now_s: float) -> str:
    """The value of a person's cookie: who, until when, and a signature by the key of their sessions."""
    body = f"{person.id}.{int(now_s) + SESSION_S}"
    return f"{body}.{_signature(person, body)}"


def verify(database: Database, cookie: str | None, now_s: float) -> Person | None:
    """The person whose cookie it is; None if it is not one, has run out, or the person has got another token."""
    found = _COOKIE.fullmatch(cookie or "")
    if found is None or int(found[2]) < now_s:
        return None
    with database.reading() as connection:
        person = ledger.person_by_id(connection, found[1])
    if person is None or not hmac.compare_digest(found[3], _signature(person, f"{found[1]}.{found[2]}")):
        return None
    return person


def _signature(person: Person, body: str) -> str:
    return hmac.new(bytes.fromhex(person.session_key), body.encode(), hashlib.sha256).hexdigest()


class Limiter:
    """So many times in so many seconds for each key; forgets keys that have gone quiet."""

    def __init__(self, *, times: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """At most `times` in any `seconds`."""
        self._times, self._seconds, self._clock = times, seconds, clock
        self._seen: defaultdict[str, deque[float]] = defaultdict(deque)
        self._lock = threading.Lock()

    def is_over(self, key: str) -> bool:
        """Whether a key has used up what it has."""
        with self._lock:
            return len(self._recent(key)) >= self._times

    def count(self, key: str) -> None:
        """Counts once."""
        with self._lock:
            self._recent(key).append(self._clock())
            if len(self._seen) > 10_000:
                for quiet in [each for each in self._seen if not self._recent(each)]:
                    del self._seen[quiet]

    def _recent(self, key: str) -> deque[float]:
        times, since = self._seen[key], self._clock() - self._seconds
        while times and times[0] < since:
            times.popleft()
        return times
