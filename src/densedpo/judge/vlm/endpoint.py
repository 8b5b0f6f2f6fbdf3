"""The connection to a server: the one place that sends, waits and tries again.

The client's own retries are off, so that attempts do not multiply. Every attempt is counted and checked against the
limits; a question has one deadline over all its attempts, which a server that drips or never ends cannot outrun.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from functools import reduce
from types import TracebackType
from typing import Final, Self, TypeVar

import httpx2
import openai
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from densedpo.core.errors import BadInput, Interrupted
from densedpo.judge.protocol import Cost, Failure
from densedpo.judge.vlm.answers import usage_of
from densedpo.judge.vlm.config import VlmConfig
from densedpo.judge.vlm.refusals import Secret, TryAgain, classified, costs_nothing
from densedpo.judge.vlm.spending import Spending
from densedpo.judge.vlm.wire import Request

Result = TypeVar("Result")
_Stream = openai.AsyncStream[object]

_LONGEST_WAIT_S: Final = 60.0
_MAX_REPLY_BYTES: Final = 4 * 1024 * 1024
_MAX_FAILED_IN_A_ROW: Final = 5  # questions to which the server gave no answer at all: then it is down


class Endpoint:
    """A server that is asked from any thread; its connections live in an event loop of their own.

    Use it as a context manager: leaving it drops what is still under way.
    """

    def __init__(self, config: VlmConfig, secret: Secret, spending: Spending) -> None:
        self._config = config
        self._secret = secret
        self._spending = spending
        self._failed_in_a_row = 0
        self._ended: BadInput | Interrupted | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vlm endpoint", daemon=True)
        self._thread.start()
        self._client = self.run(self._connect())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._disconnect(), self._loop).result(timeout=10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=10)
            self._loop.close()

    def run(self, coroutine: Coroutine[object, object, Result]) -> Result:
        """Waits in this thread for what runs in the endpoint's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def send(self, request: Request) -> tuple[str | Failure, Cost]:
        """The body of the server's reply to one question, or why there is none, and what all attempts cost.

        Raises:
            BadInput: the server will never answer such questions.
            Interrupted: a limit is reached, or the server has been gone for some time.
        """
        costs: list[Cost] = []
        async with self._places:
            if self._ended is not None:
                raise self._ended
            try:
                async with asyncio.timeout(self._config.deadline_s) as deadline:
                    reply = await self._attempts(request, deadline, costs)
            except TimeoutError:
                reply = Failure(kind="deadline", detail=f"no whole reply within {self._config.deadline_s:g} s")
            except (BadInput, Interrupted) as error:
                self._ended = error  # whatever still waits for its turn is not sent
                raise
            self._note_whether_gone(reply)
        return reply, reduce(Cost.plus, costs, Cost())

    def _note_whether_gone(self, reply: str | Failure) -> None:
        is_gone = isinstance(reply, Failure) and reply.kind in ("unavailable", "deadline")
        self._failed_in_a_row = self._failed_in_a_row + 1 if is_gone else 0
        if isinstance(reply, Failure) and self._failed_in_a_row >= _MAX_FAILED_IN_A_ROW:
            self._ended = Interrupted(
                f"the server did not answer {self._failed_in_a_row} questions in a row ({reply.detail}); what was "
                "answered is kept, run the same command again when it is back"
            )
            raise self._ended

    async def _attempts(self, request: Request, deadline: asyncio.Timeout, costs: list[Cost]) -> str | Failure:
        backoff = wait_random_exponential(multiplier=self._config.first_wait_s, max=_LONGEST_WAIT_S)

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome is not None else None
            asked = error.wait_s if isinstance(error, TryAgain) else 0.0
            return max(asked, backoff(state))

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(TryAgain),
            stop=stop_after_attempt(self._config.attempts),
            wait=wait,
            reraise=True,
        )
        try:
            return await retrying(self._attempt, request, deadline, costs)
        except TryAgain as error:
            return Failure(kind="unavailable", detail=str(error))

    async def _attempt(self, request: Request, deadline: asyncio.Timeout, costs: list[Cost]) -> str | Failure:
        # until one request has told what a request uses, only one is under way
        async with self._first if self._spending.is_blind else contextlib.nullcontext():
            hold = self._spending.hold(request.num_characters)
            reply: str | None = None
            is_free = False
            try:
                reply = await self._reply(request)
            except (openai.APIError, httpx2.TransportError) as error:
                is_free = costs_nothing(error)
                return self._refused(error, deadline)
            except _TooLong:
                return Failure(kind="malformed", detail=f"more than {_MAX_REPLY_BYTES} bytes")
            finally:  # also where the deadline, or who leaves, cuts it off
                if reply is not None:
                    costs.append(self._spending.settle(hold, usage_of(reply)))
                else:
                    costs.append(self._spending.settle_unanswered(hold, is_free=is_free))
            return reply

    def _refused(self, error: Exception, deadline: asyncio.Timeout) -> Failure:
        try:
            return classified(error, self._secret)
        except TryAgain as again:
            ends = deadline.when()
            if ends is not None and self._loop.time() + again.wait_s >= ends:
                return Failure(kind="unavailable", detail=f"{again}; asks to wait {again.wait_s:.0f} s")
            raise

    async def _reply(self, request: Request) -> str:
        is_read_here = True  # piece by piece, so that a reply without an end fills no memory
        response = await self._client.post(
            request.path, cast_to=httpx2.Response, body=request.body, stream=is_read_here, stream_cls=_Stream
        )
        assert isinstance(response, httpx2.Response)
        text = bytearray()
        try:
            async for piece in response.aiter_bytes():
                text += piece
                if len(text) > _MAX_REPLY_BYTES:
                    raise _TooLong
        finally:
            await response.aclose()
        return text.decode("utf-8", errors="replace")

    async def _connect(self) -> openai.AsyncOpenAI:
        self._places = asyncio.Semaphore(self._config.concurrency)
        self._first = asyncio.Lock()
        return openai.AsyncOpenAI(
            base_url=self._config.base_url,
            api_key=self._secret.value or "none",
            max_retries=0,
            timeout=httpx2.Timeout(self._config.deadline_s, connect=self._config.connect_s),
        )

    async def _disconnect(self) -> None:
        under_way = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self._client.close()


class _TooLong(Exception):
    """A reply without an end."""
