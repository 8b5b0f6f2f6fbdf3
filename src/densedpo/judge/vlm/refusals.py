"""The retry matrix: which errors of a server are worth another attempt, which end a run, which are typed failures."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx2
import openai

from densedpo.core.errors import BadInput
from densedpo.judge.protocol import Failure

_AGAIN: Final = frozenset({408, 409, 429})  # and 5xx
# a quota that is used up is not a rate that is too high: waiting does not help
_NO_QUOTA: Final = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "spend_limit_reached", "access_terminated"}
)
_FILTERED: Final = frozenset({"content_filter", "content_policy_violation"})


class TryAgain(Exception):
    """An attempt failed in a way that may pass; `wait_s` is the least time that the server asks to be left alone."""

    def __init__(self, detail: str, wait_s: float = 0.0) -> None:
        super().__init__(detail)
        self.wait_s = wait_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Secret:
    """A key, and how to keep it out of every message."""

    value: str
    variable: str  # where it came from

    def hidden(self, text: str) -> str:
        """A text on one line without the key, at most 200 characters long."""
        clean = " ".join(text.replace(self.value, "***").split()) if self.value else " ".join(text.split())
        return clean if len(clean) <= 200 else clean[:197] + "..."

    def __repr__(self) -> str:
        return f"Secret({self.variable})"


def classified(error: Exception, secret: Secret) -> Failure:
    """A typed failure for an error that another attempt cannot mend and that says nothing about the next question.

    Raises:
        TryAgain: timeouts of connecting, broken connections, 408, 409, 429 and 5xx.
        BadInput: wrong key, no quota, no such model, a request that the server will never take, an untrusted
            certificate.
    """
    if isinstance(error, openai.APIStatusError):
        return _status(error, secret)
    if isinstance(error, openai.APIConnectionError | httpx2.TransportError):
        if _is_tls(error):
            raise BadInput(
                f"no trusted connection to the server ({secret.hidden(_root(error))}); check base_url and the server's "
                "certificate"
            ) from None
        raise TryAgain(f"no connection: {secret.hidden(_root(error))}") from None
    raise error


def costs_nothing(error: Exception) -> bool:
    """Whether no server can have charged for a request: it was refused with a status, or reached none.

    A connection that broke later may have been paid for: the server may have read the question and answered it.
    """
    if isinstance(error, openai.APIStatusError):
        return True
    return any(isinstance(inner, httpx2.ConnectError | httpx2.ConnectTimeout | ssl.SSLError) for inner in _chain(error))


def _status(error: openai.APIStatusError, secret: Secret) -> Failure:
    status = error.status_code
    names = {error.code, error.type}
    said = f"{status}: {secret.hidden(_said(error))}"
    if names & _FILTERED:
        return Failure(kind="filtered", detail=said)
    if names & _NO_QUOTA or status == 402:
        raise BadInput(f"the server says that the quota is used up ({said}); what was answered is kept") from None
    if status in _AGAIN or status >= 500:
        raise TryAgain(said, wait_s=_retry_after(error.response)) from None
    if status in (401, 403):
        raise BadInput(f"the server does not take the key in {secret.variable or 'key_env'} ({said})") from None
    if status == 404:
        raise BadInput(f"the server knows no such model or path ({said}); check model and base_url") from None
    if status == 413:
        raise BadInput(f"a question is too large ({said}); lower frames_per_second or max_side") from None
    raise BadInput(
        f"the server does not take the question ({said}); a server without JSON schemas needs --set json_schema=false"
    ) from None


def _said(error: openai.APIStatusError) -> str:
    if isinstance(error.body, dict):
        said = error.body.get("message") or error.body.get("detail")  # OpenAI's form, or FastAPI's
        return str(said) if said else error.message
    return error.response.reason_phrase  # an HTML page of a proxy says nothing more than its status


def _retry_after(response: httpx2.Response) -> float:
    """Seconds that a server asks to wait: a number or a date; 0 where it does not say."""
    text = response.headers.get("retry-after", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    inner: BaseException | None = error
    while inner is not None and inner not in found:
        found.append(inner)
        inner = inner.__cause__ or inner.__context__
    return found


def _is_tls(error: Exception) -> bool:
    return any(isinstance(inner, ssl.SSLError) for inner in _chain(error))


def _root(error: Exception) -> str:
    inner = _chain(error)[-1]
    return str(inner) or type(inner).__name__
